//! `scaling-N`: N workers empty N partitions that are full when they begin, with a hot coupon in each.
//!
//! The workers join first, until each owns one partition, and decide as many claims as are measured afterwards: what a
//! process pays once (memory and code touched for the first time, plans of its connections: 0.2 s each) is no part of a
//! claim. Then they are held (SIGSTOP) while the topic is filled, and let go all at once: that is when the clock starts.
//! It stops with the last response, as in a drain. CPU per claim is what tells whether anything is shared that should
//! not be: on a machine with two cores more workers do not make more claims a second, but none may get dearer.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use local_stack::Child;
use schemas::partition_for;

use super::BenchError;
use super::arm::{Arm, Sample};
use super::backlog::{Requests, claim};
use super::drain::{Rows, SETTLE_WITHIN, Watch, blocking, stocked};
use super::ground::{Ground, used};

const SPREAD_WITHIN: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Filling and calming down must end long before the broker gives up on the workers that are held meanwhile.
const MOST: u64 = 400_000;
const OWNERS: &str = "select count(distinct owner) from stampede.partitions";
const EPOCHS: &str = "select sum(epoch)::bigint from stampede.partitions";

/// An arm: so many workers, with a partition for each.
pub struct Scaling {
    /// What it is called on the command line.
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
        ground: &'a mut Ground,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(ground, requests).boxed_local()
    }
}

impl Scaling {
    async fn measure(&self, ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
        let each = requests.div_ceil(self.workers.into());
        let ids = one_in_each(&ground.name(), self.workers);
        let coupons = Arc::new(stocked(ground, ids, each * 2).await?);
        self.spread(ground).await?;
        let epochs: i64 = ground.scalar(EPOCHS).await?;
        let fill = async |ground: &mut Ground, users: Range<u64>| {
            let backlog = Requests::open(&ground.kafka(), &mut ground.connection).await?;
            let coupons = Arc::clone(&coupons);
            blocking(move || {
                let of = |n: u64| &coupons[usize::try_from(n).unwrap_or(0) % coupons.len()].id;
                backlog.fill(users.map(|n| claim(of(n), n)))
            })
            .await
        };
        fill(ground, 0..requests).await?;
        ground.settle(SETTLE_WITHIN).await?;

        let workers: Vec<Child> = (0..self.workers as usize).map(Child::Worker).collect();
        for worker in &workers {
            ground.stack.freeze(*worker)?;
        }
        fill(ground, requests..requests * 2).await?;
        ground.calm().await?;
        let watch = Watch::begin(ground, requests)?;
        let before = ground.cpu();
        let begun = SystemTime::now();
        for worker in &workers {
            ground.stack.resume(*worker)?;
        }
        let seen = watch.until_told(ground).await?;
        let cpu = used(&before, &ground.cpu());

        if ground.scalar::<i64>(EPOCHS).await? != epochs {
            return Err(BenchError::Moved);
        }
        let count = "select count(*) from stampede.claims".to_owned();
        watch.verify(ground, &[Rows { what: "rows of claims", wanted: requests * 2, count }]).await?;
        ground.stop_workers().await?;
        Ok(seen.sample(begun, requests, cpu, Vec::new()))
    }

    /// Waits until every worker owns a partition.
    async fn spread(&self, ground: &mut Ground) -> Result<(), BenchError> {
        ground.begin_workers(self.workers as usize).await?;
        let begun = Instant::now();
        while ground.scalar::<i64>(OWNERS).await? != i64::from(self.workers) {
            if begun.elapsed() > SPREAD_WITHIN {
                return Err(BenchError::Stuck {
                    what: "not every worker got a partition",
                    after: SPREAD_WITHIN,
                });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        for worker in 0..self.workers as usize {
            ground.stack.wait_healthy(Child::Worker(worker)).await?;
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
