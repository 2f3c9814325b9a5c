//! Pid files: the pid of a child and its start time, for the watchdog, for the next launcher and for other programs.
//!
//! The start time makes the entry unambiguous: the kernel reuses pids.

use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::Pid;

use super::procfs;

/// The process that a pid file names.
#[derive(Clone, Copy)]
pub(crate) struct PidFile {
    pub(crate) pid: Pid,
    started: u64,
}

impl PidFile {
    /// Reads `file`; `None` if it is missing or malformed.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok().map(Pid::from_raw)?;
        Some(Self { pid, started: words.next()?.parse().ok()? })
    }

    /// Whether that process still runs, as opposed to another one with its pid.
    pub(crate) fn runs(&self) -> bool {
        procfs::start_time(self.pid) == Some(self.started)
    }

    pub(crate) fn write(file: &Path, pid: Pid) -> io::Result<()> {
        fs::write(file, format!("{pid} {}\n", procfs::start_time(pid).unwrap_or(0)))
    }

    /// Removes `file` if it names this process: a successor may have written it again.
    pub(super) fn remove(file: &Path, pid: Pid) {
        if Self::read(file).is_some_and(|found| found.pid == pid) {
            fs::remove_file(file).ok();
        }
    }
}
