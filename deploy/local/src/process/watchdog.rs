//! Cleans up behind a launcher that cannot: killed, or ended without dropping its statics, as test binaries do.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::StackError;
use crate::directory::DataDir;

const SCRIPT: &str = include_str!("watchdog.sh");

/// A shell that waits for the end of a pipe whose other end only this process holds.
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(crate) fn start(dir: &DataDir) -> Result<Self, StackError> {
        let what_then = if dir.is_temporary() { "remove" } else { "keep" };
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "stampede-watchdog"])
            .arg(dir.path())
            .arg(what_then)
            .current_dir("/")
            .stdin(Stdio::piped())
            // Not ours: whoever reads our output would wait for the watchdog as well.
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
