//! What can be measured. An arm is a design with its guarantees. A new one fills a frame, [`Drain`](super::drain::Drain)
//! (one worker empties a full topic) or [`Direct`](super::direct::Direct) (calls of a server), in a file of its own, and
//! has a line in [`ALL`].

use std::time::Duration;

use futures::future::LocalBoxFuture;

use super::BenchError;
use super::ground::Ground;
use super::hot_drain::HOT_DRAIN;
use super::pg_ceiling::PG_CEILING;
use super::redeem_drain::REDEEM_DRAIN;

/// One design under load.
pub trait Arm: Sync {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// What it does and what it guarantees, in a line.
    fn about(&self) -> &'static str;

    /// Takes so many requests. Everything that is counted is counted, or there is an error; called several times on one
    /// ground, at first with few requests to warm up.
    fn run<'a>(
        &'a self,
        ground: &'a mut Ground,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>>;
}

/// Every arm.
pub const ALL: &[&dyn Arm] = &[&HOT_DRAIN, &REDEEM_DRAIN, &PG_CEILING];

/// Which arms are held against which.
pub const RATIOS: &[(&str, &str)] =
    &[("hot-drain", "pg-ceiling"), ("redeem-drain", "pg-ceiling"), ("redeem-drain", "hot-drain")];

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Requests that were taken, and counted afterwards.
    pub requests: u64,
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
    /// Requests per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        precise(self.requests) / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// CPU microseconds that one request cost, all programs together.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> f64 {
        let all: Duration = self.cpu.iter().map(|(_, time)| *time).sum();
        all.as_secs_f64() * 1e6 / precise(self.requests.max(1))
    }
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
pub(super) const fn precise(count: u64) -> f64 {
    count as f64
}
