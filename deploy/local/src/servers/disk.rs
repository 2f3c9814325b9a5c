//! A small disk for the tables of Postgres that a test can fill: a file system in memory, mounted in the data directory.
//!
//! Only the tables (`base`) are on it, as in a tablespace of their own. The write-ahead log has room elsewhere, as on a
//! machine where it has a volume of its own, so the server stays up and reports a full disk at each write. Only root can
//! mount a file system.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::StackError;
use crate::process::finished;

/// Mount point below the data directory; `watchdog.sh` uses the same name.
const MOUNT: &str = "disk";
/// File that fills the disk.
const BALLAST: &str = "ballast";

/// Moves the tables of a new cluster onto a small disk below `data_dir`. Does nothing if they were moved before. Blocks.
pub(crate) fn move_tables(tables: &Path, data_dir: &Path, megabytes: u32) -> Result<(), StackError> {
    if tables.is_symlink() {
        return Ok(());
    }
    let disk = data_dir.join(MOUNT);
    fs::create_dir_all(&disk).map_err(StackError::io("cannot create", &disk))?;
    mount(&disk, megabytes)?;
    // With owners and modes: the files belong to the server.
    run("copying the tables", Command::new("cp").arg("-a").args([tables, &disk]))?;
    let moved = fs::remove_dir_all(tables).and_then(|()| symlink(disk.join("base"), tables));
    moved.map_err(StackError::io("cannot replace", tables))
}

/// Fills the disk below `data_dir` to the last byte.
pub(crate) fn fill(data_dir: &Path) -> Result<(), StackError> {
    let file = data_dir.join(MOUNT).join(BALLAST);
    let failed = StackError::io("cannot fill", &file);
    let mut ballast = File::options().create(true).append(true).open(&file).map_err(failed)?;
    // Halves the size at each failure, so that not even a page is left.
    let mut size = 1 << 20;
    while size > 0 {
        match ballast.write(&vec![0; size]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => return Err(StackError::io("cannot fill", &file)(error)),
        }
    }
    Ok(())
}

/// Frees what [`fill`] has taken.
pub(crate) fn free(data_dir: &Path) -> Result<(), StackError> {
    let file = data_dir.join(MOUNT).join(BALLAST);
    fs::remove_file(&file).map_err(StackError::io("cannot remove", &file))
}

/// Unmounts the disk below `data_dir`, even if processes still use it.
pub(crate) fn remove(data_dir: &Path) {
    unmount(&data_dir.join(MOUNT));
}

/// Whether this process may mount a file system; tries it.
#[must_use]
pub fn can_mount() -> bool {
    let Ok(dir) = tempfile::tempdir() else { return false };
    let can = mount(dir.path(), 1).is_ok();
    if can {
        unmount(dir.path());
    }
    can
}

fn mount(dir: &Path, megabytes: u32) -> Result<(), StackError> {
    let options = format!("size={megabytes}m,mode=0755");
    let mut command = Command::new("mount");
    run("mounting a small disk", command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir))
}

fn unmount(dir: &Path) {
    // Lazily: a process that is about to end may still use it. The watchdog retries a failure.
    run("unmounting", Command::new("umount").arg("-l").arg(dir)).ok();
}

fn run(what: &'static str, command: &mut Command) -> Result<(), StackError> {
    finished(what, command.stdin(Stdio::null()).output())
}
