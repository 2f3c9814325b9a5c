//! `takeover`, `takeover-million`, `hand-over`: how long a partition is not served when its owner ends.
//!
//! Two workers, one partition, a claim every ten milliseconds. The owner is killed (SIGKILL) or stopped gracefully
//! (SIGTERM); the measured time ends with the first response of the next owner to a claim that was sent afterwards. For the
//! one that is killed, the group's session timeout is subtracted: that is how long the broker waits for it. p50 and p99 are
//! those of all takeovers in the run.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use local_stack::Child;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use schemas::topics::RESPONSES;
use schemas::{CouponResponse, Decoder, Message as _, SchemaId};

use crate::arm::{Arm, Sample, counted, millis};
use crate::host::environment::{Environment, Kind};
use crate::load::backlog::{Requests, claim, request_id, unix_ms};
use crate::load::latencies::Latencies;
use crate::load::worker_run::{SETTLE_WITHIN, stocked, taken_over_at};
use crate::{BenchError, METRIC_FENCE_TO_OUTCOME, METRIC_LONGEST_WAIT, METRIC_SIGNAL_TO_OUTCOME};

const BETWEEN_CLAIMS: Duration = Duration::from_millis(10);
/// A bound, far above the expected time.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Takeovers per run: one for each `CLAIMS_PER_TIME` claims of the run, within these limits.
const MOST_TIMES: u64 = 8;
const CLAIMS_PER_TIME: u64 = 100_000;
const LEAST_TIMES: u64 = 2;
/// Attempts per takeover that counts.
const TRIES: u64 = 4;
const FEW_CODES: u64 = 1_000;
const MANY_CODES: u64 = 1_000_000;
/// Keeps a small run from generating a million codes.
const MOST_CODES_PER_TIME: u64 = 100_000;

/// An arm that ends the owner of a partition several times.
pub struct Takeover {
    /// Its name on the command line.
    pub name: &'static str,
    /// Description in one line.
    pub about: &'static str,
    /// Whether the owner is killed, or stopped gracefully.
    pub killed: bool,
    /// Codes of the coupon.
    pub codes: u64,
}

/// Killed, with a small coupon.
pub const TAKEOVER: Takeover = Takeover {
    name: "takeover",
    about: "Stampede: kill −9 of the owner to the first outcome by the next one, beyond the session timeout of 1 s",
    killed: true,
    codes: FEW_CODES,
};
/// Killed, with a large coupon.
pub const TAKEOVER_MILLION: Takeover = Takeover {
    name: "takeover-million",
    about: "the same with a coupon of 1,000,000 codes instead of 1,000",
    killed: true,
    codes: MANY_CODES,
};
/// A graceful stop.
pub const HAND_OVER: Takeover = Takeover {
    name: "hand-over",
    about: "Stampede: SIGTERM of the owner to the first outcome by the next one",
    killed: false,
    codes: FEW_CODES,
};

impl Arm for Takeover {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn kind(&self) -> Kind {
        Kind::ShortSession
    }

    fn requests(&self, claims: u64) -> u64 {
        (claims / CLAIMS_PER_TIME).clamp(LEAST_TIMES, MOST_TIMES)
    }

    fn run<'a>(
        &'a self,
        env: &'a mut Environment,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        self.measure(env, requests).boxed_local()
    }
}

impl Takeover {
    async fn measure(&self, env: &mut Environment, times: u64) -> Result<Sample, BenchError> {
        let ids = vec![env.name()];
        let coupons = stocked(env, ids, self.codes.min(times * MOST_CODES_PER_TIME)).await?;
        let coupon = coupons.into_iter().next().map(|coupon| coupon.id).unwrap_or_default();
        env.quiesce().await?;
        let mut traffic = Traffic::begin(env, coupon).await?;
        let mut seen: Vec<Gap> = Vec::new();
        for _ in 0..times * TRIES {
            if seen.len() as u64 == times {
                break;
            }
            seen.extend(self.once(env, &mut traffic).await?);
        }
        if (seen.len() as u64) < times {
            return Err(BenchError::Moved);
        }
        env.settle(SETTLE_WITHIN).await?;
        let decided =
            "select (select count(*) from stampede.claims) + (select count(*) from stampede.outcomes)";
        counted("claims decided", traffic.sent, env.scalar(decided).await?)?;
        env.check().await?;
        env.stop_workers().await?;
        Ok(self.sample(env, times, &seen))
    }

    fn sample(&self, env: &Environment, times: u64, seen: &[Gap]) -> Sample {
        let of = |figure: fn(&Gap) -> Duration| seen.iter().map(figure).collect::<Latencies>();
        let max_delay = if self.killed { env.kind.session() } else { Duration::ZERO };
        // Subtracted first: three digits of the difference are more than three digits of the sum.
        let beyond: Latencies =
            seen.iter().map(|gap| gap.signal_to_outcome.saturating_sub(max_delay)).collect();
        let metrics = vec![
            (METRIC_SIGNAL_TO_OUTCOME, millis(of(|gap| gap.signal_to_outcome).percentile(50))),
            (METRIC_FENCE_TO_OUTCOME, millis(of(|gap| gap.fence_to_outcome).percentile(50))),
            (METRIC_LONGEST_WAIT, millis(of(|gap| gap.longest_wait).percentile(100))),
        ];
        let (p50, p99) = (Some(beyond.percentile(50)), Some(beyond.percentile(99)));
        Sample { requests: times, p50, p99, metrics, ..Sample::default() }
    }

    /// One takeover; the previous owner is then started again as the standby. `None` if the partition changed its owner
    /// more than once, as on a machine so busy that the broker misses a heartbeat: such a takeover is not measured.
    async fn once(&self, env: &mut Environment, traffic: &mut Traffic) -> Result<Option<Gap>, BenchError> {
        env.begin_workers(2).await?;
        for n in 0..2 {
            env.stack.wait_healthy(Child::Worker(n)).await?;
        }
        // The present owner is deciding.
        traffic.serve(|_| true).await?;
        let (owner, epoch) = owner(env).await?;
        let Some(owner) = (0..2).map(Child::Worker).find(|child| child.to_string() == owner) else {
            return Ok(None);
        };

        let first = traffic.sent;
        let signalled = SystemTime::now();
        if self.killed {
            env.stack.kill(owner)?;
        } else {
            env.stack.terminate(owner)?;
        }
        let stack = &env.stack;
        let mut gone_at = None;
        let served = traffic.serve(|traffic: &Traffic| {
            if gone_at.is_none() && !stack.is_running(owner) {
                gone_at = Some(traffic.sent);
            }
            // The claim was sent after the previous owner had ended, so the next one has published its outcome.
            gone_at.is_some_and(|gone_at| traffic.received.iter().any(|received| received.claim >= gone_at))
        });
        served.await?;
        env.stack.wait_exit(owner, GONE_WITHIN).await?;
        let (_, now) = self::owner(env).await?;
        let fenced = taken_over_at(env).await?;
        Ok(if now == epoch + 1 { traffic.gap(first, signalled, fenced) } else { None })
    }
}

/// Who owns the partition, and in which epoch.
async fn owner(env: &mut Environment) -> Result<(String, i64), BenchError> {
    let query = "select owner, epoch from stampede.partitions where partition = 0";
    Ok(sqlx::query_as(query).fetch_one(&mut env.connection).await?)
}

/// Times of one takeover.
struct Gap {
    signal_to_outcome: Duration,
    fence_to_outcome: Duration,
    longest_wait: Duration,
}

/// A response to one of our claims.
struct Received {
    claim: u64,
    at: SystemTime,
}

/// A steady stream of claims, and their published responses.
struct Traffic {
    requests: Requests,
    coupon: String,
    base_ms: u64,
    /// Claims sent so far; the next one has this number.
    sent: u64,
    sent_at: Vec<SystemTime>,
    responses: BaseConsumer,
    decoder: Decoder<CouponResponse>,
    numbers: std::collections::HashMap<String, u64>,
    /// Responses received since the last [`Self::serve`] began.
    received: Vec<Received>,
}

impl Traffic {
    async fn begin(env: &mut Environment, coupon: String) -> Result<Self, BenchError> {
        let kafka = env.kafka();
        let fingerprint = CouponResponse::SUBJECT.newest().fingerprint;
        let schema = sqlx::query_scalar("select schema_id from stampede.schemas where fingerprint = $1")
            .bind(fingerprint.as_slice())
            .fetch_one(&mut env.connection)
            .await?;
        let responses: BaseConsumer = runtime::kafka::reader(&kafka, "loadtest-responses")
            .set("auto.offset.reset", "latest")
            .create()?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(RESPONSES, 0, Offset::Beginning)?;
        responses.assign(&from)?;
        Ok(Self {
            requests: Requests::open(&kafka, &mut env.connection).await?,
            coupon,
            base_ms: u64::try_from(unix_ms()).unwrap_or(0),
            sent: 0,
            sent_at: Vec::new(),
            responses,
            decoder: Decoder::new(SchemaId(schema)),
            numbers: std::collections::HashMap::new(),
            received: Vec::new(),
        })
    }

    /// Sends claims until `enough` returns true, and at least until one response was received.
    async fn serve(&mut self, mut enough: impl FnMut(&Self) -> bool) -> Result<(), BenchError> {
        self.received.clear();
        let started = Instant::now();
        while self.received.is_empty() || !enough(self) {
            if started.elapsed() > SERVED_WITHIN {
                return Err(BenchError::Stuck { what: "no worker serves", after: SERVED_WITHIN });
            }
            self.send()?;
            self.receive()?;
            // librdkafka uses threads of its own; this thread has other tasks.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), BenchError> {
        let id = request_id(self.base_ms, self.sent);
        self.numbers.insert(id.to_string(), self.sent);
        self.sent_at.push(SystemTime::now());
        self.requests.request(claim(&self.coupon, self.sent), id)?;
        self.sent += 1;
        Ok(())
    }

    /// Receives responses until the next claim is due.
    fn receive(&mut self) -> Result<(), BenchError> {
        let due = Instant::now() + BETWEEN_CLAIMS;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let Some(message) = self.responses.poll(left) else { continue };
            let message = message?;
            let at = SystemTime::now();
            let response = message.payload().and_then(|value| self.decoder.decode(value).ok());
            let number = response.and_then(|response| self.numbers.get(&response.request_id).copied());
            self.received.extend(number.map(|claim| Received { claim, at }));
        }
    }

    /// The times of claims from number `first` on, which were sent after the signal.
    fn gap(&self, first: u64, signalled: SystemTime, fenced: SystemTime) -> Option<Gap> {
        let since = |at: SystemTime, then: SystemTime| at.duration_since(then).unwrap_or_default();
        let mut published: HashSet<u64> = HashSet::new();
        let ours: Vec<&Received> = self
            .received
            .iter()
            .filter(|received| received.claim >= first && published.insert(received.claim))
            .collect();
        let next = ours.iter().find(|received| received.at > fenced)?;
        let sent_at = |claim: u64| usize::try_from(claim).ok().and_then(|at| self.sent_at.get(at)).copied();
        let waits = ours.iter().filter_map(|received| Some(since(received.at, sent_at(received.claim)?)));
        Some(Gap {
            signal_to_outcome: since(next.at, signalled),
            fence_to_outcome: since(next.at, fenced),
            longest_wait: waits.max().unwrap_or_default(),
        })
    }
}
