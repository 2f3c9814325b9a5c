//! Wrong clocks: a small library, preloaded into a worker, shifts its wall clock.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use crate::environment::{Environment, FaultError};
use crate::rng::Rng;

const SOURCE: &str = include_str!("skewed_clock.c");

/// Builds the library into `dir`. A process with it in `LD_PRELOAD` has a wall clock that is `SKEW_SECONDS` ahead.
///
/// # Errors
/// When there is no C compiler, or it fails.
pub fn skewed_clock(dir: &Path) -> io::Result<PathBuf> {
    let stem = dir.join(format!("skewed_clock-{}", std::process::id()));
    let (source, built) = (stem.with_extension("c"), stem.with_extension("so"));
    std::fs::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&built).arg(&source).stderr(Stdio::null());
    let status = cc.status()?;
    std::fs::remove_file(&source)?;
    if status.success() { Ok(built) } else { Err(io::Error::other("cc cannot build the skewed clock")) }
}

/// Whether there is a C compiler. A machine that only runs programs may have none.
pub(super) fn has_compiler() -> bool {
    let version = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Half of the workers run an hour ahead, the others an hour behind, for a while.
pub(super) async fn skew_clocks(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let clock = skewed_clock(env.stack.data_dir())?;
    let clock = clock.to_string_lossy().into_owned();
    let workers = env.workers();
    for (n, worker) in workers.iter().enumerate() {
        let seconds = if n % 2 == 0 { "3600" } else { "-3600" };
        env.restart_once_with(*worker, &[("LD_PRELOAD", &clock), ("SKEW_SECONDS", seconds)]).await?;
    }
    // Longer than the shortest holds and locks.
    sleep(Duration::from_millis(rng.between(3_000, 5_000))).await;
    for worker in workers {
        env.stack.stop_child(worker).await.ok();
        env.restart_in_background(worker);
    }
    Ok(())
}
