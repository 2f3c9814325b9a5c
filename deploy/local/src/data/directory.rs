//! The one directory in which a stack keeps everything.
//!
//! One launcher at a time (a lock file), nothing of others is ever touched (a marker file), and processes that an
//! earlier launcher left behind are ended before new ones start.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::{Child, StackError, procfs};

const MARKER: &str = "stampede-data";
const LOCK: &str = "lock";
/// Where temporary stacks go unless told otherwise: a disk by convention, unlike /tmp, so that fsync means something.
const TEMPORARY: &str = "/var/tmp";

pub(crate) struct DataDir {
    path: PathBuf,
    temporary: bool,
    /// Held as long as the stack lives; the kernel lets go of it when the launcher dies.
    _lock: File,
}

impl DataDir {
    /// Opens, or creates, a directory that is kept.
    pub(crate) fn open(path: &Path, fresh: bool) -> Result<Self, StackError> {
        fs::create_dir_all(path).map_err(StackError::io("cannot create", path))?;
        let path = fs::canonicalize(path).map_err(StackError::io("cannot resolve", path))?;
        let here = StackError::io("cannot prepare", &path);
        let names = entries(&path).map_err(here)?;
        if !names.is_empty() && !names.iter().any(|entry| entry.ends_with(MARKER)) {
            return Err(StackError::NotOurs(path));
        }
        Self::occupy(path, fresh, false)
    }

    /// A new directory that goes when the stack goes.
    pub(crate) fn temporary() -> Result<Self, StackError> {
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from(TEMPORARY), PathBuf::from);
        let made = tempfile::Builder::new()
            .prefix("stampede-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .map_err(StackError::io("cannot create a directory in", &parent))?;
        let path = fs::canonicalize(made.keep()).map_err(StackError::io("cannot resolve", &parent))?;
        Self::occupy(path, false, true)
    }

    fn occupy(path: PathBuf, fresh: bool, temporary: bool) -> Result<Self, StackError> {
        let here = |error| StackError::io("cannot prepare", &path)(error);
        // Postgres' own user has to pass through when root starts it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(here)?;
        fs::write(path.join(MARKER), "Data of a local Stampede stack; made and dropped by its launcher.\n")
            .map_err(here)?;
        let lock = File::create(path.join(LOCK)).map_err(here)?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(StackError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(here(error)),
        }
        end_leftovers(&path);
        if fresh {
            drop_contents(&path).map_err(|error| StackError::io("cannot empty", &path)(error))?;
        }
        for name in ["logs", "run"] {
            fs::create_dir_all(path.join(name)).map_err(here)?;
        }
        Ok(Self { path, temporary, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn log_file(&self, child: Child) -> PathBuf {
        self.path.join("logs").join(format!("{child}.log"))
    }

    pub(crate) fn pid_file(&self, child: Child) -> PathBuf {
        self.path.join("run").join(format!("{child}.pid"))
    }

    /// Removes a temporary directory; leaves any other alone.
    pub(crate) fn remove_if_temporary(&self) {
        if self.temporary {
            // What cannot be removed now, the watchdog tries again.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn drop_contents(dir: &Path) -> io::Result<()> {
    for entry in entries(dir)? {
        if entry.ends_with(MARKER) || entry.ends_with(LOCK) {
            continue;
        }
        if entry.is_dir() && !entry.is_symlink() {
            fs::remove_dir_all(entry)?
        } else {
            fs::remove_file(entry)?
        }
    }
    Ok(())
}

/// Ends the children of a launcher that died without ending them. We hold the lock, so they are nobody's.
fn end_leftovers(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for file in entries(&dir.join("run")).unwrap_or_default() {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok()).map(Pid::from_raw);
        let started: Option<u64> = words.next().and_then(|word| word.parse().ok());
        let (Some(pid), Some(started)) = (pid, started) else { continue };
        let lives = || procfs::start_time(pid) == Some(started);
        if lives() {
            signal::kill(pid, Signal::SIGKILL).ok();
        }
        while lives() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(&file).ok();
    }
    procfs::end_postgres_in(&dir.join("postgres"), Duration::from_secs(2));
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_directory_with_files_of_others_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let refused = DataDir::open(dir.path(), true).err().map(|error| error.to_string()).unwrap();
        assert!(refused.contains("not Stampede's"), "{refused}");
        assert!(dir.path().join("thesis.tex").exists());
    }

    #[test]
    fn two_stacks_never_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), false).unwrap();
        assert!(matches!(DataDir::open(dir.path(), true), Err(StackError::InUse(_))));
        drop(first);
        DataDir::open(dir.path(), false).unwrap();
    }

    #[test]
    fn fresh_drops_the_data_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        fs::create_dir(dir.path().join("postgres")).unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        assert!(dir.path().join("postgres").exists());
        drop(DataDir::open(dir.path(), true).unwrap());
        assert!(!dir.path().join("postgres").exists());
    }

    #[test]
    fn what_an_earlier_launcher_left_running_is_ended_but_not_a_stranger_with_its_pid() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        let sleeper = || Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        let (mut leftover, mut stranger) = (sleeper(), sleeper());
        let pid = |child: &std::process::Child| Pid::from_raw(i32::try_from(child.id()).unwrap());
        let started = procfs::start_time(pid(&leftover)).unwrap();
        fs::write(dir.path().join("run/a.pid"), format!("{} {started}\n", leftover.id())).unwrap();
        fs::write(dir.path().join("run/b.pid"), format!("{} 1\n", stranger.id())).unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        assert!(!leftover.wait().unwrap().success());
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
