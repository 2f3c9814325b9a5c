//! The frame of the arms in which one worker empties a topic that is filled before it starts.
//!
//! An arm defines only what the topic contains ([`Drain::contents`]). The clock starts when the worker takes the partition
//! over (`taken_over_at`, by Postgres' clock on this machine), before it consumes a record. It stops when the broker has
//! acknowledged the last response, found by polling the end of `coupon.responses` every few milliseconds. Then rows and
//! responses are counted and the checker reads everything; a violation voids the figure. p50 and p99 are the times at
//! which half and 99 % of the requests had their response, from the start: in a backlog, a request's time is its place.

use std::time::SystemTime;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::BenchError;
use crate::arm::{Arm, Sample, counted};
use crate::host::environment::{Environment, used};
use crate::load::contents::Contents;
use crate::load::worker_run::{Watch, commits, taken_over_at};

const WRITES: &str = "select coalesce(sum(write_no + epoch), 0)::bigint from stampede.partitions";

/// An arm: what one worker has to do.
pub struct Drain {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does and guarantees, in one line.
    pub about: &'static str,
    /// What lies in the topic, with everything that it needs.
    pub contents: Contents,
    /// It takes no more requests than this.
    pub at_most: u64,
    /// How many partitions the one worker owns. What lies in the topic may lie in one of them.
    pub partitions: u32,
}

impl Arm for Drain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn requests(&self, claims: u64) -> u64 {
        claims.min(self.at_most)
    }

    fn run<'a>(
        &'a self,
        env: &'a mut Environment,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(env, requests).boxed_local()
    }
}

impl Drain {
    async fn measure(&self, env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
        let rows = self.contents.fill(env, requests).await?;
        env.quiesce().await?;
        let epoch = epoch(env).await?;
        let writes: i64 = env.scalar(WRITES).await?;
        let before = env.cpu();
        let watch = Watch::begin(env, requests)?;
        env.begin_workers(1).await?;
        let seen = watch.until_published(env).await?;
        let cpu = used(&before, &env.cpu());

        let started = taken_over(env, epoch).await?;
        watch.verify(env, &rows).await?;
        env.stop_workers().await?;
        let writes = env.scalar::<i64>(WRITES).await? - writes;
        Ok(seen.sample(started, requests, cpu, vec![commits(writes, requests)]))
    }
}

async fn epoch(env: &mut Environment) -> Result<i64, BenchError> {
    env.scalar("select epoch from stampede.partitions where partition = 0").await
}

/// When the only takeover since then was.
async fn taken_over(env: &mut Environment, epoch_before: i64) -> Result<SystemTime, BenchError> {
    // A second takeover would have moved the start of the clock.
    let takeovers = epoch(env).await? - epoch_before;
    counted("takeovers while it was measured", 1, takeovers)?;
    taken_over_at(env).await
}
