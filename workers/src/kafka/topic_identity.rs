//! The identity (topic id) that Kafka gives `coupon.requests` when it is created, compared with the one that Postgres has
//! recorded.
//!
//! A topic that was deleted and recreated has the same name and, after a while, the same offsets. librdkafka then
//! continues at the old offset in the new log without an error; only the topic id differs. librdkafka has no safe way to
//! request it, so this module sends one request of Kafka's protocol itself (Metadata, version 12, brokers from 3.0).
//!
//! Guarantees: an identity that cannot be determined is [`Identity::Unknown`] and stops no partition (the digest of the
//! last record and the log's bounds are still compared); no length sent by the other side is trusted.

use std::sync::mpsc::Sender;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use coupon_core::ids::Partition;
use schemas::topics::REQUESTS;

use crate::kafka::consumer::Command;

/// How often a running worker checks. A topic that was recreated *and* has outgrown the old offsets within this time may
/// be read unnoticed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Consecutive checks without the topic after which it counts as deleted: a broker that has just started may not have
/// its metadata yet.
const CHECKS_UNTIL_DELETED: u32 = 5;
/// Timeout of one broker.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Upper bound of a response about one topic.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;
const METADATA: i16 = 3;
const VERSION: i16 = 12;
const CORRELATION_ID: i32 = 7;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// The identity of a topic, as Kafka returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The topic's id.
    Known(Uuid),
    /// There is no such topic.
    Deleted,
    /// No broker responded, or the broker is too old to return it.
    Unknown,
}

/// Requests identities from Kafka, and records in Postgres to which topic each partition's offsets belong.
#[derive(Clone, Debug)]
pub struct Identities {
    brokers: String,
    pool: PgPool,
}

impl Identities {
    /// `brokers`: host:port, comma-separated.
    #[must_use]
    pub const fn new(brokers: String, pool: PgPool) -> Self {
        Self { brokers, pool }
    }

    /// The current identity of `coupon.requests`, requested from all brokers. The topic exists if any broker reports it;
    /// it is deleted if every broker that responds reports that: a broker that has just started, or is cut off from the
    /// others, may not have the metadata of the topic.
    pub async fn current(&self) -> Identity {
        let brokers = self.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        let mut responses: FuturesUnordered<_> = brokers.map(request_from).collect();
        let mut identity = Identity::Unknown;
        while let Some(response) = responses.next().await {
            match response {
                Identity::Known(_) => return response,
                Identity::Deleted => identity = Identity::Deleted,
                Identity::Unknown => {}
            }
        }
        identity
    }

    /// The identity to which a partition's offsets belong; `None` if none was recorded.
    ///
    /// # Errors
    /// What Postgres reports.
    pub async fn recorded(&self, partition: Partition) -> Result<Option<Uuid>, sqlx::Error> {
        sqlx::query_scalar("select topic_id from stampede.partition_topics where partition = $1")
            .bind(partition.0)
            .fetch_optional(&self.pool)
            .await
    }

    /// Records the identity at the first takeover; one that is recorded already stays.
    ///
    /// # Errors
    /// What Postgres reports.
    pub async fn record(&self, partition: Partition, topic_id: Uuid) -> Result<(), sqlx::Error> {
        let sql = "insert into stampede.partition_topics (partition, topic_id) values ($1, $2) on conflict do nothing";
        sqlx::query(sql).bind(partition.0).bind(topic_id).execute(&self.pool).await.map(drop)
    }
}

/// Checks the identity periodically; when it changes, every owner checks its log again. Never returns.
pub async fn watch(identities: Identities, commands: Sender<Command>) {
    let (mut known, mut checks_without_topic) = (None, 0);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        checks_without_topic = match identities.current().await {
            Identity::Known(id) => {
                if known.replace(id).is_some_and(|before| before != id) {
                    let reason = format!("the identity of topic {REQUESTS} has changed to {id}");
                    drop(commands.send(Command::Revalidate(reason)));
                }
                0
            }
            Identity::Deleted => checks_without_topic + 1,
            Identity::Unknown => 0,
        };
        if checks_without_topic == CHECKS_UNTIL_DELETED {
            drop(commands.send(Command::Revalidate(format!("topic {REQUESTS} does not exist"))));
        }
    }
}

/// Whether the topic is the one that Postgres has recorded.
///
/// # Errors
/// The mismatch, for an operator.
pub fn verify(partition: Partition, current: Identity, recorded: Option<Uuid>) -> Result<(), String> {
    match (current, recorded) {
        (Identity::Known(current), Some(recorded)) if current != recorded => Err(format!(
            "partition {partition} of {REQUESTS} was recreated: its topic id is {current}, and the decisions in \
             Postgres belong to {recorded}; records of the old topic that are not decided are lost, and nothing is decided \
             without workers repair"
        )),
        (Identity::Deleted, Some(_)) => Err(format!(
            "topic {REQUESTS} was deleted: nothing is decided in partition {partition} until the topic exists again \
             and workers repair names the offset to continue from"
        )),
        _ => Ok(()),
    }
}

async fn request_from(broker: &str) -> Identity {
    match tokio::time::timeout(TIMEOUT, request(broker, REQUESTS)).await {
        Ok(Ok(identity)) => identity,
        Ok(Err(error)) => {
            tracing::debug!(broker, %error, "cannot request the topic's identity");
            Identity::Unknown
        }
        Err(_) => {
            tracing::debug!(broker, "request for the topic's identity timed out");
            Identity::Unknown
        }
    }
}

async fn request(broker: &str, topic: &str) -> std::io::Result<Identity> {
    let mut stream = TcpStream::connect(broker).await?;
    stream.write_all(&encode_request(topic)).await?;
    let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
    if length > MAX_RESPONSE_BYTES {
        return Err(std::io::Error::other(format!("a response of {length} bytes")));
    }
    let mut response = Vec::new();
    stream.take(length as u64).read_to_end(&mut response).await?;
    Ok(Response(&response).identity().unwrap_or(Identity::Unknown))
}

/// A Metadata request, version 12, for one topic by name.
fn encode_request(topic: &str) -> Vec<u8> {
    let client = b"stampede-identity";
    let mut body = Vec::with_capacity(64 + topic.len());
    body.extend(METADATA.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(CORRELATION_ID.to_be_bytes());
    body.extend((client.len() as i16).to_be_bytes());
    body.extend(client);
    body.push(0); // No tagged fields in the header.
    body.push(2); // One topic: compact arrays and strings encode their length plus one.
    body.extend([0; 16]); // By name, not by id.
    body.push(u8::try_from(topic.len() + 1).unwrap_or(0));
    body.extend(topic.as_bytes());
    body.extend([0, 0, 0, 0]); // No tags; no auto-creation; no authorized operations; no tags.
    let length = (body.len() as i32).to_be_bytes();
    [&length[..], &body].concat()
}

/// The unread rest of a Metadata response, version 12.
struct Response<'a>(&'a [u8]);

impl<'a> Response<'a> {
    /// `None` if the bytes are not such a response.
    fn identity(mut self) -> Option<Identity> {
        if self.int()? != CORRELATION_ID {
            return None;
        }
        self.tags()?;
        self.int()?; // Throttle time.
        for _ in 1..self.varint()? {
            self.int()?;
            self.text()?;
            self.int()?;
            self.text()?;
            self.tags()?;
        }
        self.text()?; // The cluster.
        self.int()?; // Its controller.
        if self.varint()? != 2 {
            return None; // The request names one topic.
        }
        let error = i16::from_be_bytes(self.bytes(2)?.try_into().ok()?);
        self.text()?;
        let id = Uuid::from_slice(self.bytes(16)?).ok()?;
        Some(match error {
            UNKNOWN_TOPIC_OR_PARTITION => Identity::Deleted,
            0 if !id.is_nil() => Identity::Known(id),
            _ => Identity::Unknown,
        })
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.bytes(1)?.first()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A compact string, which may be null.
    fn text(&mut self) -> Option<()> {
        let length = self.varint()?.saturating_sub(1);
        self.bytes(usize::try_from(length).ok()?).map(drop)
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.bytes(usize::try_from(length).ok()?)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [9; 16];

    /// As a broker encodes it: one broker, one topic, and fields that are not read.
    fn response(error: i16, id: [u8; 16]) -> Vec<u8> {
        let mut bytes = CORRELATION_ID.to_be_bytes().to_vec();
        bytes.extend([1, 5, 2, 0xaa, 0xbb]); // An unknown tagged field.
        bytes.extend(0_i32.to_be_bytes());
        bytes.push(2);
        bytes.extend(1_i32.to_be_bytes());
        bytes.extend(b"\x0alocalhost");
        bytes.extend(9092_i32.to_be_bytes());
        bytes.extend([0, 0]); // No rack, no tags.
        bytes.extend(b"\x08cluster");
        bytes.extend(1_i32.to_be_bytes());
        bytes.push(2);
        bytes.extend(error.to_be_bytes());
        bytes.extend(b"\x02t");
        bytes.extend(id);
        bytes.extend(b"whatever follows");
        bytes
    }

    #[test]
    fn the_identity_is_read_from_a_brokers_response() {
        assert_eq!(Response(&response(0, ID)).identity(), Some(Identity::Known(Uuid::from_bytes(ID))));
        assert_eq!(Response(&response(3, [0; 16])).identity(), Some(Identity::Deleted));
        assert_eq!(
            Response(&response(5, ID)).identity(),
            Some(Identity::Unknown),
            "for example no leader yet"
        );
        assert_eq!(
            Response(&response(0, [0; 16])).identity(),
            Some(Identity::Unknown),
            "a broker without topic ids"
        );
    }

    /// A broker that responds to one request with these bytes, after a while; returns its address.
    async fn broker(response: Vec<u8>, delay: Duration) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number").to_string();
        drop(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::time::sleep(delay).await;
            let length = i32::try_from(response.len()).expect("a short response").to_be_bytes();
            stream.write_all(&[&length[..], &response].concat()).await.expect("a reader");
        }));
        address
    }

    #[tokio::test]
    async fn a_topic_exists_if_any_broker_reports_it_and_is_deleted_if_all_report_that() {
        let pool = runtime::postgres::pool("postgres://user@127.0.0.1:1/none".parse().expect("a URL"), 1);
        let (soon, later) = (Duration::ZERO, Duration::from_millis(200));
        let (present, deleted) = (response(0, ID), response(3, [0; 16]));
        let brokers = [broker(deleted.clone(), soon).await, broker(present, later).await];
        let identities = Identities::new(brokers.join(","), pool.clone());
        assert_eq!(identities.current().await, Identity::Known(Uuid::from_bytes(ID)));
        let brokers = [broker(deleted.clone(), soon).await, broker(deleted, later).await];
        let identities = Identities::new(brokers.join(","), pool);
        assert_eq!(identities.current().await, Identity::Deleted);
    }

    #[test]
    fn a_truncated_or_malformed_response_is_rejected_without_a_panic() {
        let whole = response(0, ID);
        let topic_ends = whole.len() - b"whatever follows".len();
        for end in 0..topic_ends {
            assert_eq!(Response(&whole[..end]).identity(), None, "truncated at {end}");
        }
        assert_eq!(Response(&[0xff; 64]).identity(), None);
        let mut unterminated = CORRELATION_ID.to_be_bytes().to_vec();
        unterminated.extend([0xff; 64]);
        assert_eq!(Response(&unterminated).identity(), None);
    }

    #[test]
    fn a_recreated_and_a_deleted_topic_are_errors_and_an_unknown_identity_is_not() {
        let (recorded_id, other_id) = (Uuid::from_bytes(ID), Uuid::from_bytes([1; 16]));
        let text = verify(Partition(3), Identity::Known(other_id), Some(recorded_id)).expect_err("recreated");
        assert!(text.contains("partition 3") && text.contains("was recreated"), "{text}");
        let text = verify(Partition(3), Identity::Deleted, Some(recorded_id)).expect_err("deleted");
        assert!(text.contains("was deleted"), "{text}");
        for (current, recorded) in [
            (Identity::Known(recorded_id), Some(recorded_id)),
            (Identity::Known(recorded_id), None),
            (Identity::Unknown, Some(recorded_id)),
        ] {
            assert_eq!(verify(Partition(3), current, recorded), Ok(()));
        }
    }
}
