//! The directory in which a stack keeps all its data.
//!
//! Guarantees: one launcher at a time uses it (a lock file); a directory with other files is never touched (a marker
//! file); processes that an earlier launcher left running are killed before new ones start.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};

use crate::child::Child;
use crate::error::StackError;
use crate::process::{PidFile, end_postgres_in};

const MARKER: &str = "stampede-data";
const LOCK: &str = "lock";
/// Default parent of temporary directories: a disk by convention, unlike /tmp, so that fsync takes effect.
const TEMPORARY: &str = "/var/tmp";

pub(crate) struct DataDir {
    path: PathBuf,
    temporary: bool,
    /// Held as long as the stack exists; the kernel releases it when the launcher dies.
    _lock: File,
}

impl DataDir {
    /// Opens or creates a directory that is kept.
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

    /// Creates a directory that is removed with the stack.
    pub(crate) fn temporary() -> Result<Self, StackError> {
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from(TEMPORARY), PathBuf::from);
        let created = tempfile::Builder::new()
            .prefix("stampede-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .map_err(StackError::io("cannot create a directory in", &parent))?;
        let path = fs::canonicalize(created.keep()).map_err(StackError::io("cannot resolve", &parent))?;
        Self::occupy(path, false, true)
    }

    fn occupy(path: PathBuf, fresh: bool, temporary: bool) -> Result<Self, StackError> {
        let here = |error| StackError::io("cannot prepare", &path)(error);
        // Postgres' own user must be able to traverse it when root starts the stack.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(here)?;
        fs::write(
            path.join(MARKER),
            "Data of a local Stampede stack; created and deleted by its launcher.\n",
        )
        .map_err(here)?;
        let lock = File::create(path.join(LOCK)).map_err(here)?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(StackError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(here(error)),
        }
        kill_leftovers(&path);
        if fresh {
            delete_contents(&path).map_err(|error| StackError::io("cannot empty", &path)(error))?;
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

    /// Removes the directory if it is temporary.
    pub(crate) fn remove_if_temporary(&self) {
        if self.temporary {
            // The watchdog retries what cannot be removed now.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn delete_contents(dir: &Path) -> io::Result<()> {
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

/// Kills the children of a launcher that died. We hold the lock, so no other launcher owns them.
fn kill_leftovers(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for file in entries(&dir.join("run")).unwrap_or_default() {
        let Some(leftover) = PidFile::read(&file) else { continue };
        if leftover.runs() {
            signal::kill(leftover.pid, Signal::SIGKILL).ok();
        }
        while leftover.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(&file).ok();
    }
    end_postgres_in(&dir.join("postgres"), Duration::from_secs(2));
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_directory_with_other_files_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let refused = DataDir::open(dir.path(), true).err().map(|error| error.to_string()).unwrap();
        assert!(refused.contains("not Stampede's"), "{refused}");
        assert!(dir.path().join("thesis.tex").exists());
    }

    #[test]
    fn a_directory_has_one_stack_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), false).unwrap();
        assert!(matches!(DataDir::open(dir.path(), true), Err(StackError::InUse(_))));
        drop(first);
        DataDir::open(dir.path(), false).unwrap();
    }

    #[test]
    fn data_is_kept_unless_fresh_is_set() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        fs::create_dir(dir.path().join("postgres")).unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        assert!(dir.path().join("postgres").exists());
        drop(DataDir::open(dir.path(), true).unwrap());
        assert!(!dir.path().join("postgres").exists());
    }

    #[test]
    fn leftover_processes_are_killed_but_not_another_process_with_the_same_pid() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        let sleeper = || Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        let (mut leftover, mut unrelated) = (sleeper(), sleeper());
        let pid = Pid::from_raw(i32::try_from(leftover.id()).unwrap());
        PidFile::write(&dir.path().join("run/a.pid"), pid).unwrap();
        fs::write(dir.path().join("run/b.pid"), format!("{} 1\n", unrelated.id())).unwrap();
        drop(DataDir::open(dir.path(), false).unwrap());
        assert!(!leftover.wait().unwrap().success());
        assert!(unrelated.try_wait().unwrap().is_none());
        unrelated.kill().unwrap();
        unrelated.wait().unwrap();
    }
}
