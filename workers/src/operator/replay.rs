//! `workers dead-letters replay`: puts records back on `coupon.requests`, as they were, where their key belongs.
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

/// Says on a replayed record which dead letter it was.
const HEADER_REPLAYED: &str = "replayed_from";

/// What was done.
pub(crate) struct Outcome {
    /// One line for each letter.
    pub(crate) text: String,
    /// Set if a letter that was named could not be put back.
    pub(crate) refused: Option<String>,
}

/// Puts letters back.
pub(crate) async fn replay(args: ReplayArgs) -> Result<Outcome, OperatorError> {
    let count: Option<i32> = sqlx::query_scalar("select partitions from stampede.topics where name = $1")
        .bind(REQUESTS)
        .fetch_optional(&pool(&args.postgres)?)
        .await?;
    let Some(partitions) = count else {
        return Err(OperatorError::Refused(
            "Postgres has recorded no topics: is this Stampede's database?".to_owned(),
        ));
    };
    let mut config = kafka::producer(&args.kafka, "stampede-replay");
    // An operator counts what comes back.
    config.set("enable.idempotence", "true");
    let producer = ThreadedProducer::from_config_and_context(&config, Acknowledgements)?;
    let handle = Handle::current();
    let work = move || {
        let work = Replay { producer, partitions, handle, args, text: String::new(), refused: 0 };
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
    refused: usize,
}

impl Replay {
    fn run(mut self) -> Result<Outcome, KafkaError> {
        let letters = Letters::open(&self.args.kafka)?;
        if self.args.all {
            let reason = self.args.reason.clone();
            letters.all(|letter| {
                let wanted =
                    reason.as_ref().is_none_or(|reason| letter.header("reason") == reason.as_bytes());
                if wanted { self.put_back(&letter) } else { Ok(()) }
            })?;
            // Those that cannot be replayed are told, and were not asked for by name.
            self.refused = 0;
        } else {
            for id in self.args.letters.clone() {
                match letters.one(id)? {
                    Some(letter) => self.put_back(&letter)?,
                    None => self.refuse(id, "there is no such letter"),
                }
            }
        }
        let refused = (self.refused > 0)
            .then(|| format!("{} of the letters cannot be replayed: see above", self.refused));
        Ok(Outcome { text: self.text, refused })
    }

    fn put_back(&mut self, letter: &Letter) -> KafkaResult<()> {
        let Some(id) = letter.id else { return Ok(()) };
        if let Err(why) = letter.replayable() {
            self.refuse(id, why);
            return Ok(());
        }
        let key = letter.key.as_deref().unwrap_or_default();
        let to = partition_for(key, self.partitions);
        let line = if self.args.dry_run {
            format!("{id}: would go to partition {to} of {REQUESTS}")
        } else {
            let offset = self.produce(letter, id, key, to)?;
            format!("{id}: is at offset {offset} of partition {to} of {REQUESTS} now")
        };
        self.say(&line);
        Ok(())
    }

    fn refuse(&mut self, id: LetterId, why: &str) {
        self.refused += 1;
        self.say(&format!("{id}: not replayed: {why}"));
    }

    fn say(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// One after another, each acknowledged before the next: a replay that is interrupted has told what it did.
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

/// Tells the offset of each record that the broker has, or why it has not.
struct Acknowledgements;

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<oneshot::Sender<KafkaResult<i64>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, acknowledge: Self::DeliveryOpaque) {
        let told = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        drop(acknowledge.send(told));
    }
}
