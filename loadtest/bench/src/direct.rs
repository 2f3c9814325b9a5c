//! The frame of the arms that work on a server themselves: prepare, wait until it is calm, start the clock, work, count.
//!
//! CPU is that of the servers and of this process, which here is the caller. p50 and p99 are those of a call.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use super::arm::{Arm, Sample, rank};
use super::drain::counted;
use super::ground::{Ground, used};
use super::{BenchError, cpu};

/// Fewer say nothing.
const LEAST: u64 = 500;

/// Work that is ready to begin; answers how long each call took, or nothing where there are no calls.
pub type Work = LocalBoxFuture<'static, Result<Vec<Duration>, BenchError>>;

/// An arm: what is done to a server.
pub struct Direct {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, what it guarantees, and how it is set up, in a line.
    pub about: &'static str,
    /// Makes everything that the work needs, connections included.
    pub prepare: for<'a> fn(&'a mut Ground, u64) -> LocalBoxFuture<'a, Result<Work, BenchError>>,
    /// It takes one of so many of the claims: so that a slow design has done in seconds.
    pub share: u64,
    /// What must be there afterwards, one for each request.
    pub what: &'static str,
    /// How they are counted.
    pub count: Count,
}

/// How to count what must be there.
pub enum Count {
    /// A query.
    Sql(&'static str),
    /// Anything else.
    By(for<'a> fn(&'a mut Ground) -> LocalBoxFuture<'a, Result<i64, BenchError>>),
}

impl Arm for Direct {
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
        let found = match self.count {
            Count::Sql(query) => ground.scalar(query).await?,
            Count::By(count) => count(ground).await?,
        };
        counted(self.what, requests, found)?;
        calls.sort_unstable();
        let of_calls = |percent| (!calls.is_empty()).then(|| rank(&calls, percent));
        let (p50, p99) = (of_calls(50), of_calls(99));
        Ok(Sample { requests, took: Some(took), p50, p99, cpu, ..Sample::default() })
    }
}
