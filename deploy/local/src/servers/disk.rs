//! A small disk for Postgres' tables, so that it can be full: a file system in memory, mounted in the data directory.
//!
//! The tables alone are on it (`base`, as in a tablespace of their own): the log of Postgres has room, as on a machine
//! where it has a volume of its own, so the server lives on and says that its disk is full, each time it is asked to
//! write. Only root can mount.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::stack::Site;
use crate::{Stack, StackError, postgres};

/// Below the data directory; the watchdog knows it too.
const MOUNT: &str = "disk";
/// What fills it.
const BALLAST: &str = "ballast";

impl Stack {
    /// Fills the small disk of Postgres' tables to its last byte.
    ///
    /// # Errors
    /// When the stack has none, or it cannot be written for another reason.
    pub fn fill_postgres_disk(&self) -> Result<(), StackError> {
        let file = self.ballast()?;
        let failed = StackError::io("cannot fill", &file);
        let mut ballast = File::options().create(true).append(true).open(&file).map_err(failed)?;
        // By halves, so that not even a page is left.
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

    /// Gives back what [`Stack::fill_postgres_disk`] took.
    ///
    /// # Errors
    /// When the stack has no small disk, or it is not filled.
    pub fn free_postgres_disk(&self) -> Result<(), StackError> {
        let file = self.ballast()?;
        fs::remove_file(&file).map_err(StackError::io("cannot remove", &file))
    }

    fn ballast(&self) -> Result<PathBuf, StackError> {
        let site = &self.inner.site;
        if site.config.postgres_disk_mb.is_none() {
            return Err(StackError::Missing {
                what: "a small disk for Postgres".to_owned(),
                remedy: "ask for one with StackConfig.postgres_disk_mb",
            });
        }
        Ok(site.dir.join(MOUNT).join(BALLAST))
    }
}

/// Moves the tables of a new cluster onto a small disk, if the configuration wants one. Blocks.
pub(crate) fn prepare(site: &Site) -> Result<(), StackError> {
    let Some(megabytes) = site.config.postgres_disk_mb else { return Ok(()) };
    let tables = postgres::home(site).join("base");
    if tables.is_symlink() {
        return Ok(());
    }
    let disk = site.dir.join(MOUNT);
    fs::create_dir_all(&disk).map_err(StackError::io("cannot create", &disk))?;
    mount(&disk, megabytes)?;
    // With owners and modes: they are the server's.
    run("copying the tables", Command::new("cp").arg("-a").args([&tables, &disk]))?;
    let moved = fs::remove_dir_all(&tables).and_then(|()| symlink(disk.join("base"), &tables));
    moved.map_err(StackError::io("cannot replace", &tables))
}

/// Unmounts what [`prepare`] mounted, whoever is still in it.
pub(crate) fn clear_away(site: &Site) {
    if site.config.postgres_disk_mb.is_some() {
        unmount(&site.dir.join(MOUNT));
    }
}

/// Whether this process may mount a file system: it tries.
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
    // Lazily: a process that is about to end may still be in it. What fails, the watchdog tries again.
    run("unmounting", Command::new("umount").arg("-l").arg(dir)).ok();
}

fn run(what: &'static str, command: &mut Command) -> Result<(), StackError> {
    postgres::finished(what, command.stdin(Stdio::null()).output())
}
