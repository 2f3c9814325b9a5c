//! `hot-drain`: how fast one worker empties a topic full of claims of one coupon.
//!
//! The clock starts when the worker takes the partition over (`taken_over_at`, by Postgres' clock on this machine):
//! it has not consumed any record by then. It stops when the broker has acknowledged the last response, seen by asking
//! for the end of `coupon.responses` every few milliseconds. Then rows and responses are counted and the checker reads
//! everything; a violation voids the figure. p50 and p99 tell when half and 99 % of the claims had their response,
//! counted from the start: in a backlog, a claim's time is its place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use local_stack::Child;
use schemas::topics::RESPONSES;

use super::BenchError;
use super::arm::{Arm, Sample};
use super::backlog::{Ends, Requests, make_coupon};
use super::ground::{Ground, used};
use crate::checker::{self, CheckConfig};

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// A worker that needs longer than this for nothing at all is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
const LOADED_WITHIN: Duration = Duration::from_secs(60);

/// The arm.
pub struct HotDrain;

impl Arm for HotDrain {
    fn name(&self) -> &'static str {
        "hot-drain"
    }

    fn about(&self) -> &'static str {
        "Stampede: one worker empties a full topic of one coupon's claims: each decided in order, durable, and told"
    }

    fn run<'a>(
        &'a self,
        ground: &'a mut Ground,
        claims: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        measure(ground, claims).boxed_local()
    }
}

async fn measure(ground: &mut Ground, claims: u64) -> Result<Sample, BenchError> {
    ground.runs += 1;
    let coupon = format!("bench-{}", ground.runs);
    let coupon_no = stocked(ground, &coupon, claims).await?;
    let requests = Requests::open(&ground.kafka(), &mut ground.connection).await?;
    let filling = coupon.clone();
    blocking(move || requests.fill(&filling, claims)).await?;
    ground.calm().await?;

    let ends = Ends::open(&ground.kafka())?;
    let told_before = ends.of(RESPONSES)?;
    let epoch: i64 = scalar(ground, "select epoch from stampede.partitions where partition = 0").await?;
    let before = ground.cpu();
    ground.begin_worker().await?;
    let (ended, seen) = drained(ground, &ends, told_before, claims).await?;
    let cpu = used(&before, &ground.cpu());

    let begun = taken_over(ground, epoch).await?;
    let since = |moment: SystemTime| moment.duration_since(begun).unwrap_or_default();
    let when = |share: f64| seen.iter().find(|(_, told)| *told >= share).map_or(ended, |(at, _)| *at);
    let total = precise(claims);
    let (p50, p99) = (since(when(total * 0.5)), since(when(total * 0.99)));
    verify(ground, &ends, coupon_no, told_before, claims).await?;
    Ok(Sample { claims, took: since(ended), p50, p99, cpu })
}

/// A coupon whose codes are stock already, and no worker.
async fn stocked(ground: &mut Ground, coupon: &str, codes: u64) -> Result<i64, BenchError> {
    // Its first start makes tables, topics and schemas.
    ground.start_worker().await?;
    let (coupon_no, load) = make_coupon(&mut ground.connection, coupon, codes).await?;
    let requests = Requests::open(&ground.kafka(), &mut ground.connection).await?;
    let announced = coupon.to_owned();
    blocking(move || requests.announce(&announced, load)).await?;
    let begun = SystemTime::now();
    while scalar::<i64>(ground, &format!("select top from stampede.stock where coupon_no = {coupon_no}"))
        .await?
        != i64::try_from(codes).unwrap_or(i64::MAX)
    {
        if begun.elapsed().unwrap_or_default() > LOADED_WITHIN {
            return Err(BenchError::Stuck { what: "the codes did not become stock", after: LOADED_WITHIN });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    ground.stop_worker().await?;
    Ok(coupon_no)
}

/// Waits for the last response; answers when that was, and how many there were at each look.
async fn drained(
    ground: &Ground,
    ends: &Ends,
    told_before: i64,
    claims: u64,
) -> Result<(SystemTime, Vec<(SystemTime, f64)>), BenchError> {
    let mut seen = Vec::new();
    let (mut last, mut moved) = (0, SystemTime::now());
    loop {
        let told = u64::try_from(ends.of(RESPONSES)? - told_before).unwrap_or(0);
        let now = SystemTime::now();
        seen.push((now, precise(told)));
        if told >= claims {
            return Ok((now, seen));
        }
        if told > last {
            (last, moved) = (told, now);
        }
        let idle = now.duration_since(moved).unwrap_or_default();
        if idle > STUCK_AFTER || !ground.stack.is_running(Child::Worker(0)) {
            let log = ground.stack.log_file(Child::Worker(0));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let last_line = log.lines().last().unwrap_or_default().to_owned();
            return Err(BenchError::Stopped { told, claims, last_line });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

async fn taken_over(ground: &mut Ground, epoch_before: i64) -> Result<SystemTime, BenchError> {
    let query = "select epoch, (extract(epoch from taken_over_at) * 1000000)::bigint
                   from stampede.partitions where partition = 0";
    let (epoch, micros): (i64, i64) = sqlx::query_as(query).fetch_one(&mut ground.connection).await?;
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
async fn verify(
    ground: &mut Ground,
    ends: &Ends,
    coupon_no: i64,
    told_before: i64,
    claims: u64,
) -> Result<(), BenchError> {
    let check = CheckConfig::settled(&ground.stack.endpoints());
    checker::settle(&check, SETTLE_WITHIN).await?;
    let rows = scalar(ground, &format!("select count(*) from stampede.claims where coupon_no = {coupon_no}"))
        .await?;
    let told = ends.of(RESPONSES)? - told_before;
    for (what, found) in [("rows of claims", rows), ("responses", told)] {
        if u64::try_from(found) != Ok(claims) {
            return Err(BenchError::Count { what, wanted: claims, found });
        }
    }
    let report = checker::check(&check, None).await?;
    ground.stop_worker().await?;
    if report.is_clean() { Ok(()) } else { Err(BenchError::Broken(Box::new(report))) }
}

async fn scalar<T>(ground: &mut Ground, query: &str) -> Result<T, BenchError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()));
    Ok(query.fetch_one(&mut ground.connection).await?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BenchError> + Send + 'static,
) -> Result<T, BenchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BenchError::Lost)?
}

#[expect(clippy::cast_precision_loss, reason = "counts of claims are far below 2^52")]
const fn precise(count: u64) -> f64 {
    count as f64
}
