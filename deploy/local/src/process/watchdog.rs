//! Cleans up after a launcher that cannot: one that was killed, or that ended without dropping its statics, as test
//! binaries do.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::error::StackError;

const SCRIPT: &str = include_str!("watchdog.sh");

/// A shell that waits for the end of a pipe whose other end only this process holds.
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts a watchdog of a data directory, which is removed at the end if it is temporary.
    pub(crate) fn start(dir: &Path, is_temporary: bool) -> Result<Self, StackError> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "stampede-watchdog"])
            .arg(dir)
            .arg(if is_temporary { "remove" } else { "keep" })
            .current_dir("/")
            .stdin(Stdio::piped())
            // Not inherited: a program that reads our output until its end would wait for the watchdog as well.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| StackError::Io { what: "cannot start a shell".to_owned(), source })?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.pipe.take());
        self.shell.wait().ok();
    }
}
