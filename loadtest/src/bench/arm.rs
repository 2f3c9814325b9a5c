//! What can be measured. An arm is a design with its guarantees; a new one is a file of its own and a line in [`all`].

use std::time::Duration;

use futures::future::LocalBoxFuture;

use super::BenchError;
use super::ground::Ground;
use super::hot_drain::HotDrain;
use super::pg_ceiling::PgCeiling;

/// One design under load.
pub trait Arm: Sync {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// What it does and what it guarantees, in a line.
    fn about(&self) -> &'static str;

    /// Takes so many claims. Everything that is counted is counted, or there is an error; called several times on one
    /// ground, at first with few claims to warm up.
    fn run<'a>(
        &'a self,
        ground: &'a mut Ground,
        claims: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>>;
}

/// Every arm.
pub const ALL: &[&dyn Arm] = &[&HotDrain, &PgCeiling];

/// Which arms are held against which.
pub const RATIOS: &[(&str, &str)] = &[("hot-drain", "pg-ceiling")];

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Claims that were taken, and counted afterwards.
    pub claims: u64,
    /// For how long.
    pub took: Duration,
    /// Half of what this arm measures came within this; see the arm for what that is.
    pub p50: Duration,
    /// 99 % came within this.
    pub p99: Duration,
    /// CPU time by program.
    pub cpu: Vec<(&'static str, Duration)>,
}

impl Sample {
    /// Claims per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        precise(self.claims) / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// CPU microseconds that one claim cost, all programs together.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> f64 {
        let all: Duration = self.cpu.iter().map(|(_, time)| *time).sum();
        all.as_secs_f64() * 1e6 / precise(self.claims.max(1))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of claims are far below 2^52")]
const fn precise(count: u64) -> f64 {
    count as f64
}
