//! What an arm is: a design with its guarantees. A new one fills a frame in a file of its own in [`arms`](crate::arms) and has
//! a line in [`arms::ALL`](crate::arms::ALL). The frames: [`Drain`](crate::frames::drain::Drain) (a worker empties a full
//! topic), [`Scaling`](crate::arms::scaling::Scaling) (several do), [`Takeover`](crate::arms::takeover::Takeover) (the owner
//! changes), [`HttpArm`](crate::frames::http::HttpArm) (clients send HTTP requests), and
//! [`BaselineArm`](crate::frames::baseline::BaselineArm) (direct calls of a server).

use std::time::Duration;

use futures::future::LocalBoxFuture;

use crate::BenchError;
use crate::host::environment::{Environment, Kind};

/// One design under load.
pub trait Arm: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it does, what it guarantees, and how it is set up, in one line.
    fn about(&self) -> &'static str;

    /// The kind of environment that it needs.
    fn kind(&self) -> Kind {
        Kind::LongSession
    }

    /// The number of partitions.
    fn partitions(&self) -> u32 {
        1
    }

    /// The number of requests for a run of `claims`: slow designs take a share, so that they finish in seconds.
    fn requests(&self, claims: u64) -> u64 {
        claims
    }

    /// Measures this many requests with new topics, empty tables, an empty Redis and no program running. Every request is
    /// accounted for, or there is an error. Programs that it started may still run afterwards.
    fn run<'a>(
        &'a self,
        env: &'a mut Environment,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>>;
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests, counted afterwards.
    pub requests: u64,
    /// The time that they took; `None` where a rate means nothing.
    pub took: Option<Duration>,
    /// The median of what the arm measures.
    pub p50: Option<Duration>,
    /// Its 99th percentile.
    pub p99: Option<Duration>,
    /// CPU time by program; empty where it means nothing.
    pub cpu: Vec<(&'static str, Duration)>,
    /// Other measurements, by name with unit.
    pub metrics: Vec<(&'static str, f64)>,
    /// Latency against offered load, by growing load; empty where that was not measured.
    pub curve: Vec<CurvePoint>,
}

/// One point of a latency curve.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CurvePoint {
    /// Offered requests per second.
    pub offered: f64,
    /// Responses per second.
    pub per_second: f64,
    /// From the time when a request was due to its response, median.
    pub p50_ms: f64,
    /// The same, 99th percentile.
    pub p99_ms: f64,
}

impl Sample {
    /// Requests per second.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        Some(precise(self.requests) / self.took?.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// CPU microseconds per request, all programs together.
    #[must_use]
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        let all: Duration = self.cpu.iter().map(|(_, time)| *time).sum();
        (!self.cpu.is_empty()).then(|| all.as_secs_f64() * 1e6 / precise(self.requests.max(1)))
    }

    /// The measurement of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A count as a floating-point number.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
pub(super) const fn precise(count: u64) -> f64 {
    count as f64
}

/// Milliseconds, with fractions.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Succeeds if `found` is `wanted`.
///
/// # Errors
/// [`BenchError::Count`].
pub fn counted(what: &'static str, wanted: u64, found: i64) -> Result<(), BenchError> {
    if u64::try_from(found) == Ok(wanted) { Ok(()) } else { Err(BenchError::Count { what, wanted, found }) }
}
