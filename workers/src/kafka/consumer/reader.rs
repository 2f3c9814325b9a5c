//! The client that fetches records. Commands determine what it reads and from where; it keeps no offset beyond an
//! ownership.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coupon_core::ids::{Millis, Offset, Partition};
use coupon_core::record::Record;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientContext, Offset as KafkaOffset, Timestamp, TopicPartitionList};
use runtime::supervised::Supervised;
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};

use crate::codec::decode::{RawRecord, RecordDecoder, RequestHeaders};
use crate::kafka::client_log;
use crate::kafka::offsets::bounds;
use crate::ports::{Delivery, DriverEvent, Fetched, Ownership};

/// Records per delivery: what a driver processes between two looks at its other events.
const CHUNK_RECORDS: usize = 500;
/// Records between two looks at the commands.
const ROUND_RECORDS: usize = 2_000;
/// Records in flight to one driver at which its partition is paused …
const IN_FLIGHT_HIGH: usize = 10_000;
/// … and at which it is resumed.
const IN_FLIGHT_LOW: usize = 2_000;

/// Records that librdkafka fetches ahead of those it has returned, and bytes per partition and fetch. Both are small:
/// while a backlog is processed, a partition is paused whenever its owner is slower than the reader; records fetched
/// ahead are then discarded, and are fetched, checked and decompressed again.
const READ_AHEAD_RECORDS: &str = "2000";
const FETCH_BYTES: &str = "262144";

/// Timeout of looking up leaders ahead of the first fetch.
const FIND_LEADERS_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Reader {
    clients: Arc<Supervised<BaseConsumer<Context>>>,
    consumer: Arc<BaseConsumer<Context>>,
    decoder: RecordDecoder,
    partitions: BTreeMap<i32, ReadState>,
}

/// The state of one partition that is being read.
struct ReadState {
    delivery: Delivery,
    /// The first offset that is not delivered yet.
    next: Offset,
    chunk: Vec<Record>,
    paused_by_machine: bool,
    paused_by_back_pressure: bool,
    /// Unassigned for now; what librdkafka had fetched ahead is fetched again.
    paused: bool,
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::line("reader", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error("reader", &error, reason);
    }
}

impl ConsumerContext for Context {}

impl Reader {
    pub(super) fn new(config: &ClientConfig, decoder: RecordDecoder) -> KafkaResult<Self> {
        let mut config = config.clone();
        config.set("queued.min.messages", READ_AHEAD_RECORDS).set("fetch.message.max.bytes", FETCH_BYTES);
        let clients =
            Supervised::new("reader", move || BaseConsumer::from_config_and_context(&config, Context))?;
        Ok(Self { consumer: clients.current_owned(), clients, decoder, partitions: BTreeMap::new() })
    }

    /// Continues with the client that replaced the previous one, from the same offsets.
    fn switch_to_current_client(&mut self) {
        if self.clients.is_current(&self.consumer) {
            return;
        }
        self.consumer = self.clients.current_owned();
        for (partition, state) in std::mem::take(&mut self.partitions) {
            self.begin(Partition(partition), ReadState { paused: false, ..state });
        }
    }

    /// Looks up the leaders and connects to them: the first fetch of a partition that is taken over later needs neither.
    pub(super) fn find_leaders(&self) {
        let found = self.consumer.fetch_metadata(Some(REQUESTS), FIND_LEADERS_TIMEOUT).and_then(|metadata| {
            let topic = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
            let partitions: Vec<Partition> = topic.iter().map(|found| Partition(found.id())).collect();
            bounds(&self.consumer, &partitions, KafkaOffset::End, FIND_LEADERS_TIMEOUT)
        });
        if let Err(error) = found {
            tracing::debug!(%error, "leaders not looked up ahead: the first fetch does it");
        }
    }

    pub(super) fn start(&mut self, partition: Partition, from: Offset, delivery: Delivery) {
        self.end(partition);
        let state = ReadState {
            delivery,
            next: from,
            chunk: Vec::new(),
            paused_by_machine: false,
            paused_by_back_pressure: false,
            paused: false,
        };
        self.begin(partition, state);
    }

    pub(super) fn restart(&mut self, partition: Partition, ownership: Ownership) {
        if self.state(partition, ownership).is_some()
            && let Some(mut state) = self.end(partition)
        {
            state.paused = false;
            self.begin(partition, state);
        }
    }

    pub(super) fn stop(&mut self, partition: Partition, ownership: Ownership) {
        if self.state(partition, ownership).is_some() {
            drop(self.end(partition));
        }
    }

    pub(super) fn set_paused(&mut self, partition: Partition, ownership: Ownership, paused: bool) {
        if let Some(state) = self.state(partition, ownership) {
            state.paused_by_machine = paused;
            apply_pause(&self.consumer, partition.0, self.partitions.get_mut(&partition.0));
        }
    }

    /// Every owner checks its log again.
    pub(super) fn revalidate_all(&self, cause: &str) {
        for state in self.partitions.values() {
            state.delivery.send(Fetched::Revalidate(cause.to_owned()));
        }
    }

    /// The state of a partition if it belongs to this ownership: commands of an earlier one are ignored.
    fn state(&mut self, partition: Partition, ownership: Ownership) -> Option<&mut ReadState> {
        self.partitions.get_mut(&partition.0).filter(|state| state.delivery.ownership == ownership)
    }

    /// Starts reading a partition, without interrupting the others.
    fn begin(&mut self, partition: Partition, state: ReadState) {
        if let Err(error) = assign(&self.consumer, partition.0, state.next) {
            let text = format!("partition {partition} cannot be read from offset {}: {error}", state.next);
            state.delivery.send(Fetched::Stop(text));
            return;
        }
        drop(self.partitions.insert(partition.0, state));
        apply_pause(&self.consumer, partition.0, self.partitions.get_mut(&partition.0));
    }

    fn end(&mut self, partition: Partition) -> Option<ReadState> {
        let state = self.partitions.remove(&partition.0)?;
        if !state.paused
            && let Err(error) = unassign(&self.consumer, partition.0)
        {
            tracing::warn!(%partition, %error, "cannot unassign the partition from the reader");
        }
        Some(state)
    }

    /// Reads and delivers available records; waits at most `wait` for the first.
    pub(super) fn read(&mut self, mut wait: Duration) {
        self.switch_to_current_client();
        for _ in 0..ROUND_RECORDS {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    if let Some(state) = self.partitions.get_mut(&message.partition()) {
                        state.take(&self.decoder, &message);
                    }
                }
                Some(Err(error)) => report_error(&self.partitions, &error),
            }
            wait = Duration::ZERO;
        }
        for (partition, state) in &mut self.partitions {
            state.deliver_chunk();
            let count = state.delivery.in_flight.count();
            let limit = if state.paused_by_back_pressure { IN_FLIGHT_LOW } else { IN_FLIGHT_HIGH };
            let paused = count > limit;
            if paused != state.paused_by_back_pressure {
                state.paused_by_back_pressure = paused;
                apply_pause(&self.consumer, *partition, Some(state));
            }
        }
    }
}

/// librdkafka's errors do not name their partition. After an error that may have ended reading, every owner checks its
/// log again; librdkafka recovers from all others by itself.
fn report_error(partitions: &BTreeMap<i32, ReadState>, error: &KafkaError) {
    client_log::error("reader", error, "while reading");
    let may_end_reading = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
        )
    );
    if may_end_reading {
        for state in partitions.values() {
            state.delivery.send(Fetched::Revalidate(error.to_string()));
        }
    }
}

/// Pauses a partition, or resumes it at its next offset, according to its flags.
///
/// It changes the assignment and does not call `pause` and `resume`: librdkafka's thread notices a `resume` only when
/// something else wakes it, up to a second later, and a backlog that makes its owner pause and resume all the time is
/// read at a fraction of its speed.
fn apply_pause(consumer: &BaseConsumer<Context>, partition: i32, state: Option<&mut ReadState>) {
    let Some(state) = state else { return };
    let paused = state.paused_by_machine || state.paused_by_back_pressure;
    if paused == state.paused {
        return;
    }
    let result = if paused { unassign(consumer, partition) } else { assign(consumer, partition, state.next) };
    match result {
        Ok(()) => state.paused = paused,
        Err(error) => tracing::warn!(partition, %error, paused, "cannot pause or resume the partition"),
    }
}

fn assign(consumer: &BaseConsumer<Context>, partition: i32, from: Offset) -> KafkaResult<()> {
    consumer.incremental_assign(&one(partition, KafkaOffset::Offset(from.0))?)
}

fn unassign(consumer: &BaseConsumer<Context>, partition: i32) -> KafkaResult<()> {
    consumer.incremental_unassign(&one(partition, KafkaOffset::Invalid)?)
}

fn one(partition: i32, offset: KafkaOffset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(REQUESTS, partition, offset)?;
    Ok(list)
}

impl ReadState {
    fn take(&mut self, decoder: &RecordDecoder, message: &BorrowedMessage<'_>) {
        let offset = Offset(message.offset());
        if offset < self.next {
            return;
        }
        let Timestamp::LogAppendTime(appended) = message.timestamp() else {
            self.stop_without_append_time(message);
            return;
        };
        let partition = Partition(message.partition());
        let raw =
            RawRecord { offset, appended: Millis(appended), key: message.key(), value: message.payload() };
        match decoder.record(partition, &raw, || headers_of(message)) {
            Ok(record) => {
                self.chunk.push(record);
                if self.chunk.len() >= CHUNK_RECORDS {
                    self.deliver_chunk();
                }
            }
            Err(schema) => {
                self.deliver_chunk();
                self.delivery.in_flight.add(1);
                self.delivery.send(Fetched::Undecoded(raw.to_owned_record(schema, headers_of(message))));
            }
        }
        self.next = offset.next();
    }

    /// Without the broker's append time no deadline can be kept: the partition waits for an operator.
    fn stop_without_append_time(&mut self, message: &BorrowedMessage<'_>) {
        self.deliver_chunk();
        let text = format!(
            "the record at offset {} of {REQUESTS}, partition {}, has no LogAppendTime: set \
             message.timestamp.type=LogAppendTime on the topic; records before it are not affected",
            message.offset(),
            message.partition()
        );
        self.delivery.send(Fetched::Stop(text));
        self.next = Offset(i64::MAX); // Records that are queued behind it are not delivered.
    }

    fn deliver_chunk(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.delivery.in_flight.add(chunk.len());
        self.delivery.send(Fetched::Records(chunk));
    }
}

impl Delivery {
    /// A driver that has ended receives nothing; its stop command follows.
    fn send(&self, fetched: Fetched) {
        drop(self.events.send(DriverEvent::Fetched(fetched)));
    }
}

fn headers_of<'a>(message: &'a BorrowedMessage<'_>) -> RequestHeaders<'a> {
    let Some(headers) = message.headers() else { return RequestHeaders::default() };
    let find = |name| headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    RequestHeaders { request_id: find(HEADER_REQUEST_ID), user_id: find(HEADER_USER_ID) }
}
