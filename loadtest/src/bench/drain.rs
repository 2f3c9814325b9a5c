//! The frame of the arms in which one worker empties a topic that is full before it starts.
//!
//! An arm says only what lies in the topic ([`Drain::fill`]) and which rows there must be afterwards. The clock starts
//! when the worker takes the partition over (`taken_over_at`, by Postgres' clock on this machine): it has not consumed
//! any record by then. It stops when the broker has acknowledged the last response, seen by asking for the end of
//! `coupon.responses` every few milliseconds. Then rows and responses are counted and the checker reads everything; a
//! violation voids the figure. p50 and p99 tell when half and 99 % of the requests had their response, counted from
//! the start: in a backlog, a request's time is its place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use local_stack::Child;
use schemas::topics::RESPONSES;

use super::BenchError;
use super::arm::{Arm, Sample, precise};
use super::backlog::{Ends, Requests, make_coupon};
use super::ground::{Ground, used};
use crate::checker::{self, CheckConfig};

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// A worker that needs longer than this for nothing at all is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(900);
const SETTLE_WITHIN: Duration = Duration::from_secs(300);
const LOADED_WITHIN: Duration = Duration::from_secs(300);

/// An arm: what one worker has to do.
pub struct Drain {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does and what it guarantees, in a line.
    pub about: &'static str,
    /// Puts so many requests into the topic, with everything that they need; no worker runs when it is done.
    pub fill: for<'a> fn(&'a mut Ground, u64) -> Filling<'a>,
}

/// A topic on its way to be full.
pub type Filling<'a> = LocalBoxFuture<'a, Result<Vec<Rows>, BenchError>>;

/// What must be there afterwards: a row for each request.
pub struct Rows {
    /// Rows of what.
    pub what: &'static str,
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
        let rows = (self.fill)(ground, requests).await?;
        ground.calm().await?;
        let epoch: i64 = ground.scalar("select epoch from stampede.partitions where partition = 0").await?;
        let before = ground.cpu();
        let mut run = Run::begin(ground, requests).await?;
        let (ended, seen) = run.watch().await?;
        let cpu = used(&before, &run.ground.cpu());

        let begun = run.taken_over(epoch).await?;
        let since = |moment: SystemTime| moment.duration_since(begun).unwrap_or_default();
        let when = |share: f64| seen.iter().find(|(_, told)| *told >= share).map_or(ended, |(at, _)| *at);
        let total = precise(requests);
        let (p50, p99) = (since(when(total * 0.5)), since(when(total * 0.99)));
        run.verify(&rows).await?;
        run.ground.stop_worker().await?;
        Ok(Sample { requests, took: since(ended), p50, p99, cpu })
    }
}

/// Has the worker do what lies in the topic, unmeasured.
///
/// # Errors
/// When it does not.
pub async fn drain(ground: &mut Ground, requests: u64) -> Result<(), BenchError> {
    Run::begin(ground, requests).await?.watch().await?;
    ground.settle(SETTLE_WITHIN).await?;
    ground.stop_worker().await
}

/// A coupon whose codes are stock already, and no worker; answers its number.
///
/// # Errors
/// When something does not come to pass.
pub async fn stocked(ground: &mut Ground, coupon: &str, codes: u64) -> Result<i64, BenchError> {
    // Its first start makes tables, topics and schemas.
    ground.start_worker().await?;
    let (coupon_no, load) = make_coupon(&mut ground.connection, coupon, codes).await?;
    let requests = Requests::open(&ground.kafka(), &mut ground.connection).await?;
    let announced = coupon.to_owned();
    blocking(move || requests.announce(&announced, load)).await?;
    let begun = SystemTime::now();
    let top = format!("select top from stampede.stock where coupon_no = {coupon_no}");
    while u64::try_from(ground.scalar::<i64>(&top).await?) != Ok(codes) {
        if begun.elapsed().unwrap_or_default() > LOADED_WITHIN {
            return Err(BenchError::Stuck { what: "the codes did not become stock", after: LOADED_WITHIN });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    ground.stop_worker().await?;
    Ok(coupon_no)
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

/// A worker at work on a full topic.
struct Run<'a> {
    ground: &'a mut Ground,
    ends: Ends,
    told_before: i64,
    requests: u64,
}

impl<'a> Run<'a> {
    async fn begin(ground: &'a mut Ground, requests: u64) -> Result<Self, BenchError> {
        let ends = Ends::open(&ground.kafka())?;
        let told_before = ends.of(RESPONSES)?;
        ground.begin_worker().await?;
        Ok(Self { ground, ends, told_before, requests })
    }

    fn told(&self) -> Result<u64, BenchError> {
        Ok(u64::try_from(self.ends.of(RESPONSES)? - self.told_before).unwrap_or(0))
    }

    /// Waits for the last response; answers when that was, and how many there were at each look.
    async fn watch(&self) -> Result<(SystemTime, Vec<(SystemTime, f64)>), BenchError> {
        let mut seen = Vec::new();
        let (mut last, mut moved) = (0, SystemTime::now());
        loop {
            let told = self.told()?;
            let now = SystemTime::now();
            seen.push((now, precise(told)));
            if told >= self.requests {
                return Ok((now, seen));
            }
            if told > last {
                (last, moved) = (told, now);
            }
            let idle = now.duration_since(moved).unwrap_or_default();
            if idle > STUCK_AFTER || !self.ground.stack.is_running(Child::Worker(0)) {
                let log = self.ground.stack.log_file(Child::Worker(0));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last_line = log.lines().last().unwrap_or_default().to_owned();
                return Err(BenchError::Stopped { told, requests: self.requests, last_line });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    async fn taken_over(&mut self, epoch_before: i64) -> Result<SystemTime, BenchError> {
        let query = "select epoch, (extract(epoch from taken_over_at) * 1000000)::bigint
                       from stampede.partitions where partition = 0";
        let (epoch, micros): (i64, i64) =
            sqlx::query_as(query).fetch_one(&mut self.ground.connection).await?;
        // A second takeover would have moved the start of the clock.
        if epoch != epoch_before + 1 {
            return Err(BenchError::Count {
                what: "takeovers while it was measured",
                wanted: 1,
                found: epoch - epoch_before,
            });
        }
        Ok(UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }

    /// Everything is there, once, and no invariant is broken.
    async fn verify(&mut self, rows: &[Rows]) -> Result<(), BenchError> {
        self.ground.settle(SETTLE_WITHIN).await?;
        for Rows { what, count } in rows {
            let found = self.ground.scalar(count).await?;
            counted(what, self.requests, found)?;
        }
        counted("responses", self.requests, self.ends.of(RESPONSES)? - self.told_before)?;
        let report = checker::check(&CheckConfig::settled(&self.ground.stack.endpoints()), None).await?;
        if report.is_clean() { Ok(()) } else { Err(BenchError::Broken(Box::new(report))) }
    }
}

/// As many as there should be.
///
/// # Errors
/// [`BenchError::Count`].
pub fn counted(what: &'static str, wanted: u64, found: i64) -> Result<(), BenchError> {
    if u64::try_from(found) == Ok(wanted) { Ok(()) } else { Err(BenchError::Count { what, wanted, found }) }
}
