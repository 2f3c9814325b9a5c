//! The client that fetches. It is told what to read and from where; nothing that it knows about offsets outlives an
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
use runtime::supervised::{Supervised, SupervisedClient};
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};

use super::{Delivery, Fetched};
use crate::decode::{Asker, Decode, Raw};
use crate::driver::Wake;
use crate::inspector::bounds;
use crate::kafka_log;
use crate::seams::Ownership;

/// Records handed over at once at most: what a task takes in between two looks at its other inputs.
const CHUNK: usize = 500;
/// Records between two looks at the commands.
const ROUND: usize = 2_000;
/// Records on their way to one task at which its partition is held back …
const IN_FLIGHT_HIGH: usize = 10_000;
/// … and at which it goes on.
const IN_FLIGHT_LOW: usize = 2_000;

/// So many records librdkafka fetches ahead of those that it has handed out, and so many bytes of a partition at once.
/// Little: while a backlog is worked off, a partition is held back whenever its owner is slower than the reader, and
/// whatever was fetched ahead of it is thrown away then, and fetched, checked and unpacked again.
const AHEAD_RECORDS: &str = "2000";
const FETCH_BYTES: &str = "262144";

/// How long looking for leaders ahead may take.
const AHEAD: Duration = Duration::from_secs(2);

pub(super) struct Reader {
    clients: Arc<Supervised<BaseConsumer<Context>>>,
    consumer: Arc<BaseConsumer<Context>>,
    decode: Decode,
    readings: BTreeMap<i32, Reading>,
}

/// One partition that is being read.
struct Reading {
    delivery: Delivery,
    /// The first offset not delivered yet.
    next: Offset,
    chunk: Vec<Record>,
    held_by_machine: bool,
    held_by_flight: bool,
    /// Not assigned for now; what librdkafka had fetched is fetched again.
    held: bool,
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka_log::line("reader", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka_log::error("reader", &error, reason);
    }
}

impl ConsumerContext for Context {}

impl Reader {
    pub(super) fn new(config: &ClientConfig, decode: Decode) -> KafkaResult<Self> {
        let mut config = config.clone();
        config.set("queued.min.messages", AHEAD_RECORDS).set("fetch.message.max.bytes", FETCH_BYTES);
        let clients =
            Supervised::new("reader", move || BaseConsumer::from_config_and_context(&config, Context))?;
        Ok(Self { consumer: clients.current_owned(), clients, decode, readings: BTreeMap::new() })
    }

    /// The client, to be watched.
    pub(super) fn watched(&self) -> Arc<dyn SupervisedClient> {
        self.clients.as_supervised()
    }

    /// Goes on with the client that took the place of the one before, from where that one stood.
    fn follow_renewal(&mut self) {
        if self.clients.is_current(&self.consumer) {
            return;
        }
        self.consumer = self.clients.current_owned();
        for (partition, reading) in std::mem::take(&mut self.readings) {
            self.begin(Partition(partition), Reading { held: false, ..reading });
        }
    }

    /// Finds the leaders and connects to them: a partition that is taken over later is fetched at once.
    pub(super) fn find_leaders(&self) {
        let found = self.consumer.fetch_metadata(Some(REQUESTS), AHEAD).and_then(|metadata| {
            let topic = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
            let partitions: Vec<Partition> = topic.iter().map(|found| Partition(found.id())).collect();
            bounds(&self.consumer, &partitions, KafkaOffset::End, AHEAD)
        });
        if let Err(error) = found {
            tracing::debug!(%error, "the leaders are not known ahead: the first fetch looks for them");
        }
    }

    pub(super) fn start(&mut self, partition: Partition, from: Offset, delivery: Delivery) {
        self.end(partition);
        let reading = Reading {
            delivery,
            next: from,
            chunk: Vec::new(),
            held_by_machine: false,
            held_by_flight: false,
            held: false,
        };
        self.begin(partition, reading);
    }

    pub(super) fn restart(&mut self, partition: Partition, ownership: Ownership) {
        if self.reading(partition, ownership).is_some()
            && let Some(mut reading) = self.end(partition)
        {
            reading.held = false;
            self.begin(partition, reading);
        }
    }

    pub(super) fn stop(&mut self, partition: Partition, ownership: Ownership) {
        if self.reading(partition, ownership).is_some() {
            drop(self.end(partition));
        }
    }

    pub(super) fn hold(&mut self, partition: Partition, ownership: Ownership, held: bool) {
        if let Some(reading) = self.reading(partition, ownership) {
            reading.held_by_machine = held;
            apply_hold(&self.consumer, partition.0, self.readings.get_mut(&partition.0));
        }
    }

    /// Every owner looks at its log again.
    pub(super) fn doubt_all(&self, why: &str) {
        for reading in self.readings.values() {
            reading.delivery.send(Fetched::Doubt(why.to_owned()));
        }
    }

    /// The reading of a partition, if it belongs to this ownership: a late order changes nothing.
    fn reading(&mut self, partition: Partition, ownership: Ownership) -> Option<&mut Reading> {
        self.readings.get_mut(&partition.0).filter(|reading| reading.delivery.ownership == ownership)
    }

    /// Adds a partition to what is read. Others go on undisturbed.
    fn begin(&mut self, partition: Partition, reading: Reading) {
        if let Err(error) = assign(&self.consumer, partition.0, reading.next) {
            let text = format!("partition {partition} cannot be read from offset {}: {error}", reading.next);
            reading.delivery.send(Fetched::Unreadable(text));
            return;
        }
        drop(self.readings.insert(partition.0, reading));
        apply_hold(&self.consumer, partition.0, self.readings.get_mut(&partition.0));
    }

    fn end(&mut self, partition: Partition) -> Option<Reading> {
        let reading = self.readings.remove(&partition.0)?;
        if !reading.held
            && let Err(error) = unassign(&self.consumer, partition.0)
        {
            tracing::warn!(%partition, %error, "the reader does not let go of a partition");
        }
        Some(reading)
    }

    /// Reads what is there, waiting at most `wait` for the first record, and hands it over.
    pub(super) fn read(&mut self, mut wait: Duration) {
        self.follow_renewal();
        for _ in 0..ROUND {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    if let Some(reading) = self.readings.get_mut(&message.partition()) {
                        reading.take(&self.decode, &message);
                    }
                }
                Some(Err(error)) => doubt(&self.readings, &error),
            }
            wait = Duration::ZERO;
        }
        for (partition, reading) in &mut self.readings {
            reading.hand_over();
            let count = reading.delivery.in_flight.count();
            let held = if reading.held_by_flight { count > IN_FLIGHT_LOW } else { count > IN_FLIGHT_HIGH };
            if held != reading.held_by_flight {
                reading.held_by_flight = held;
                apply_hold(&self.consumer, *partition, Some(reading));
            }
        }
    }
}

/// Errors do not say which partition they are about. Where reading may have ended for good, every owner looks at its
/// log again; the rest librdkafka gets over by itself.
fn doubt(readings: &BTreeMap<i32, Reading>, error: &KafkaError) {
    kafka_log::error("reader", error, "while reading");
    let grave = matches!(
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
    if grave {
        for reading in readings.values() {
            reading.delivery.send(Fetched::Doubt(error.to_string()));
        }
    }
}

/// Holds a partition back, or lets it go on where it stands, as its holds say.
///
/// By its assignment, not by `pause` and `resume`: librdkafka's thread learns of a `resume` only when something else
/// wakes it, up to a second later, and a backlog that makes its owner hold and go on all the time is read at a
/// fraction of its speed.
fn apply_hold(consumer: &BaseConsumer<Context>, partition: i32, reading: Option<&mut Reading>) {
    let Some(reading) = reading else { return };
    let wanted = reading.held_by_machine || reading.held_by_flight;
    if wanted == reading.held {
        return;
    }
    let done = if wanted { unassign(consumer, partition) } else { assign(consumer, partition, reading.next) };
    match done {
        Ok(()) => reading.held = wanted,
        Err(error) => tracing::warn!(partition, %error, wanted, "a partition cannot be held or go on"),
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

impl Reading {
    fn take(&mut self, decode: &Decode, message: &BorrowedMessage<'_>) {
        let offset = Offset(message.offset());
        if offset < self.next {
            return;
        }
        let Timestamp::LogAppendTime(appended) = message.timestamp() else {
            self.no_append_time(message);
            return;
        };
        let partition = Partition(message.partition());
        let raw = Raw { offset, appended: Millis(appended), key: message.key(), value: message.payload() };
        match decode.record(partition, &raw, || asker_of(message)) {
            Ok(record) => {
                self.chunk.push(record);
                if self.chunk.len() >= CHUNK {
                    self.hand_over();
                }
            }
            Err(schema) => {
                self.hand_over();
                self.delivery.in_flight.add(1);
                self.delivery.send(Fetched::Undecoded(raw.waiting_for(schema, asker_of(message))));
            }
        }
        self.next = offset.next();
    }

    /// Without the broker's time no deadline can be kept: the partition waits for an operator.
    fn no_append_time(&mut self, message: &BorrowedMessage<'_>) {
        self.hand_over();
        let text = format!(
            "the record at offset {} of {REQUESTS}, partition {}, has no LogAppendTime: set \
             message.timestamp.type=LogAppendTime on the topic; records before it keep what they have",
            message.offset(),
            message.partition()
        );
        self.delivery.send(Fetched::Unreadable(text));
        self.next = Offset(i64::MAX); // Whatever is still in the queue is not delivered.
    }

    fn hand_over(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.delivery.in_flight.add(chunk.len());
        self.delivery.send(Fetched::Records(chunk));
    }
}

impl Delivery {
    /// A task that is gone gets nothing more; its partition is stopped by an order that is under way.
    fn send(&self, fetched: Fetched) {
        drop(self.wakes.send(Wake::Fetched(fetched)));
    }
}

fn asker_of<'a>(message: &'a BorrowedMessage<'_>) -> Asker<'a> {
    let Some(headers) = message.headers() else { return Asker::default() };
    let find = |name| headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    Asker { request_id: find(HEADER_REQUEST_ID), user_id: find(HEADER_USER_ID) }
}
