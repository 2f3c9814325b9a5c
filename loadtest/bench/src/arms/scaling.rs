//! `scaling-N`: N workers empty N partitions that are filled before they start, with a hot coupon in each.
//!
//! The workers join first, until each owns one partition, and decide as many claims as are measured afterwards: what a
//! process pays once (memory and code touched for the first time, plans of its connections: 0.2 s each) is no part of a
//! claim. Then they are stopped (SIGSTOP) while the topic is filled, and continued all at once: that is when the clock
//! starts. It stops with the last response, as in a drain. CPU per claim shows whether workers share what they should not:
//! on two cores more workers do not decide more claims per second, but a claim must not cost more.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use local_stack::Child;
use schemas::partition_for;

use crate::BenchError;
use crate::arm::{Arm, Sample};
use crate::host::environment::{Environment, used};
use crate::load::backlog::{Requests, claim};
use crate::load::worker_run::{Rows, SETTLE_WITHIN, Watch, blocking, stocked};

const SPREAD_WITHIN: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Filling and calming down must end long before the broker gives up on the workers that are held meanwhile.
const MOST: u64 = 400_000;
const OWNERS: &str = "select count(distinct owner) from stampede.partitions";
const EPOCHS: &str = "select sum(epoch)::bigint from stampede.partitions";

/// An arm: so many workers, with a partition for each.
pub struct Scaling {
    /// Its name on the command line.
    pub name: &'static str,
    /// Workers, and partitions.
    pub workers: u32,
}

/// One.
pub const SCALING_1: Scaling = Scaling { name: "scaling-1", workers: 1 };
/// Two.
pub const SCALING_2: Scaling = Scaling { name: "scaling-2", workers: 2 };
/// Four.
pub const SCALING_4: Scaling = Scaling { name: "scaling-4", workers: 4 };

impl Arm for Scaling {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        "Stampede: so many workers empty so many full partitions, a hot coupon in each; guarantees as hot-drain"
    }

    fn partitions(&self) -> u32 {
        self.workers
    }

    fn requests(&self, claims: u64) -> u64 {
        claims.min(MOST)
    }

    fn run<'a>(
        &'a self,
        env: &'a mut Environment,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(env, requests).boxed_local()
    }
}

impl Scaling {
    async fn measure(&self, env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
        let each = requests.div_ceil(self.workers.into());
        let ids = one_in_each(&env.name(), self.workers);
        let coupons = Arc::new(stocked(env, ids, each * 2).await?);
        self.spread(env).await?;
        let epochs: i64 = env.scalar(EPOCHS).await?;
        let fill = async |env: &mut Environment, users: Range<u64>| {
            let backlog = Requests::open(&env.kafka(), &mut env.connection).await?;
            let coupons = Arc::clone(&coupons);
            blocking(move || {
                let of = |n: u64| &coupons[usize::try_from(n).unwrap_or(0) % coupons.len()].id;
                backlog.fill(users.map(|n| claim(of(n), n)))
            })
            .await
        };
        fill(env, 0..requests).await?;
        env.settle(SETTLE_WITHIN).await?;

        let workers: Vec<Child> = (0..self.workers as usize).map(Child::Worker).collect();
        for worker in &workers {
            env.stack.freeze(*worker)?;
        }
        fill(env, requests..requests * 2).await?;
        env.quiesce().await?;
        let watch = Watch::begin(env, requests)?;
        let before = env.cpu();
        let started = SystemTime::now();
        for worker in &workers {
            env.stack.resume(*worker)?;
        }
        let seen = watch.until_published(env).await?;
        let cpu = used(&before, &env.cpu());

        if env.scalar::<i64>(EPOCHS).await? != epochs {
            return Err(BenchError::Moved);
        }
        let count = "select count(*) from stampede.claims".to_owned();
        watch.verify(env, &[Rows { what: "rows of claims", wanted: requests * 2, count }]).await?;
        env.stop_workers().await?;
        Ok(seen.sample(started, requests, cpu, Vec::new()))
    }

    /// Waits until every worker owns a partition.
    async fn spread(&self, env: &mut Environment) -> Result<(), BenchError> {
        env.begin_workers(self.workers as usize).await?;
        let started = Instant::now();
        while env.scalar::<i64>(OWNERS).await? != i64::from(self.workers) {
            if started.elapsed() > SPREAD_WITHIN {
                return Err(BenchError::Stuck {
                    what: "not every worker got a partition",
                    after: SPREAD_WITHIN,
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        for worker in 0..self.workers as usize {
            env.stack.wait_healthy(Child::Worker(worker)).await?;
        }
        Ok(())
    }
}

/// Ids of coupons of which each belongs to another partition.
fn one_in_each(name: &str, partitions: u32) -> Vec<String> {
    let of = |id: &String| partition_for(id.as_bytes(), i32::try_from(partitions).unwrap_or(1));
    let mut ids: Vec<String> = Vec::new();
    for id in (0..).map(|n| format!("{name}-{n}")) {
        if ids.len() >= partitions as usize {
            break;
        }
        if ids.iter().all(|known| of(known) != of(&id)) {
            ids.push(id);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_gets_a_coupon() {
        for partitions in [1, 2, 4, 16] {
            let ids = one_in_each("bench", partitions);
            let mut found: Vec<i32> =
                ids.iter().map(|id| partition_for(id.as_bytes(), partitions.cast_signed())).collect();
            found.sort_unstable();
            assert_eq!(found, (0..partitions.cast_signed()).collect::<Vec<_>>());
        }
    }
}
