//! The last words of a child, for the one line that says why it did not come up.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a log's end is looked at.
const TAIL_BYTES: u64 = 64 * 1024;
/// Longest line that is shown.
const SHOWN_CHARS: usize = 240;

/// The most telling line written to `log` since it was `from` bytes long: the last that speaks of an error, else the
/// last at all.
pub(crate) fn last_line(log: &Path, from: u64) -> String {
    let text = tail(log, from).unwrap_or_default();
    telling_line(&text)
}

/// The same for what a helper wrote.
pub(crate) fn telling_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let speaks = |line: &&&str| {
        ["FATAL", "ERROR", "error:", "Exception", "panicked"].iter().any(|word| line.contains(word))
    };
    let line = lines.iter().rev().find(speaks).or(lines.last()).copied().unwrap_or("(nothing)");
    line.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect()
}

fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_BYTES)).min(end)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_speaks_of_an_error_is_preferred_to_a_later_one() {
        assert_eq!(telling_line("starting\nFATAL: no disk\nbye\n\n"), "FATAL: no disk");
        assert_eq!(telling_line("starting\nbye\n"), "bye");
        assert_eq!(telling_line(""), "(nothing)");
    }

    #[test]
    fn lines_of_an_earlier_run_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        std::fs::write(&log, "ERROR of yesterday\nall fine\n").unwrap();
        assert_eq!(last_line(&log, 19), "all fine");
        assert_eq!(last_line(&log, 1000), "(nothing)");
        assert_eq!(last_line(&dir.path().join("none"), 0), "(nothing)");
    }
}
