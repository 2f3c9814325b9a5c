//! `workers dead-letters replay`: produces records to `coupon.requests` again, unchanged, to the partition of their key.
//!
//! They are decided like any other record. A request that was decided before, even as `unprocessable` when it became
//! a dead letter, keeps that outcome: an id is decided once.

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use runtime::kafka;
use schemas::partition_for;
use schemas::topics::REQUESTS;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::args::{LetterId, ReplayArgs};
use super::letters::{Letter, Letters};
use super::{OperatorError, pool};

/// Header of a replayed record with the id of its dead letter.
const HEADER_REPLAYED: &str = "replayed_from";

/// The result of a replay.
pub(crate) struct Outcome {
    /// One line per dead letter.
    pub(crate) text: String,
    /// Set if a dead letter that was named could not be replayed.
    pub(crate) rejected: Option<String>,
}

/// Replays dead letters.
pub(crate) async fn replay(args: ReplayArgs) -> Result<Outcome, OperatorError> {
    let count: Option<i32> = sqlx::query_scalar("select partitions from stampede.topics where name = $1")
        .bind(REQUESTS)
        .fetch_optional(&pool(&args.postgres)?)
        .await?;
    let Some(partitions) = count else {
        return Err(OperatorError::Rejected(
            "Postgres has recorded no topics: check that STAMPEDE_POSTGRES_URL is Stampede's database"
                .to_owned(),
        ));
    };
    let mut config = kafka::producer(&args.kafka, "stampede-replay");
    // Idempotent, so that a retry does not append a record twice: an operator counts the replayed records.
    config.set("enable.idempotence", "true");
    let producer = ThreadedProducer::from_config_and_context(&config, Acknowledgements)?;
    let handle = Handle::current();
    let work = move || {
        let work = Replay { producer, partitions, handle, args, text: String::new(), rejected: 0 };
        work.run()
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

struct Replay {
    producer: ThreadedProducer<Acknowledgements>,
    partitions: i32,
    handle: Handle,
    args: ReplayArgs,
    text: String,
    rejected: usize,
}

impl Replay {
    fn run(mut self) -> Result<Outcome, KafkaError> {
        let letters = Letters::open(&self.args.kafka)?;
        if self.args.all {
            let reason = self.args.reason.clone();
            letters.all(|letter| {
                let matches =
                    reason.as_ref().is_none_or(|reason| letter.header("reason") == reason.as_bytes());
                if matches { self.replay(&letter) } else { Ok(()) }
            })?;
            // Dead letters that cannot be replayed are listed, which is no failure: they were not named.
            self.rejected = 0;
        } else {
            for id in self.args.letters.clone() {
                match letters.one(id)? {
                    Some(letter) => self.replay(&letter)?,
                    None => self.reject(id, "there is no such dead letter"),
                }
            }
        }
        let rejected = (self.rejected > 0)
            .then(|| format!("{} of the dead letters cannot be replayed: see above", self.rejected));
        Ok(Outcome { text: self.text, rejected })
    }

    fn replay(&mut self, letter: &Letter) -> KafkaResult<()> {
        let Some(id) = letter.id else { return Ok(()) };
        if let Err(reason) = letter.replayable() {
            self.reject(id, reason);
            return Ok(());
        }
        let key = letter.key.as_deref().unwrap_or_default();
        let to = partition_for(key, self.partitions);
        let line = if self.args.dry_run {
            format!("{id}: would be produced to partition {to} of {REQUESTS}")
        } else {
            let offset = self.produce(letter, id, key, to)?;
            format!("{id}: produced to partition {to} of {REQUESTS}, offset {offset}")
        };
        self.add_line(&line);
        Ok(())
    }

    fn reject(&mut self, id: LetterId, reason: &str) {
        self.rejected += 1;
        self.add_line(&format!("{id}: not replayed: {reason}"));
    }

    fn add_line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Waits for the acknowledgement of each record before the next one.
    fn produce(&self, letter: &Letter, id: LetterId, key: &[u8], to: i32) -> KafkaResult<i64> {
        let (acknowledge, acknowledged) = oneshot::channel();
        let origin = id.to_string();
        let headers =
            OwnedHeaders::new().insert(Header { key: HEADER_REPLAYED, value: Some(origin.as_str()) });
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(REQUESTS, Box::new(acknowledge))
            .partition(to)
            .key(key)
            .headers(headers);
        record.payload = letter.value.as_deref();
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.handle.block_on(acknowledged).unwrap_or(Err(KafkaError::Canceled))
    }
}

/// Sends the offset of each delivered record, or the error, to the caller of [`Replay::produce`].
struct Acknowledgements;

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<oneshot::Sender<KafkaResult<i64>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, acknowledge: Self::DeliveryOpaque) {
        let offset = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        drop(acknowledge.send(offset));
    }
}
