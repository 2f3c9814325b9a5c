//! The most relevant line of a child's log, for one-line errors.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of the end of a log is read.
const TAIL_BYTES: u64 = 64 * 1024;
/// Longest line that is shown.
const MAX_CHARS: usize = 240;

/// The most relevant line written to `log` since it was `from` bytes long.
pub(crate) fn last_line(log: &Path, from: u64) -> String {
    let text = tail(log, from).unwrap_or_default();
    relevant_line(&text)
}

/// The last line that reports an error; without one, the last line.
pub(crate) fn relevant_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let reports_error = |line: &&&str| {
        ["FATAL", "ERROR", "error:", "Exception", "panicked"].iter().any(|word| line.contains(word))
    };
    let line = lines.iter().rev().find(reports_error).or(lines.last()).copied().unwrap_or("(no output)");
    line.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
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
    fn a_line_that_reports_an_error_is_preferred_to_a_later_one() {
        assert_eq!(relevant_line("starting\nFATAL: no disk\nbye\n\n"), "FATAL: no disk");
        assert_eq!(relevant_line("starting\nbye\n"), "bye");
        assert_eq!(relevant_line(""), "(no output)");
    }

    #[test]
    fn lines_of_an_earlier_run_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        std::fs::write(&log, "ERROR of yesterday\nall fine\n").unwrap();
        assert_eq!(last_line(&log, 19), "all fine");
        assert_eq!(last_line(&log, 1000), "(no output)");
        assert_eq!(last_line(&dir.path().join("none"), 0), "(no output)");
    }
}
