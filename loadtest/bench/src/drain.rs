//! The frame of the arms in which one worker empties a topic that is full before it starts.
//!
//! An arm says only what lies in the topic ([`Drain::backlog`]). The clock starts when the worker takes the partition
//! over (`taken_over_at`, by Postgres' clock on this machine): it has not consumed any record by then. It stops when the
//! broker has acknowledged the last response, seen by asking for the end of `coupon.responses` every few milliseconds.
//! Then rows and responses are counted and the checker reads everything; a violation voids the figure. p50 and p99 tell
//! when half and 99 % of the requests had their response, counted from the start: in a backlog, a request's time is its
//! place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use local_stack::Child;
use schemas::topics::RESPONSES;

use super::arm::{Arm, Sample, precise};
use super::backlog::{Coupon, Ends, Requests, make_coupons};
use super::drains::Backlog;
use super::ground::{Ground, used};
use super::{BenchError, MARK_COMMITS};

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// A worker that needs longer than this for nothing at all is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(900);
/// How long a worker may take to have nothing left to do.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(300);
const LOADED_WITHIN: Duration = Duration::from_secs(300);
const WRITES: &str = "select coalesce(sum(write_no + epoch), 0)::bigint from stampede.partitions";

/// An arm: what one worker has to do.
pub struct Drain {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does and what it guarantees, in a line.
    pub about: &'static str,
    /// What lies in the topic, with everything that it needs.
    pub backlog: Backlog,
    /// It takes no more requests than this.
    pub at_most: u64,
    /// How many partitions the one worker owns. What lies in the topic may lie in one of them.
    pub partitions: u32,
}

/// What must be there afterwards.
pub struct Rows {
    /// Rows of what.
    pub what: &'static str,
    /// How many.
    pub wanted: u64,
    /// The query that counts them.
    pub count: String,
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
        ground: &'a mut Ground,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(ground, requests).boxed_local()
    }
}

impl Drain {
    async fn measure(&self, ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
        let rows = self.backlog.fill(ground, requests).await?;
        ground.calm().await?;
        let epoch = epoch(ground).await?;
        let writes: i64 = ground.scalar(WRITES).await?;
        let before = ground.cpu();
        let watch = Watch::begin(ground, requests)?;
        ground.begin_workers(1).await?;
        let seen = watch.until_told(ground).await?;
        let cpu = used(&before, &ground.cpu());

        let begun = taken_over(ground, epoch).await?;
        watch.verify(ground, &rows).await?;
        ground.stop_workers().await?;
        let writes = ground.scalar::<i64>(WRITES).await? - writes;
        Ok(seen.sample(begun, requests, cpu, vec![commits(writes, requests)]))
    }
}

/// Commits of Postgres for each 1,000 requests: every one of them is a flush of its log.
pub(super) fn commits(writes: i64, requests: u64) -> (&'static str, f64) {
    (MARK_COMMITS, precise(u64::try_from(writes).unwrap_or(0)) * 1_000.0 / precise(requests.max(1)))
}

/// Has a worker do what lies in the topic, unmeasured.
///
/// # Errors
/// When it does not.
pub async fn drain(ground: &mut Ground, requests: u64) -> Result<(), BenchError> {
    let watch = Watch::begin(ground, requests)?;
    ground.begin_workers(1).await?;
    watch.until_told(ground).await?;
    ground.settle(SETTLE_WITHIN).await?;
    ground.stop_workers().await
}

/// Coupons whose codes are stock already. A worker runs.
///
/// # Errors
/// When something does not come to pass.
pub async fn stocked(
    ground: &mut Ground,
    ids: Vec<String>,
    codes_each: u64,
) -> Result<Vec<Coupon>, BenchError> {
    // Its first start makes tables, topics and schemas.
    ground.start_worker().await?;
    let kafka = ground.kafka();
    let coupons = make_coupons(&mut ground.connection, ids, kafka.partitions, codes_each).await?;
    let requests = Requests::open(&kafka, &mut ground.connection).await?;
    let announced = coupons.clone();
    blocking(move || requests.announce(&announced)).await?;
    let begun = SystemTime::now();
    let top = "select coalesce(sum(top), 0)::bigint from stampede.stock";
    while u64::try_from(ground.scalar::<i64>(top).await?) != Ok(codes_each * coupons.len() as u64) {
        if begun.elapsed().unwrap_or_default() > LOADED_WITHIN {
            return Err(BenchError::Stuck { what: "the codes did not become stock", after: LOADED_WITHIN });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    ground.settle(SETTLE_WITHIN).await?;
    Ok(coupons)
}

/// Away from the threads that must not wait.
///
/// # Errors
/// What the work reports; that it was lost.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BenchError> + Send + 'static,
) -> Result<T, BenchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BenchError::Lost)?
}

/// Counts the responses that workers tell.
pub struct Watch {
    ends: Ends,
    told_before: i64,
    requests: u64,
}

/// When how many responses had been told.
pub struct Seen {
    looks: Vec<(SystemTime, f64)>,
}

impl Watch {
    /// From now on.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn begin(ground: &Ground, requests: u64) -> Result<Self, BenchError> {
        let ends = Ends::open(&ground.kafka())?;
        let told_before = ends.of(RESPONSES)?;
        Ok(Self { ends, told_before, requests })
    }

    fn told(&self) -> Result<u64, BenchError> {
        Ok(u64::try_from(self.ends.of(RESPONSES)? - self.told_before).unwrap_or(0))
    }

    /// Waits for the last response.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn until_told(&self, ground: &Ground) -> Result<Seen, BenchError> {
        let mut looks = Vec::new();
        let (mut last, mut moved) = (0, SystemTime::now());
        loop {
            let told = self.told()?;
            let now = SystemTime::now();
            looks.push((now, precise(told)));
            if told >= self.requests {
                return Ok(Seen { looks });
            }
            if told > last {
                (last, moved) = (told, now);
            }
            let idle = now.duration_since(moved).unwrap_or_default();
            if idle > STUCK_AFTER || !ground.stack.is_running(Child::Worker(0)) {
                let log = ground.stack.log_file(Child::Worker(0));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last_line = log.lines().last().unwrap_or_default().to_owned();
                return Err(BenchError::Stopped { told, requests: self.requests, last_line });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Everything is there, once, and no invariant is broken.
    ///
    /// # Errors
    /// When it is not so; then there is no figure.
    pub async fn verify(&self, ground: &mut Ground, rows: &[Rows]) -> Result<(), BenchError> {
        ground.settle(SETTLE_WITHIN).await?;
        for Rows { what, wanted, count } in rows {
            let found = ground.scalar(count).await?;
            counted(what, *wanted, found)?;
        }
        counted("responses", self.requests, self.ends.of(RESPONSES)? - self.told_before)?;
        ground.check().await
    }
}

impl Seen {
    /// The figure, with the clock started at `begun`.
    #[must_use]
    pub fn sample(
        &self,
        begun: SystemTime,
        requests: u64,
        cpu: Vec<(&'static str, Duration)>,
        marks: Vec<(&'static str, f64)>,
    ) -> Sample {
        let when = |share: f64| {
            let wanted = precise(requests) * share;
            let look = self.looks.iter().find(|(_, told)| *told >= wanted).or(self.looks.last());
            look.map(|(at, _)| at.duration_since(begun).unwrap_or_default())
        };
        Sample { requests, took: when(1.0), p50: when(0.5), p99: when(0.99), cpu, marks, ..Sample::default() }
    }
}

async fn epoch(ground: &mut Ground) -> Result<i64, BenchError> {
    ground.scalar("select epoch from stampede.partitions where partition = 0").await
}

/// When the only takeover since then was.
async fn taken_over(ground: &mut Ground, epoch_before: i64) -> Result<SystemTime, BenchError> {
    // A second takeover would have moved the start of the clock.
    let takeovers = epoch(ground).await? - epoch_before;
    counted("takeovers while it was measured", 1, takeovers)?;
    taken_over_at(ground).await
}

/// When partition 0 was taken over last.
///
/// # Errors
/// When Postgres does not answer.
pub async fn taken_over_at(ground: &mut Ground) -> Result<SystemTime, BenchError> {
    let query = "select (extract(epoch from taken_over_at) * 1000000)::bigint
                   from stampede.partitions where partition = 0";
    let micros: i64 = ground.scalar(query).await?;
    Ok(UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

/// As many as there should be.
///
/// # Errors
/// [`BenchError::Count`].
pub fn counted(what: &'static str, wanted: u64, found: i64) -> Result<(), BenchError> {
    if u64::try_from(found) == Ok(wanted) { Ok(()) } else { Err(BenchError::Count { what, wanted, found }) }
}
