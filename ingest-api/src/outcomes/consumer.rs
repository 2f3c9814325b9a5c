//! The thread that consumes `coupon.responses`: all partitions, from their end offsets at the time it started.
//!
//! Guarantees: it reports ready only when every partition has its explicit position; whenever records may have been
//! skipped (an error, a jump in the offsets, a new client) the hub is informed of a gap.

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

use super::hub::OutcomeHub;
use crate::db::query_pool::{READ_TIMEOUT, with_timeout};
use crate::model::outcome::Outcome;
use crate::telemetry::metrics as names;
use crate::telemetry::probes::RESPONSES as PART;

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const WATERMARK_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Attempts to fetch an unknown schema; after them the outcome is looked up in Postgres.
const SCHEMA_ATTEMPTS: u32 = 3;

/// Sends librdkafka's own messages to the debug log.
pub(crate) struct DebugLog;

impl ClientContext for DebugLog {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka consumer of responses");
    }
}

impl ConsumerContext for DebugLog {}

/// Consumes responses.
pub(crate) type Client = BaseConsumer<DebugLog>;

/// The client of the thread. Must be called within a Tokio runtime.
///
/// # Errors
/// librdkafka rejects the configuration.
pub(crate) fn client(config: ClientConfig) -> KafkaResult<Arc<Supervised<Client>>> {
    Supervised::new("responses", move || Client::from_config_and_context(&config, DebugLog))
}

/// Everything that the thread uses.
pub(crate) struct ResponseConsumer {
    pub(crate) clients: Arc<Supervised<Client>>,
    pub(crate) partitions: i32,
    pub(crate) decoder: Decoder<CouponResponse>,
    pub(crate) hub: Arc<OutcomeHub>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) pool: PgPool,
    pub(crate) stop: CancellationToken,
}

impl ResponseConsumer {
    /// Starts the thread. Must be called within a Tokio runtime, on which the thread queries Postgres for schemas.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        let handle = Handle::current();
        thread::Builder::new().name("responses".to_owned()).spawn(move || self.run(&handle))
    }

    fn run(self, handle: &Handle) {
        while !self.stop.is_cancelled() {
            let client = self.clients.current_owned();
            let why = match self.assign_ends(&client) {
                Ok(()) => {
                    self.readiness.set(PART, Ok(()));
                    // Responses before this position were not consumed here.
                    self.hub.note_gap();
                    match self.consume(&client, handle) {
                        ControlFlow::Break(None) => return,
                        ControlFlow::Break(Some(error)) => error,
                        ControlFlow::Continue(()) => continue,
                    }
                }
                Err(error) => error,
            };
            self.readiness.set(PART, Err(format!("coupon.responses cannot be consumed: {why}")));
            // Another attempt, with the same client unless supervision has replaced it.
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Assigns the end of every partition.
    fn assign_ends(&self, client: &Client) -> KafkaResult<()> {
        let mut ends = TopicPartitionList::with_capacity(usize::try_from(self.partitions).unwrap_or(0));
        for partition in 0..self.partitions {
            let (_, end) = client.fetch_watermarks(RESPONSES, partition, WATERMARK_TIMEOUT)?;
            ends.add_partition_offset(RESPONSES, partition, Offset::Offset(end))?;
        }
        client.assign(&ends)
    }

    /// Consumes until the process stops (`Break(None)`), the position is lost (`Break(Some)`) or was replaced (`Continue`).
    fn consume(&self, client: &Arc<Client>, handle: &Handle) -> ControlFlow<Option<KafkaError>> {
        let consumed = counter!(names::RESPONSES);
        let mut expected = vec![-1; usize::try_from(self.partitions).unwrap_or(0)];
        let mut after_error = false;
        while !self.stop.is_cancelled() {
            if !self.clients.is_current(client) {
                return ControlFlow::Continue(());
            }
            match client.poll(POLL_TIMEOUT) {
                None => {}
                Some(Ok(message)) => {
                    if std::mem::take(&mut after_error) || skipped(&mut expected, &message) {
                        self.hub.note_gap();
                    }
                    self.process(&message, handle, &consumed);
                }
                Some(Err(error)) if is_permanent(&error) => return ControlFlow::Break(Some(error)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "transient error of the consumer of responses");
                    after_error = true;
                }
            }
        }
        ControlFlow::Break(None)
    }

    fn process(&self, message: &BorrowedMessage<'_>, handle: &Handle, consumed: &Counter) {
        consumed.increment(1);
        match self.decode(message.payload().unwrap_or_default(), handle) {
            Ok(response) => match Outcome::of(response) {
                Some(outcome) => self.hub.settle(outcome, Instant::now()),
                None => counter!(names::RESPONSES_UNREADABLE, "reason" => "request_id").increment(1),
            },
            Err(error) => {
                counter!(names::RESPONSES_UNREADABLE, "reason" => error.label()).increment(1);
                tracing::warn!(
                    %error,
                    partition = message.partition(),
                    offset = message.offset(),
                    "response cannot be decoded; pending requests are looked up in Postgres"
                );
                self.hub.note_gap();
            }
        }
    }

    fn decode(&self, value: &[u8], handle: &Handle) -> Result<CouponResponse, DecodeError> {
        for _ in 0..SCHEMA_ATTEMPTS {
            match self.decoder.decode(value) {
                Err(DecodeError::UnknownSchema(id)) => self.fetch_schema(id, handle),
                other => return other,
            }
        }
        self.decoder.decode(value)
    }

    /// Fetches from Postgres a schema that a newer program writes with.
    fn fetch_schema(&self, id: SchemaId, handle: &Handle) {
        let fetch = with_timeout(READ_TIMEOUT, runtime::registry::schema_definition(&self.pool, id));
        match handle.block_on(fetch) {
            Ok(Some(definition)) => match self.decoder.add_schema(id, &definition) {
                Ok(()) => tracing::info!(%id, "new schema of responses loaded"),
                Err(error) => tracing::error!(%id, %error, "schema of responses is incompatible"),
            },
            Ok(None) => tracing::error!(%id, "schema of responses is not registered"),
            Err(error) => {
                tracing::warn!(%id, %error, "schema of responses cannot be fetched");
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

/// Whether records are missing between the previous message of the partition and this one.
fn skipped(expected: &mut [i64], message: &BorrowedMessage<'_>) -> bool {
    let next = usize::try_from(message.partition()).ok().and_then(|partition| expected.get_mut(partition));
    let Some(next) = next else { return false };
    let skipped = *next >= 0 && *next != message.offset();
    *next = message.offset() + 1;
    skipped
}

/// Whether the client cannot continue from its position, and needs a new one.
fn is_permanent(error: &KafkaError) -> bool {
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
