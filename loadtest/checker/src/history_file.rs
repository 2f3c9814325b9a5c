//! The file of a history: what clients sent, and what they were told, one JSON object a line, written as it happens.
//!
//! ```text
//! {"line":"history","version":1}
//! {"line":"sent","request":0,"after_ms":12,"user":"ann","coupon":"spring","key":"k-1"}
//! {"line":"heard","request":0,"after_ms":15,"status":202,"body":"{\"request_id\":\"…\",\"status\":\"pending\",…}"}
//! {"line":"heard","request":0,"after_ms":31}
//! ```
//!
//! | line | fields |
//! |---|---|
//! | `history` | the first one, and only the first; `version` is 1 |
//! | `sent` | before a request is sent for the first time. `request`: any number that no other request of the file has; `user` who asks (the token's subject), `coupon` what it is about; `key` its Idempotency-Key, left out where it has none. Sending it again, and asking for its outcome, is no new request |
//! | `heard` | after every answer to a POST, a DELETE or a GET about that `request`, in the order in which they came: HTTP `status` and `body` as it came. Neither, where no answer came |
//!
//! `after_ms` counts from when the history began. A last line that does not end with a line feed is being written, and
//! not there yet. Anything else that is not like this makes the file unreadable: a check must not be of half a history.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::history::{Asked, Heard, History};
use super::ledger::Map;

/// Of the format.
const VERSION: u32 = 1;
/// No answer of the interface comes near it.
const LONGEST_LINE: u64 = 4 << 20;

/// Why a history cannot be read.
#[derive(Debug, Error)]
pub enum HistoryUnreadable {
    /// The file.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// What stands in it.
    #[error("{path}, line {line}: {why}")]
    Line {
        /// Which file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
enum Line<'a> {
    History {
        version: u32,
    },
    Sent {
        request: u64,
        after_ms: u64,
        user: Text<'a>,
        coupon: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Text<'a>>,
    },
    Heard {
        request: u64,
        after_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Text<'a>>,
    },
}

type Text<'a> = std::borrow::Cow<'a, str>;

/// Writes a history down. What cannot be written is told at the end: no client waits for a disk, or fails with it.
#[derive(Debug)]
pub(super) struct Recorder(Mutex<Recording>);

#[derive(Debug)]
struct Recording {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Recorder {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut recording = Recording { file: BufWriter::new(File::create_new(path)?), failed: None };
        recording.try_write(&Line::History { version: VERSION })?;
        recording.file.flush()?;
        Ok(Self(Mutex::new(recording)))
    }

    pub(super) fn sent(&self, request: usize, sent: Duration, user: &str, coupon: &str, key: Option<&str>) {
        let request = request as u64;
        let (user, coupon, key) = (user.into(), coupon.into(), key.map(Into::into));
        self.write(&Line::Sent { request, after_ms: milliseconds(sent), user, coupon, key });
    }

    pub(super) fn heard(&self, request: usize, after: Duration, heard: &Heard) {
        let (status, body) = match heard {
            Heard::Nothing => (None, None),
            Heard::Answer { status, body } => (Some(*status), Some(body.into())),
        };
        self.write(&Line::Heard { request: request as u64, after_ms: milliseconds(after), status, body });
    }

    pub(super) fn finish(&self) -> io::Result<()> {
        let mut recording = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = recording.failed.take() {
            return Err(error);
        }
        recording.file.flush()
    }

    fn write(&self, line: &Line<'_>) {
        let mut recording = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that is missing must not be followed by others: the file would look whole.
        if recording.failed.is_none() {
            recording.failed = recording.try_write(line).err();
        }
    }
}

impl Recording {
    fn try_write(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Has a history hear again what a file says.
pub(super) fn replay(path: &Path, history: &History) -> Result<(), HistoryUnreadable> {
    let failed = |error| HistoryUnreadable::Io { path: path.display().to_string(), error };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let (mut text, mut known, mut number) = (Vec::new(), Map::default(), 0);
    loop {
        text.clear();
        number += 1;
        let wrong = |why| HistoryUnreadable::Line { path: path.display().to_string(), line: number, why };
        file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(failed)?;
        if text.last() != Some(&b'\n') {
            return match (text.len() as u64, number) {
                (LONGEST_LINE.., _) => Err(wrong(format!("longer than {LONGEST_LINE} bytes"))),
                (_, 1) => Err(wrong("the file does not begin with the line of a history".to_owned())),
                _ => Ok(()),
            };
        }
        let line = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        take_in(line, number, history, &mut known).map_err(wrong)?;
    }
}

fn take_in(
    line: Line<'_>,
    number: u64,
    history: &History,
    known: &mut Map<u64, Asked>,
) -> Result<(), String> {
    match line {
        Line::History { version } if number == 1 && version != VERSION => {
            Err(format!("its format is version {version}, and only version {VERSION} is known"))
        }
        Line::History { .. } if number == 1 => Ok(()),
        Line::History { .. } => Err("another history begins here".to_owned()),
        _ if number == 1 => Err("the file does not begin with the line of a history".to_owned()),
        Line::Sent { request, after_ms, user, coupon, key } => {
            let asked = history.sent_at(Duration::from_millis(after_ms), &user, &coupon, key.as_deref());
            match known.insert(request, asked) {
                None => Ok(()),
                Some(_) => Err(format!("request {request} was sent before")),
            }
        }
        Line::Heard { request, after_ms, status, body } => {
            let heard = match (status, body) {
                (None, None) => Heard::Nothing,
                (Some(status), Some(body)) => Heard::Answer { status, body: body.into_owned() },
                _ => return Err("an answer has a status and a body, or neither".to_owned()),
            };
            let asked = known.get(&request).ok_or_else(|| format!("request {request} was never sent"))?;
            history.heard_at(Duration::from_millis(after_ms), *asked, heard);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Told;
    use std::path::PathBuf;

    /// A directory that goes when the test ends, and a file in it that is not there yet.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history.jsonl");
        (directory, file)
    }

    fn pending() -> Heard {
        let body = r#"{"request_id":"AAAAAAAAAAAAAAAAAAAAAQ.tag","status":"pending"}"#.to_owned();
        Heard::Answer { status: 202, body }
    }

    #[test]
    fn what_was_written_down_is_read_as_it_was_heard() {
        let (_directory, file) = place();
        let history = History::recorded(&file).expect("a new file");
        let (one, two) = (history.sent("ann", "c", Some("k")), history.sent("bob \"\n", "c", None));
        history.heard(two, Heard::Answer { status: 503, body: "\u{0} no JSON".to_owned() });
        history.heard(one, Heard::Nothing);
        history.heard(one, pending());
        history.finish().expect("all of it is written");
        assert!(History::recorded(&file).is_err(), "no history is written over");

        let read = History::read(&file).expect("a history");
        let told = |history: &History| {
            history.look(|entries| {
                let entry = |entry: &crate::Entry| {
                    let told: Vec<Told> = entry.answers.iter().map(|answer| answer.told.clone()).collect();
                    (entry.user.clone(), entry.key.clone(), entry.given.clone(), told)
                };
                entries.iter().map(entry).collect::<Vec<_>>()
            })
        };
        assert_eq!(told(&read), told(&history));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn a_line_that_is_being_written_is_not_there_yet() {
        let (_directory, file) = place();
        let whole = "{\"line\":\"history\",\"version\":1}\n\
                     {\"line\":\"sent\",\"request\":7,\"after_ms\":1,\"user\":\"ann\",\"coupon\":\"c\"}\n";
        std::fs::write(&file, format!("{whole}{{\"line\":\"hea")).expect("a file");
        let history = History::read(&file).expect("a history");
        assert_eq!((history.len(), history.look(|entries| entries[0].answers.len())), (1, 0));
    }

    #[test]
    fn what_is_no_history_is_refused_with_its_line() {
        let (_directory, file) = place();
        let head = "{\"line\":\"history\",\"version\":1}\n";
        let sent = "{\"line\":\"sent\",\"request\":1,\"after_ms\":1,\"user\":\"ann\",\"coupon\":\"c\"}\n";
        let heard = "{\"line\":\"heard\",\"request\":1,\"after_ms\":1,\"status\":200}\n";
        for (text, why) in [
            (String::new(), "line 1: the file does not begin"),
            (sent.to_owned(), "line 1: the file does not begin"),
            ("{\"line\":\"history\",\"version\":2}\n".to_owned(), "line 1: its format is version 2"),
            (format!("{head}{head}"), "line 2: another history"),
            (format!("{head}{heard}"), "line 2: an answer has a status and a body"),
            (format!("{head}{sent}{sent}"), "line 3: request 1 was sent before"),
            (format!("{head}{}", sent.replace("\"user\"", "\"usr\"")), "line 2: unknown field `usr`"),
            (format!("{head}{}", heard.replace(",\"status\":200", "")), "line 2: request 1 was never sent"),
            (format!("{head}\n"), "line 2: "),
            (format!("{head}{}", "x".repeat(5 << 20)), "line 2: longer than"),
        ] {
            std::fs::write(&file, text).expect("a file");
            let error = History::read(&file).map(|_| ()).expect_err(why);
            assert!(error.to_string().contains(why), "{error}, not {why}");
        }
        std::fs::remove_file(&file).expect("it was there");
        let error = History::read(&file).map(|_| ()).expect_err("nothing is there");
        assert!(matches!(error, HistoryUnreadable::Io { .. }), "{error}");
    }
}
