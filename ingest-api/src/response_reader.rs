//! The thread that reads `coupon.responses`: all partitions, from their ends as they were when it began.
//!
//! Guarantees: "ready" only once every partition has its explicit position; whenever reading may have skipped
//! something (an error, a jump in the offsets, a reader that had to be made anew) the hub is told of a gap.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use runtime::lifecycle::Readiness;
use runtime::supervised::Supervised;
use schemas::topics::RESPONSES;
use schemas::{CouponResponse, DecodeError, Decoder, SchemaId};
use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::metrics as names;
use crate::outcome::Outcome;
use crate::questions::{self, PATIENCE};
use crate::result_hub::ResultHub;

/// The part of readiness that this thread speaks for.
pub(crate) const PART: &str = "responses";

const POLL: Duration = Duration::from_millis(100);
const ASK: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);
/// How often a schema is asked for before its record is left to the look-up in Postgres.
const SCHEMA_TRIES: u32 = 3;

/// What librdkafka tells goes to the debug log.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka, reading responses");
    }
}

impl ConsumerContext for Quiet {}

/// Reads responses.
pub(crate) type Client = BaseConsumer<Quiet>;

/// The client that will read, with a reader's settings.
///
/// # Errors
/// When librdkafka refuses them.
pub(crate) fn client(config: ClientConfig) -> KafkaResult<Arc<Supervised<Client>>> {
    Supervised::new("responses", move || Client::from_config_and_context(&config, Quiet))
}

/// All that the thread needs.
pub(crate) struct ResponseReader {
    pub(crate) clients: Arc<Supervised<Client>>,
    pub(crate) partitions: i32,
    pub(crate) decoder: Decoder<CouponResponse>,
    pub(crate) hub: Arc<ResultHub>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) pool: PgPool,
    pub(crate) stop: CancellationToken,
}

impl ResponseReader {
    /// Starts the thread. Call it within a Tokio runtime, which it uses to ask Postgres for schemas.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        let handle = Handle::current();
        thread::Builder::new().name("responses".to_owned()).spawn(move || self.run(&handle))
    }

    fn run(self, handle: &Handle) {
        while !self.stop.is_cancelled() {
            let client = self.clients.current_owned();
            let why = match self.position(&client) {
                Ok(()) => {
                    self.readiness.set(PART, Ok(()));
                    // What was told before this position was not read here.
                    self.hub.note_gap();
                    match self.read(&client, handle) {
                        ControlFlow::Break(None) => return,
                        ControlFlow::Break(Some(error)) => error,
                        ControlFlow::Continue(()) => continue,
                    }
                }
                Err(error) => error,
            };
            self.readiness.set(PART, Err(format!("coupon.responses cannot be read: {why}")));
            thread::sleep(PAUSE);
            if let Err(error) = self.clients.replace() {
                tracing::error!(%error, "no other client to read responses with");
            }
        }
    }

    /// Puts the client at the end of every partition.
    fn position(&self, client: &Client) -> KafkaResult<()> {
        let mut ends = TopicPartitionList::with_capacity(usize::try_from(self.partitions).unwrap_or(0));
        for partition in 0..self.partitions {
            let (_, end) = client.fetch_watermarks(RESPONSES, partition, ASK)?;
            ends.add_partition_offset(RESPONSES, partition, Offset::Offset(end))?;
        }
        client.assign(&ends)
    }

    /// Reads until the process stops (`None`), the client has to be made anew, or it was.
    fn read(&self, client: &Arc<Client>, handle: &Handle) -> ControlFlow<Option<KafkaError>> {
        let read = counter!(names::RESPONSES);
        let mut expected = vec![-1; usize::try_from(self.partitions).unwrap_or(0)];
        let mut broken = false;
        while !self.stop.is_cancelled() {
            if !self.clients.is_current(client) {
                return ControlFlow::Continue(());
            }
            match client.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    if std::mem::take(&mut broken) || skipped(&mut expected, &message) {
                        self.hub.note_gap();
                    }
                    self.settle(&message, handle, &read);
                }
                Some(Err(error)) if is_lasting(&error) => return ControlFlow::Break(Some(error)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "reading responses goes on after an error");
                    broken = true;
                }
            }
        }
        ControlFlow::Break(None)
    }

    fn settle(&self, message: &BorrowedMessage<'_>, handle: &Handle, read: &Counter) {
        read.increment(1);
        match self.decode(message.payload().unwrap_or_default(), handle) {
            Ok(response) => match Outcome::of(response) {
                Some(outcome) => self.hub.settle(outcome, Instant::now()),
                None => counter!(names::RESPONSES_UNREADABLE, "reason" => "request_id").increment(1),
            },
            Err(error) => {
                counter!(names::RESPONSES_UNREADABLE, "reason" => error.word()).increment(1);
                tracing::warn!(%error, offset = message.offset(), "a response cannot be read; Postgres has it too");
                self.hub.note_gap();
            }
        }
    }

    fn decode(&self, value: &[u8], handle: &Handle) -> Result<CouponResponse, DecodeError> {
        for _ in 0..SCHEMA_TRIES {
            match self.decoder.decode(value) {
                Err(DecodeError::UnknownSchema(id)) => self.learn(id, handle),
                other => return other,
            }
        }
        self.decoder.decode(value)
    }

    /// Asks Postgres for a schema that a newer program writes with.
    fn learn(&self, id: SchemaId, handle: &Handle) {
        let asked = questions::within(PATIENCE, runtime::registry::schema_definition(&self.pool, id));
        match handle.block_on(asked) {
            Ok(Some(definition)) => match self.decoder.learn(id, &definition) {
                Ok(()) => tracing::info!(%id, "a new schema of responses was learnt"),
                Err(error) => tracing::error!(%id, %error, "a schema of responses cannot be used"),
            },
            Ok(None) => tracing::error!(%id, "a schema of responses is registered nowhere"),
            Err(error) => {
                tracing::warn!(%id, %error, "a schema of responses cannot be fetched");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Whether records are missing between the last message of a partition and this one.
fn skipped(expected: &mut [i64], message: &BorrowedMessage<'_>) -> bool {
    let place = usize::try_from(message.partition()).ok().and_then(|partition| expected.get_mut(partition));
    let Some(next) = place else { return false };
    let skipped = *next >= 0 && *next != message.offset();
    *next = message.offset() + 1;
    skipped
}

/// Whether the client cannot go on from where it stands.
fn is_lasting(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AutoOffsetReset, OffsetOutOfRange, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    match error {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            AutoOffsetReset | OffsetOutOfRange | UnknownPartition | UnknownTopic | UnknownTopicOrPartition
        ),
        _ => false,
    }
}
