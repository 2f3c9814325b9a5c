//! The frame of the arms that call a server directly: prepare, quiesce the server, start the clock, work, count.
//!
//! CPU is that of the servers and of this process, which is the caller here. p50 and p99 are those of a call.

use std::time::Instant;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::BenchError;
use crate::arm::counted;
use crate::arm::{Arm, Sample};
use crate::host::cpu;
use crate::host::environment::{Environment, used};

/// Fewer requests give no meaningful figure.
const LEAST: u64 = 500;

pub use crate::load::closed_loop::Work;

/// An arm: direct calls of a server.
pub struct BaselineArm {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, what it guarantees, and how it is set up, in one line.
    pub about: &'static str,
    /// Prepares the work, connections included.
    pub prepare: for<'a> fn(&'a mut Environment, u64) -> LocalBoxFuture<'a, Result<Work, BenchError>>,
    /// It takes one in so many of the claims, so that a slow design finishes in seconds.
    pub share: u64,
    /// What must exist afterwards, one for each request.
    pub what: &'static str,
    /// How they are counted.
    pub count: Count,
}

/// How to count what must exist.
pub enum Count {
    /// A query.
    Sql(&'static str),
    /// Anything else.
    By(for<'a> fn(&'a mut Environment) -> LocalBoxFuture<'a, Result<i64, BenchError>>),
}

impl Arm for BaselineArm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn requests(&self, claims: u64) -> u64 {
        (claims / self.share).max(LEAST).min(claims)
    }

    fn run<'a>(
        &'a self,
        env: &'a mut Environment,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(env, requests).boxed_local()
    }
}

impl BaselineArm {
    async fn measure(&self, env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
        let work = (self.prepare)(env, requests).await?;
        env.quiesce().await?;
        let (before, own_before) = (env.cpu(), cpu::of_this_process());
        let started = Instant::now();
        let calls = work.await?;
        let took = started.elapsed();
        let mut cpu = used(&before, &env.cpu());
        cpu.push(("caller", cpu::of_this_process().saturating_sub(own_before)));
        let found = match self.count {
            Count::Sql(query) => env.scalar(query).await?,
            Count::By(count) => count(env).await?,
        };
        counted(self.what, requests, found)?;
        let of_calls = |percent| (!calls.is_empty()).then(|| calls.percentile(percent));
        let (p50, p99) = (of_calls(50), of_calls(99));
        Ok(Sample { requests, took: Some(took), p50, p99, cpu, ..Sample::default() })
    }
}
