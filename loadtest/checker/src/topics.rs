//! Kafka as of one moment: every record from a topic's beginning up to marks that were read before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How an owner writes its partition's write number beside the offset that it commits.
const WRITE_NO: &str = "write_no=";
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(200);
/// How long nothing may come while records are missing.
const RECORD_WITHIN: Duration = Duration::from_secs(60);

/// Why topics could not be read.
#[derive(Debug, Error)]
pub enum TopicsUnread {
    /// What Kafka, or the way to it, reports.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Nothing comes any more.
    #[error(
        "{topic} has records up to {to} in partition {partition}, and nothing has come for {RECORD_WITHIN:?}"
    )]
    Stalled {
        /// Which topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// The high watermark that was to be reached.
        to: i64,
    },
}

/// The records of one partition that are there: from the first one kept to before the high watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) to: i64,
}

/// The spans of a topic, by partition.
pub(super) type Spans = BTreeMap<i32, Span>;

/// What a group has committed of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: i64,
    /// The write number of the partition's row then, which its owner commits beside the offset.
    pub(super) write_no: Option<i64>,
}

/// Whether an offset lies before the end of these spans.
pub(super) fn covers(spans: &Spans, partition: i32, offset: i64) -> bool {
    spans.get(&partition).is_some_and(|span| offset < span.to)
}

/// Where to read.
#[derive(Clone, Debug)]
pub(super) struct Kafka {
    brokers: String,
}

impl Kafka {
    pub(super) fn new(brokers: &str) -> Self {
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

    /// What is in these topics now.
    pub(super) fn spans(&self, topics: &[&str]) -> KafkaResult<Vec<Spans>> {
        let consumer: BaseConsumer = self.config("stampede-checker").create()?;
        patiently(|| topics.iter().map(|topic| spans_of(&consumer, topic)).collect())
    }

    /// What a group has committed.
    pub(super) fn committed(&self, group: &str, topic: &str) -> KafkaResult<BTreeMap<i32, Committed>> {
        let consumer: BaseConsumer = self.config(group).create()?;
        patiently(|| committed(&consumer, topic))
    }

    /// Hands every record of these spans to `each`, in the order of its partition.
    pub(super) fn read(
        &self,
        topic: &str,
        spans: &Spans,
        mut each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), TopicsUnread> {
        let mut missing: Spans =
            spans.iter().filter(|(_, span)| span.from < span.to).map(|(p, s)| (*p, *s)).collect();
        let consumer: BaseConsumer = self.config("stampede-checker").create()?;
        let mut list = TopicPartitionList::new();
        for (partition, span) in &missing {
            list.add_partition_offset(topic, *partition, Offset::Offset(span.from))?;
        }
        consumer.assign(&list)?;
        let mut last = Instant::now();
        while let Some((partition, span)) = missing.first_key_value() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    last = Instant::now();
                    let Some(span) = missing.get(&record.partition()).copied() else { continue };
                    if record.offset() < span.to {
                        each(&record);
                    }
                    if record.offset() + 1 >= span.to {
                        missing.remove(&record.partition());
                    }
                }
                // The end lies behind the mark, or at it: what is missing before it was compacted away.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(missing.remove(&partition)),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None if last.elapsed() < RECORD_WITHIN => {}
                None => {
                    let topic = topic.to_owned();
                    return Err(TopicsUnread::Stalled { topic, partition: *partition, to: span.to });
                }
            }
        }
        Ok(())
    }
}

/// A broker that has just started, or has just made a topic or the group's coordinator, says so for a while.
fn patiently<T>(ask: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let until = Instant::now() + ANSWER_WITHIN;
    loop {
        match ask() {
            Err(_) if Instant::now() < until => std::thread::sleep(BETWEEN_QUESTIONS),
            answer => return answer,
        }
    }
}

fn committed(consumer: &BaseConsumer, topic: &str) -> KafkaResult<BTreeMap<i32, Committed>> {
    let mut list = TopicPartitionList::new();
    for partition in spans_of(consumer, topic)?.keys() {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, ANSWER_WITHIN)?;
    let elements = committed.elements();
    let of_element = elements.iter().filter_map(|element| {
        let Offset::Offset(offset) = element.offset() else { return None };
        let write_no = element.metadata().strip_prefix(WRITE_NO).and_then(|number| number.parse().ok());
        Some((element.partition(), Committed { offset, write_no }))
    });
    Ok(of_element.collect())
}

fn spans_of(consumer: &BaseConsumer, topic: &str) -> KafkaResult<Spans> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    if let Some(error) = metadata.topics().iter().find_map(|topic| topic.error()) {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let mut spans = Spans::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (from, to) = consumer.fetch_watermarks(topic, partition.id(), ANSWER_WITHIN)?;
        spans.insert(partition.id(), Span { from, to });
    }
    Ok(spans)
}

/// librdkafka goes on by itself after these.
fn is_passing(error: &KafkaError) -> bool {
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
pub(super) fn header<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let header = record.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}
