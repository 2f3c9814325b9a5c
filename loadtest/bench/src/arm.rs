//! What can be measured. An arm is a design with its guarantees. A new one fills a frame in a file of its own, and has a
//! line in [`ALL`]: [`Drain`](super::drain::Drain) (a worker empties a full topic), [`Scaling`](super::scaling::Scaling)
//! (several do), [`Takeover`](super::takeover::Takeover) (one follows upon another),
//! [`Front`](super::front::Front) (clients ask over HTTP), or [`Direct`](super::direct::Direct) (calls of a server).

use std::time::Duration;

use futures::future::LocalBoxFuture;

use super::BenchError;
use super::accept::ACCEPT;
use super::claim_to_outcome::{CLAIM_ALONE, CLAIM_TO_OUTCOME};
use super::conditional_update::CONDITIONAL_UPDATE;
use super::drains::{
    COUPONS_10, COUPONS_100, COUPONS_1000, HOT_DRAIN, HOT_DRAIN_8, REDEEM_DRAIN, SOLD_OUT_DRAIN, STOCK_1000,
    STOCK_10000, STOCK_100000, STOCK_1000000, UNIFORM_DRAIN,
};
use super::echo::ECHO;
use super::gate::GATE;
use super::ground::{Ground, Kind};
use super::http_ceiling::HTTP_CEILING;
use super::overload::OVERLOAD;
use super::pg_ceiling::PG_CEILING;
use super::redis_lua::REDIS_LUA;
use super::row_lock::ROW_LOCK;
use super::scaling::{SCALING_1, SCALING_2, SCALING_4};
use super::skip_locked::SKIP_LOCKED;
use super::takeover::{HAND_OVER, TAKEOVER, TAKEOVER_MILLION};

/// One design under load.
pub trait Arm: Sync {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// What it does, what it guarantees, and how it is set up, in a line.
    fn about(&self) -> &'static str;

    /// Which ground it needs.
    fn kind(&self) -> Kind {
        Kind::Calm
    }

    /// How many partitions its world has.
    fn partitions(&self) -> u32 {
        1
    }

    /// How many requests it takes where so many claims were asked for: a design that needs a second for what another
    /// does in ten milliseconds takes fewer.
    fn requests(&self, claims: u64) -> u64 {
        claims
    }

    /// Takes so many requests, in a world of its own: new topics, empty tables, empty Redis, no program of ours running.
    /// Everything that is counted is counted, or there is an error. What it started may be left running.
    fn run<'a>(
        &'a self,
        ground: &'a mut Ground,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>>;
}

/// Every arm, in the order in which they are shown.
pub const ALL: &[&dyn Arm] = &[
    &HOT_DRAIN,
    &SOLD_OUT_DRAIN,
    &UNIFORM_DRAIN,
    &HOT_DRAIN_8,
    &REDEEM_DRAIN,
    &ACCEPT,
    &GATE,
    &CLAIM_TO_OUTCOME,
    &CLAIM_ALONE,
    &OVERLOAD,
    &TAKEOVER,
    &TAKEOVER_MILLION,
    &HAND_OVER,
    &SCALING_1,
    &SCALING_2,
    &SCALING_4,
    &COUPONS_10,
    &COUPONS_100,
    &COUPONS_1000,
    &STOCK_1000,
    &STOCK_10000,
    &STOCK_100000,
    &STOCK_1000000,
    &ROW_LOCK,
    &CONDITIONAL_UPDATE,
    &SKIP_LOCKED,
    &REDIS_LUA,
    &PG_CEILING,
    &HTTP_CEILING,
    &ECHO,
];

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests that were taken, and counted afterwards.
    pub requests: u64,
    /// For how long; `None` where a rate means nothing.
    pub took: Option<Duration>,
    /// Half of what this arm measures came within this; see the arm for what that is.
    pub p50: Option<Duration>,
    /// 99 % came within this.
    pub p99: Option<Duration>,
    /// CPU time by program; empty where it means nothing.
    pub cpu: Vec<(&'static str, Duration)>,
    /// What else was seen, by name with its unit.
    pub marks: Vec<(&'static str, f64)>,
    /// Latency against offered load, by growing load; empty where that was not measured.
    pub curve: Vec<CurvePoint>,
}

/// One point of a latency curve.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CurvePoint {
    /// Requests per second that were offered.
    pub offered: f64,
    /// Requests per second that were answered.
    pub per_second: f64,
    /// From the moment when a request was due to its answer.
    pub p50_ms: f64,
    /// The same for 99 %.
    pub p99_ms: f64,
}

impl Sample {
    /// Requests per second.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        Some(precise(self.requests) / self.took?.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// CPU microseconds that one request cost, all programs together.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        let all: Duration = self.cpu.iter().map(|(_, time)| *time).sum();
        (!self.cpu.is_empty()).then(|| all.as_secs_f64() * 1e6 / precise(self.requests.max(1)))
    }

    /// What was seen under this name.
    #[must_use]
    pub fn mark(&self, name: &str) -> Option<f64> {
        self.marks.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// The value of which so many percent are not above; zero where there is none.
#[must_use]
pub fn rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
pub(super) const fn precise(count: u64) -> f64 {
    count as f64
}

/// Milliseconds, for people.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
