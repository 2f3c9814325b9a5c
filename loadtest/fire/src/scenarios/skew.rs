//! Clocks that are wrong: preloaded into a worker, a small library moves what it takes for the time of day.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use crate::dice::Dice;
use crate::field::{Field, Trouble};

const SOURCE: &str = include_str!("skewed_clock.c");

/// Builds the clock that is wrong into this directory. A process that has it in `LD_PRELOAD` is off by the seconds in
/// `SKEW_SECONDS`.
///
/// # Errors
/// When there is no C compiler, or it refuses.
pub fn skewed_clock(dir: &Path) -> io::Result<PathBuf> {
    let stem = dir.join(format!("skewed_clock-{}", std::process::id()));
    let (source, built) = (stem.with_extension("c"), stem.with_extension("so"));
    std::fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&built).arg(&source).stderr(Stdio::null());
    let status = cc.status()?;
    std::fs::remove_file(&source)?;
    if status.success() { Ok(built) } else { Err(io::Error::other("cc refuses to build the skewed clock")) }
}

/// Whoever can link Rust has one; a machine that only runs programs may not.
pub(super) fn has_compiler() -> bool {
    let asked = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Half of the workers live an hour ahead, the others an hour behind, for a while.
pub(super) async fn skew_clocks(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let clock = skewed_clock(field.stack.data_dir())?;
    let clock = clock.to_string_lossy().into_owned();
    let workers = field.workers();
    for (n, worker) in workers.iter().enumerate() {
        let seconds = if n % 2 == 0 { "3600" } else { "-3600" };
        field.restart_once_with(*worker, &[("LD_PRELOAD", &clock), ("SKEW_SECONDS", seconds)]).await?;
    }
    // Longer than the holds and locks of some.
    sleep(Duration::from_millis(dice.between(3_000, 5_000))).await;
    for worker in workers {
        field.stack.stop_child(worker).await.ok();
        field.revive_meanwhile(worker);
    }
    Ok(())
}
