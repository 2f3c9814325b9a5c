//! The history file: what clients sent and received, one JSON object a line, written as it happens.
//!
//! ```text
//! {"line":"history","version":1}
//! {"line":"sent","request":0,"after_ms":12,"user":"ann","coupon":"spring","key":"k-1"}
//! {"line":"received","request":0,"after_ms":15,"status":202,"body":"{\"request_id\":\"…\",\"status\":\"pending\",…}"}
//! {"line":"received","request":0,"after_ms":31}
//! ```
//!
//! The fields are described in `loadtest/checker/README.md`. A last line without a line feed is still being written, and
//! is ignored. Any other line that does not fit the format makes the file unreadable, because half a history proves
//! nothing.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{History, Received, RequestHandle};
use crate::collections::Map;

/// The version of the format.
const VERSION: u32 = 1;
const NO_HEADER: &str = "the file does not begin with a `history` line";
/// In bytes; no response of the API comes near it.
const MAX_LINE: u64 = 4 << 20;

/// Why a history cannot be read.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A line does not fit the format.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// Which file.
        path: String,
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
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
    Received {
        request: u64,
        after_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Text<'a>>,
    },
}

type Text<'a> = std::borrow::Cow<'a, str>;

/// Writes a history file. A write error is returned at the end: no client waits for a disk, or fails with it.
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

    pub(super) fn received(&self, request: usize, after: Duration, received: &Received) {
        let (status, body) = match received {
            Received::Nothing => (None, None),
            Received::Response { status, body } => (Some(*status), Some(body.into())),
        };
        self.write(&Line::Received { request: request as u64, after_ms: milliseconds(after), status, body });
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
        // After a lost line nothing more is written: the file would look complete.
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

/// Adds the content of a file to a history.
pub(super) fn replay(path: &Path, history: &History) -> Result<(), HistoryError> {
    let failed = |error| HistoryError::Io { path: path.display().to_string(), error };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let (mut text, mut handles, mut number) = (Vec::new(), Map::default(), 0);
    loop {
        text.clear();
        number += 1;
        let invalid = |reason| HistoryError::Line { path: path.display().to_string(), line: number, reason };
        file.by_ref().take(MAX_LINE).read_until(b'\n', &mut text).map_err(failed)?;
        if text.last() != Some(&b'\n') {
            return match (text.len() as u64, number) {
                (MAX_LINE.., _) => Err(invalid(format!("longer than {MAX_LINE} bytes"))),
                (_, 1) => Err(invalid(NO_HEADER.to_owned())),
                _ => Ok(()),
            };
        }
        let line = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        add_line(line, number, history, &mut handles).map_err(invalid)?;
    }
}

fn add_line(
    line: Line<'_>,
    number: u64,
    history: &History,
    handles: &mut Map<u64, RequestHandle>,
) -> Result<(), String> {
    match line {
        Line::History { version } if number == 1 && version != VERSION => {
            Err(format!("the format has version {version}, but only version {VERSION} is supported"))
        }
        Line::History { .. } if number == 1 => Ok(()),
        Line::History { .. } => Err("a second history begins here".to_owned()),
        _ if number == 1 => Err(NO_HEADER.to_owned()),
        Line::Sent { request, after_ms, user, coupon, key } => {
            let sent = Duration::from_millis(after_ms);
            let handle = history.add_request(sent, &user, &coupon, key.as_deref());
            match handles.insert(request, handle) {
                None => Ok(()),
                Some(_) => Err(format!("request {request} has a second `sent` line")),
            }
        }
        Line::Received { request, after_ms, status, body } => {
            let received = match (status, body) {
                (None, None) => Received::Nothing,
                (Some(status), Some(body)) => Received::Response { status, body: body.into_owned() },
                _ => return Err("a response has both status and body, or neither".to_owned()),
            };
            let handle =
                handles.get(&request).ok_or_else(|| format!("request {request} has no `sent` line"))?;
            history.add_received(Duration::from_millis(after_ms), *handle, received);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ApiResponse, ClientRequest};
    use std::path::PathBuf;

    /// A temporary directory, and the path of a new file in it.
    fn new_file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history.jsonl");
        (directory, file)
    }

    fn pending() -> Received {
        let body = r#"{"request_id":"AAAAAAAAAAAAAAAAAAAAAQ.tag","status":"pending"}"#.to_owned();
        Received::Response { status: 202, body }
    }

    #[test]
    fn a_file_is_read_as_it_was_recorded() {
        let (_directory, file) = new_file();
        let history = History::recording_to(&file).expect("a new file");
        let one = history.record_sent("ann", "c", Some("k"));
        let two = history.record_sent("bob \"\n", "c", None);
        let body = "\u{0} no JSON".to_owned();
        history.record_received(two, Received::Response { status: 503, body });
        history.record_received(one, Received::Nothing);
        history.record_received(one, pending());
        history.finish().expect("everything is written");
        assert!(History::recording_to(&file).is_err(), "a history is never overwritten");

        let read = History::read(&file).expect("a history");
        let content = |history: &History| {
            history.with_requests(|requests| {
                let content = |request: &ClientRequest| {
                    let responses = request.responses.iter().map(|received| received.response.clone());
                    let responses: Vec<ApiResponse> = responses.collect();
                    (request.user.clone(), request.key.clone(), request.request_id.clone(), responses)
                };
                requests.iter().map(content).collect::<Vec<_>>()
            })
        };
        assert_eq!(content(&read), content(&history));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn an_incomplete_last_line_is_ignored() {
        let (_directory, file) = new_file();
        let complete = "{\"line\":\"history\",\"version\":1}\n\
                     {\"line\":\"sent\",\"request\":7,\"after_ms\":1,\"user\":\"ann\",\"coupon\":\"c\"}\n";
        std::fs::write(&file, format!("{complete}{{\"line\":\"rec")).expect("a file");
        let history = History::read(&file).expect("a history");
        assert_eq!((history.len(), history.with_requests(|requests| requests[0].responses.len())), (1, 0));
    }

    #[test]
    fn a_line_that_does_not_fit_the_format_is_rejected_with_its_number() {
        let (_directory, file) = new_file();
        let head = "{\"line\":\"history\",\"version\":1}\n";
        let sent = "{\"line\":\"sent\",\"request\":1,\"after_ms\":1,\"user\":\"ann\",\"coupon\":\"c\"}\n";
        let received = "{\"line\":\"received\",\"request\":1,\"after_ms\":1,\"status\":200}\n";
        for (text, reason) in [
            (String::new(), "line 1: the file does not begin"),
            (sent.to_owned(), "line 1: the file does not begin"),
            ("{\"line\":\"history\",\"version\":2}\n".to_owned(), "line 1: the format has version 2"),
            (format!("{head}{head}"), "line 2: a second history"),
            (format!("{head}{received}"), "line 2: a response has both status and body"),
            (format!("{head}{sent}{sent}"), "line 3: request 1 has a second `sent` line"),
            (format!("{head}{}", sent.replace("\"user\"", "\"usr\"")), "line 2: unknown field `usr`"),
            (
                format!("{head}{}", received.replace(",\"status\":200", "")),
                "line 2: request 1 has no `sent` line",
            ),
            (format!("{head}\n"), "line 2: "),
            (format!("{head}{}", "x".repeat(5 << 20)), "line 2: longer than"),
        ] {
            std::fs::write(&file, text).expect("a file");
            let error = History::read(&file).map(|_| ()).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}, not {reason}");
        }
        std::fs::remove_file(&file).expect("it existed");
        let error = History::read(&file).map(|_| ()).expect_err("the file is gone");
        assert!(matches!(error, HistoryError::Io { .. }), "{error}");
    }
}
