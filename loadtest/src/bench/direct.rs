//! The frame of the arms that work on a server themselves: prepare, wait until it is calm, start the clock, work, count.
//!
//! CPU is that of the servers and of this process, which here is the caller. p50 and p99 are those of a call.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use super::arm::{Arm, Sample};
use super::drain::counted;
use super::ground::{Ground, used};
use super::{BenchError, cpu};

/// Work that is ready to begin; answers how long each call took.
pub type Work = LocalBoxFuture<'static, Result<Vec<Duration>, BenchError>>;

/// An arm: what is done to a server.
pub struct Direct {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does and what it guarantees, in a line.
    pub about: &'static str,
    /// Makes everything that the work needs, connections included.
    pub prepare: for<'a> fn(&'a mut Ground, u64) -> LocalBoxFuture<'a, Result<Work, BenchError>>,
    /// What must be there afterwards, one for each request.
    pub what: &'static str,
    /// The query that counts them.
    pub count: &'static str,
}

impl Arm for Direct {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn run<'a>(
        &'a self,
        ground: &'a mut Ground,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(ground, requests).boxed_local()
    }
}

impl Direct {
    async fn measure(&self, ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
        let work = (self.prepare)(ground, requests).await?;
        ground.calm().await?;
        let (before, own_before) = (ground.cpu(), cpu::of_this_process());
        let begun = Instant::now();
        let mut calls = work.await?;
        let took = begun.elapsed();
        let mut cpu = used(&before, &ground.cpu());
        cpu.push(("caller", cpu::of_this_process().saturating_sub(own_before)));
        counted(self.what, requests, ground.scalar(self.count).await?)?;
        calls.sort_unstable();
        Ok(Sample { requests, took, p50: rank(&calls, 50), p99: rank(&calls, 99), cpu })
    }
}

fn rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}
