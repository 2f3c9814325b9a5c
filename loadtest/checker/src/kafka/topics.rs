//! Offsets, and all records of a topic up to end offsets that were read before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The commit metadata with which an owner commits its partition's write number.
const WRITE_NO: &str = "write_no=";
/// The time limit for the next record, while records are missing.
const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

/// Why topics could not be read.
#[derive(Debug, Error)]
pub enum TopicReadError {
    /// An error of Kafka, or of the connection to it.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Records are missing, and no more arrive.
    #[error(
        "{topic} has records up to offset {end} in partition {partition}, but none has arrived for {RECORD_TIMEOUT:?}"
    )]
    Stalled {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// The high watermark to read up to.
        end: i64,
    },
}

/// The records that a partition holds: from the first one that retention has kept to the high watermark (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// The records of a topic, by partition.
pub(crate) type OffsetRanges = BTreeMap<i32, OffsetRange>;

/// The committed position of a group in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// The write number of the partition's row at that time, from the commit metadata.
    pub(crate) write_no: Option<i64>,
}

/// Whether an offset lies before the end of its partition.
pub(crate) fn is_before_end(ranges: &OffsetRanges, partition: i32, offset: i64) -> bool {
    ranges.get(&partition).is_some_and(|range| offset < range.end)
}

/// A Kafka cluster. Every method opens a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Kafka {
    brokers: String,
}

impl Kafka {
    pub(crate) fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned() }
    }

    fn config(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "stampede-checker")
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.error.backoff.ms", "50")
            .set("queued.min.messages", "200000")
            .set("reconnect.backoff.max.ms", "500")
            .set("log.connection.close", "false");
        config
    }

    /// The records that these topics hold now.
    pub(crate) fn ranges<const N: usize>(&self, topics: [&str; N]) -> KafkaResult<[OffsetRanges; N]> {
        let consumer: BaseConsumer = self.config("stampede-checker").create()?;
        retry(|| {
            let mut ranges = topics.map(|_| OffsetRanges::new());
            for (topic, ranges) in topics.into_iter().zip(&mut ranges) {
                *ranges = ranges_of(&consumer, topic)?;
            }
            Ok(ranges)
        })
    }

    /// The positions that a group has committed, by partition.
    pub(crate) fn committed(&self, group: &str, topic: &str) -> KafkaResult<BTreeMap<i32, Committed>> {
        let consumer: BaseConsumer = self.config(group).create()?;
        retry(|| committed(&consumer, topic))
    }

    /// Passes every record of these ranges to `each`; the records of a partition in order.
    pub(crate) fn read(
        &self,
        topic: &str,
        ranges: &OffsetRanges,
        mut each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), TopicReadError> {
        let not_empty = ranges.iter().filter(|(_, range)| range.start < range.end);
        let mut missing: OffsetRanges = not_empty.map(|(partition, range)| (*partition, *range)).collect();
        let consumer: BaseConsumer = self.config("stampede-checker").create()?;
        let mut list = TopicPartitionList::new();
        for (partition, range) in &missing {
            list.add_partition_offset(topic, *partition, Offset::Offset(range.start))?;
        }
        consumer.assign(&list)?;
        let mut last = Instant::now();
        while let Some((partition, range)) = missing.first_key_value() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    last = Instant::now();
                    let Some(range) = missing.get(&record.partition()).copied() else { continue };
                    if record.offset() < range.end {
                        each(&record);
                    }
                    if record.offset() + 1 >= range.end {
                        missing.remove(&record.partition());
                    }
                }
                // The partition ends here. Missing records before its end were compacted away.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(missing.remove(&partition)),
                Some(Err(error)) if is_transient(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None if last.elapsed() < RECORD_TIMEOUT => {}
                None => {
                    let topic = topic.to_owned();
                    return Err(TopicReadError::Stalled { topic, partition: *partition, end: range.end });
                }
            }
        }
        Ok(())
    }
}

/// Retries on every error: for some time after a start, a new topic or a new group coordinator, a broker returns errors.
fn retry<T>(request: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let until = Instant::now() + REQUEST_TIMEOUT;
    loop {
        match request() {
            Err(_) if Instant::now() < until => std::thread::sleep(RETRY_INTERVAL),
            result => return result,
        }
    }
}

fn committed(consumer: &BaseConsumer, topic: &str) -> KafkaResult<BTreeMap<i32, Committed>> {
    let mut list = TopicPartitionList::new();
    for partition in ranges_of(consumer, topic)?.keys() {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, REQUEST_TIMEOUT)?;
    let elements = committed.elements();
    let positions = elements.iter().filter_map(|element| {
        let Offset::Offset(offset) = element.offset() else { return None };
        let write_no = element.metadata().strip_prefix(WRITE_NO).and_then(|number| number.parse().ok());
        Some((element.partition(), Committed { offset, write_no }))
    });
    Ok(positions.collect())
}

fn ranges_of(consumer: &BaseConsumer, topic: &str) -> KafkaResult<OffsetRanges> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    if let Some(error) = metadata.topics().iter().find_map(|topic| topic.error()) {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let mut ranges = OffsetRanges::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (start, end) = consumer.fetch_watermarks(topic, partition.id(), REQUEST_TIMEOUT)?;
        ranges.insert(partition.id(), OffsetRange { start, end });
    }
    Ok(ranges)
}

/// librdkafka recovers from these by itself.
fn is_transient(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
        )
    )
}

/// A header as text.
pub(crate) fn header<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let header = record.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}
