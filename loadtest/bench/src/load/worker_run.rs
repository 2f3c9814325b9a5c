//! A worker that works through a topic: coupons with stock for it, the responses that it publishes, and the verification
//! afterwards.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use local_stack::Child;
use schemas::topics::RESPONSES;

use crate::arm::{Sample, counted, precise};
use crate::host::environment::Environment;
use crate::load::backlog::{Coupon, Ends, Requests, make_coupons};
use crate::{BenchError, METRIC_COMMITS};

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// A worker without any progress for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(900);
/// Bound on the time until a worker is idle.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(300);
const LOADED_WITHIN: Duration = Duration::from_secs(300);

/// Rows that must exist afterwards.
pub struct Rows {
    /// Rows of what.
    pub what: &'static str,
    /// How many.
    pub wanted: u64,
    /// The query that counts them.
    pub count: String,
}

/// Commits of Postgres for each 1,000 requests: every one of them is a flush of its log.
pub fn commits(writes: i64, requests: u64) -> (&'static str, f64) {
    (METRIC_COMMITS, precise(u64::try_from(writes).unwrap_or(0)) * 1_000.0 / precise(requests.max(1)))
}

/// Lets a worker empty the topic, unmeasured.
///
/// # Errors
/// When it does not.
pub async fn drain(env: &mut Environment, requests: u64) -> Result<(), BenchError> {
    let watch = Watch::begin(env, requests)?;
    env.begin_workers(1).await?;
    watch.until_published(env).await?;
    env.settle(SETTLE_WITHIN).await?;
    env.stop_workers().await
}

/// Coupons whose codes are stock already. A worker runs.
///
/// # Errors
/// When the codes do not become stock.
pub async fn stocked(
    env: &mut Environment,
    ids: Vec<String>,
    codes_each: u64,
) -> Result<Vec<Coupon>, BenchError> {
    // Its first start makes tables, topics and schemas.
    env.start_worker().await?;
    let kafka = env.kafka();
    let coupons = make_coupons(&mut env.connection, ids, kafka.partitions, codes_each).await?;
    let requests = Requests::open(&kafka, &mut env.connection).await?;
    let announced = coupons.clone();
    blocking(move || requests.announce(&announced)).await?;
    let started = SystemTime::now();
    let top = "select coalesce(sum(top), 0)::bigint from stampede.stock";
    while u64::try_from(env.scalar::<i64>(top).await?) != Ok(codes_each * coupons.len() as u64) {
        if started.elapsed().unwrap_or_default() > LOADED_WITHIN {
            return Err(BenchError::Stuck { what: "the codes did not become stock", after: LOADED_WITHIN });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    env.settle(SETTLE_WITHIN).await?;
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

/// Counts the responses that workers publish.
pub struct Watch {
    ends: Ends,
    published_before: i64,
    requests: u64,
}

/// When how many responses had been published.
pub struct Seen {
    samples: Vec<(SystemTime, f64)>,
}

impl Watch {
    /// From now on.
    ///
    /// # Errors
    /// When the broker does not response.
    pub fn begin(env: &Environment, requests: u64) -> Result<Self, BenchError> {
        let ends = Ends::open(&env.kafka())?;
        let published_before = ends.of(RESPONSES)?;
        Ok(Self { ends, published_before, requests })
    }

    fn published(&self) -> Result<u64, BenchError> {
        Ok(u64::try_from(self.ends.of(RESPONSES)? - self.published_before).unwrap_or(0))
    }

    /// Waits for the last response.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn until_published(&self, env: &Environment) -> Result<Seen, BenchError> {
        let mut samples = Vec::new();
        let (mut last, mut moved) = (0, SystemTime::now());
        loop {
            let published = self.published()?;
            let now = SystemTime::now();
            samples.push((now, precise(published)));
            if published >= self.requests {
                return Ok(Seen { samples });
            }
            if published > last {
                (last, moved) = (published, now);
            }
            let idle = now.duration_since(moved).unwrap_or_default();
            if idle > STUCK_AFTER || !env.stack.is_running(Child::Worker(0)) {
                let log = env.stack.log_file(Child::Worker(0));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last_line = log.lines().last().unwrap_or_default().to_owned();
                return Err(BenchError::Stopped { published, requests: self.requests, last_line });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Everything is there, once, and no invariant is broken.
    ///
    /// # Errors
    /// When it is not so; then there is no figure.
    pub async fn verify(&self, env: &mut Environment, rows: &[Rows]) -> Result<(), BenchError> {
        env.settle(SETTLE_WITHIN).await?;
        for Rows { what, wanted, count } in rows {
            let found = env.scalar(count).await?;
            counted(what, *wanted, found)?;
        }
        counted("responses", self.requests, self.ends.of(RESPONSES)? - self.published_before)?;
        env.check().await
    }
}

impl Seen {
    /// The figure, with the clock started at `started`.
    #[must_use]
    pub fn sample(
        &self,
        started: SystemTime,
        requests: u64,
        cpu: Vec<(&'static str, Duration)>,
        metrics: Vec<(&'static str, f64)>,
    ) -> Sample {
        let when = |share: f64| {
            let wanted = precise(requests) * share;
            let sample =
                self.samples.iter().find(|(_, published)| *published >= wanted).or(self.samples.last());
            sample.map(|(at, _)| at.duration_since(started).unwrap_or_default())
        };
        Sample {
            requests,
            took: when(1.0),
            p50: when(0.5),
            p99: when(0.99),
            cpu,
            metrics,
            ..Sample::default()
        }
    }
}

/// When partition 0 was taken over last.
///
/// # Errors
/// When Postgres does not response.
pub async fn taken_over_at(env: &mut Environment) -> Result<SystemTime, BenchError> {
    let query = "select (extract(epoch from taken_over_at) * 1000000)::bigint
                   from stampede.partitions where partition = 0";
    let micros: i64 = env.scalar(query).await?;
    Ok(UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}
