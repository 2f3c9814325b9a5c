//! Whose log is it? The identity that Kafka gives a topic when it is made, and the one that Postgres has recorded.
//!
//! A topic that was deleted and made again has the same name, and after a while the same offsets: librdkafka goes on
//! reading at the old offset in the new log, and says nothing. Its identity tells. The client has no safe way to ask
//! for it, so one request of Kafka's protocol (Metadata, version 12, brokers from 3.0) is made by hand here.
//!
//! Guarantees: an answer that cannot be had is [`Identity::Unknown`] and stops nobody (the digest of the last record
//! and the log's bounds are still compared); nothing here trusts a length that the other side sends.

use std::sync::mpsc::Sender;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use coupon_core::ids::Partition;
use schemas::topics::REQUESTS;

use crate::consumer::Command;

/// How often a running worker asks: for so long a topic that was recreated *and* has outgrown the old one may be read
/// unnoticed.
const RHYTHM: Duration = Duration::from_secs(1);
/// A topic must be gone for so many looks: a broker that has just started may not know it yet.
const GONE_LOOKS: u32 = 5;
/// How long one broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// No answer about one topic is longer.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;
const METADATA: i16 = 3;
const VERSION: i16 = 12;
const CORRELATION: i32 = 7;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// What Kafka says about a topic's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This one.
    Is(Uuid),
    /// There is no such topic.
    Gone,
    /// Nobody could be asked, or the broker is too old to say.
    Unknown,
}

/// Asks Kafka, and keeps in Postgres to which topic each partition's offsets belong.
#[derive(Clone, Debug)]
pub struct Identities {
    brokers: String,
    pool: PgPool,
}

impl Identities {
    /// `brokers`: host:port, several with commas.
    #[must_use]
    pub const fn new(brokers: String, pool: PgPool) -> Self {
        Self { brokers, pool }
    }

    /// The identity of `coupon.requests` now: all brokers are asked, the first answer counts.
    pub async fn now(&self) -> Identity {
        let brokers = self.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty());
        let mut answers: FuturesUnordered<_> = brokers.map(told_by).collect();
        while let Some(identity) = answers.next().await {
            if identity != Identity::Unknown {
                return identity;
            }
        }
        Identity::Unknown
    }

    /// The identity that a partition's offsets belong to; `None` if it was never known.
    ///
    /// # Errors
    /// What Postgres reports.
    pub async fn recorded(&self, partition: Partition) -> Result<Option<Uuid>, sqlx::Error> {
        sqlx::query_scalar("select topic_id from stampede.partition_topics where partition = $1")
            .bind(partition.0)
            .fetch_optional(&self.pool)
            .await
    }

    /// Records what was found at the first takeover; what is recorded already stays.
    ///
    /// # Errors
    /// What Postgres reports.
    pub async fn record(&self, partition: Partition, topic_id: Uuid) -> Result<(), sqlx::Error> {
        let sql = "insert into stampede.partition_topics (partition, topic_id) values ($1, $2) on conflict do nothing";
        sqlx::query(sql).bind(partition.0).bind(topic_id).execute(&self.pool).await.map(drop)
    }
}

/// Asks again and again while partitions are owned; when the topic is not what it was, every owner looks at its log.
/// Never ends by itself.
pub async fn watch(identities: Identities, commands: Sender<Command>) {
    let (mut known, mut gone) = (None, 0);
    let mut ticks = tokio::time::interval(RHYTHM);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        gone = match identities.now().await {
            Identity::Is(id) => {
                if known.replace(id).is_some_and(|before| before != id) {
                    let why = format!("the identity of topic {REQUESTS} has changed to {id}");
                    drop(commands.send(Command::Doubt(why)));
                }
                0
            }
            Identity::Gone => gone + 1,
            Identity::Unknown => 0,
        };
        if gone == GONE_LOOKS {
            drop(commands.send(Command::Doubt(format!("topic {REQUESTS} is gone"))));
        }
    }
}

/// Whether the topic is the one that Postgres knows.
///
/// # Errors
/// What is wrong with it, for an operator.
pub fn judge(partition: Partition, now: Identity, recorded: Option<Uuid>) -> Result<(), String> {
    match (now, recorded) {
        (Identity::Is(found), Some(recorded)) if found != recorded => Err(format!(
            "partition {partition} of {REQUESTS} was recreated: its topic is {found}, and what Postgres has decided \
             came from {recorded}; what was in it and not decided is lost, and nothing is decided until an operator \
             says from where (workers repair)"
        )),
        (Identity::Gone, Some(_)) => Err(format!(
            "topic {REQUESTS} was deleted: nothing can be decided in partition {partition} until it is there again \
             and an operator says from where (workers repair)"
        )),
        _ => Ok(()),
    }
}

async fn told_by(broker: &str) -> Identity {
    match tokio::time::timeout(PATIENCE, ask(broker, REQUESTS)).await {
        Ok(Ok(identity)) => identity,
        Ok(Err(error)) => {
            tracing::debug!(broker, %error, "the topic's identity cannot be asked for");
            Identity::Unknown
        }
        Err(_) => {
            tracing::debug!(broker, "the topic's identity is not told in time");
            Identity::Unknown
        }
    }
}

async fn ask(broker: &str, topic: &str) -> std::io::Result<Identity> {
    let mut stream = TcpStream::connect(broker).await?;
    stream.write_all(&question(topic)).await?;
    let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
    if length > LONGEST_ANSWER {
        return Err(std::io::Error::other(format!("an answer of {length} bytes")));
    }
    let mut answer = Vec::new();
    stream.take(length as u64).read_to_end(&mut answer).await?;
    Ok(Answer(&answer).identity().unwrap_or(Identity::Unknown))
}

/// Metadata request, version 12, about one topic by name.
fn question(topic: &str) -> Vec<u8> {
    let client = b"stampede-identity";
    let mut body = Vec::with_capacity(64 + topic.len());
    body.extend(METADATA.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(CORRELATION.to_be_bytes());
    body.extend((client.len() as i16).to_be_bytes());
    body.extend(client);
    body.push(0); // No tagged fields in the header.
    body.push(2); // One topic: lengths of compact arrays and strings are one more than they are.
    body.extend([0; 16]); // By name, not by identity.
    body.push(u8::try_from(topic.len() + 1).unwrap_or(0));
    body.extend(topic.as_bytes());
    body.extend([0, 0, 0, 0]); // No tags; do not make the topic; no authorised operations; no tags.
    let length = (body.len() as i32).to_be_bytes();
    [&length[..], &body].concat()
}

/// What is left to read of a Metadata response, version 12.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    /// `None` for bytes that are no such answer.
    fn identity(mut self) -> Option<Identity> {
        if self.int()? != CORRELATION {
            return None;
        }
        self.tags()?;
        self.int()?; // Throttled for so long.
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
            return None; // One topic was asked for.
        }
        let error = i16::from_be_bytes(self.bytes(2)?.try_into().ok()?);
        self.text()?;
        let id = Uuid::from_slice(self.bytes(16)?).ok()?;
        Some(match error {
            UNKNOWN_TOPIC_OR_PARTITION => Identity::Gone,
            0 if !id.is_nil() => Identity::Is(id),
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

    /// As a broker writes it: one broker with a rack, one topic (the rest of it is of no interest).
    fn answer(error: i16, id: [u8; 16]) -> Vec<u8> {
        let mut bytes = CORRELATION.to_be_bytes().to_vec();
        bytes.extend([1, 5, 2, 0xaa, 0xbb]); // A tagged field that nobody knows.
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
    fn the_identity_is_read_from_a_brokers_answer() {
        assert_eq!(Answer(&answer(0, ID)).identity(), Some(Identity::Is(Uuid::from_bytes(ID))));
        assert_eq!(Answer(&answer(3, [0; 16])).identity(), Some(Identity::Gone));
        assert_eq!(Answer(&answer(5, ID)).identity(), Some(Identity::Unknown), "no leader yet, say");
        assert_eq!(
            Answer(&answer(0, [0; 16])).identity(),
            Some(Identity::Unknown),
            "a broker without identities"
        );
    }

    #[test]
    fn an_answer_that_ends_anywhere_or_is_nonsense_is_none_and_never_a_panic() {
        let whole = answer(0, ID);
        let topic_ends = whole.len() - b"whatever follows".len();
        for end in 0..topic_ends {
            assert_eq!(Answer(&whole[..end]).identity(), None, "cut at {end}");
        }
        assert_eq!(Answer(&[0xff; 64]).identity(), None);
        let mut endless = CORRELATION.to_be_bytes().to_vec();
        endless.extend([0xff; 64]);
        assert_eq!(Answer(&endless).identity(), None);
    }

    #[test]
    fn another_topic_of_the_same_name_and_one_that_is_gone_are_told_from_one_that_nobody_can_ask_about() {
        let (one, other) = (Uuid::from_bytes(ID), Uuid::from_bytes([1; 16]));
        let text = judge(Partition(3), Identity::Is(other), Some(one)).expect_err("recreated");
        assert!(text.contains("partition 3") && text.contains("was recreated"), "{text}");
        let text = judge(Partition(3), Identity::Gone, Some(one)).expect_err("deleted");
        assert!(text.contains("was deleted"), "{text}");
        for (now, recorded) in
            [(Identity::Is(one), Some(one)), (Identity::Is(one), None), (Identity::Unknown, Some(one))]
        {
            assert_eq!(judge(Partition(3), now, recorded), Ok(()));
        }
    }
}
