//! Reads `coupon.dead-letters`, up to its present end.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};
use runtime::config::KafkaArgs;
use runtime::kafka;
use schemas::topics::DEAD_LETTERS;
use sha2::{Digest as _, Sha256};

use super::args::LetterId;

/// Time limit of a request to Kafka, and of the wait for the next record.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) id: Option<LetterId>,
    /// When it was produced, in Unix milliseconds.
    pub(crate) at_ms: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// Headers, unvalidated: any producer of the topic may have written anything.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Letter {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
        });
        Self {
            id: Some(LetterId { partition: message.partition(), offset: message.offset() }),
            at_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }

    /// The bytes of a header; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &[u8] {
        self.headers.iter().find(|header| header.0 == name).map_or(&[], |header| &header.1)
    }

    /// A header as a number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.header(name)).ok()?.parse().ok()
    }

    /// Whether it can be replayed, or why not.
    pub(crate) fn replayable(&self) -> Result<(), &'static str> {
        let Some(value) = &self.value else { return Err("it has no value") };
        if self.key.is_none() {
            return Err("it has no key, and so no partition");
        }
        if self.number("length") != i64::try_from(value.len()).ok() {
            return Err("its value was truncated when it became a dead letter");
        }
        if self.header("digest") != format!("sha256:{:x}", Sha256::digest(value)).as_bytes() {
            return Err("its value differs from the original: the digest does not match");
        }
        Ok(())
    }
}

/// The client that reads dead letters. Its methods block.
pub(crate) struct Letters {
    client: BaseConsumer,
}

impl Letters {
    pub(crate) fn open(args: &KafkaArgs) -> KafkaResult<Self> {
        let mut config: ClientConfig = kafka::reader(args, "stampede-dead-letters");
        config.set("enable.partition.eof", "true");
        Ok(Self { client: config.create()? })
    }

    /// Calls `each` with every dead letter up to the present end, in order within each partition.
    pub(crate) fn all(&self, mut each: impl FnMut(Letter) -> KafkaResult<()>) -> KafkaResult<()> {
        let metadata = self.client.fetch_metadata(Some(DEAD_LETTERS), TIMEOUT)?;
        let topic = metadata.topics().first();
        let mut list = TopicPartitionList::new();
        let mut ends = std::collections::BTreeMap::new();
        for partition in topic.map(|topic| topic.partitions()).unwrap_or_default() {
            let (low, high) = self.client.fetch_watermarks(DEAD_LETTERS, partition.id(), TIMEOUT)?;
            if low < high {
                list.add_partition_offset(DEAD_LETTERS, partition.id(), KafkaOffset::Offset(low))?;
                ends.insert(partition.id(), high);
            }
        }
        self.client.assign(&list)?;
        while !ends.is_empty() {
            match self.next()? {
                Next::Letter(letter) => {
                    let Some(id) = letter.id else { continue };
                    let Some(end) = ends.get(&id.partition).copied() else { continue };
                    // Later records, such as those of a running replay, are ignored.
                    if id.offset + 1 >= end {
                        ends.remove(&id.partition);
                    }
                    if id.offset < end {
                        each(letter)?;
                    }
                }
                Next::End(partition) => drop(ends.remove(&partition)),
            }
        }
        self.client.unassign()
    }

    /// One dead letter; `None` if the offset has no record.
    pub(crate) fn one(&self, id: LetterId) -> KafkaResult<Option<Letter>> {
        let (low, high) = self.client.fetch_watermarks(DEAD_LETTERS, id.partition, TIMEOUT)?;
        if id.offset < low || id.offset >= high {
            return Ok(None);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(DEAD_LETTERS, id.partition, KafkaOffset::Offset(id.offset))?;
        self.client.assign(&list)?;
        let next = self.next()?;
        self.client.unassign()?;
        Ok(match next {
            Next::Letter(letter) if letter.id == Some(id) => Some(letter),
            _ => None,
        })
    }

    fn next(&self) -> KafkaResult<Next> {
        let deadline = Instant::now() + TIMEOUT;
        let mut last = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        while Instant::now() < deadline {
            match self.client.poll(Duration::from_millis(200)) {
                None => {}
                Some(Ok(message)) => return Ok(Next::Letter(Letter::of(&message))),
                Some(Err(KafkaError::PartitionEOF(partition))) => return Ok(Next::End(partition)),
                // librdkafka reconnects by itself.
                Some(Err(error)) => last = error,
            }
        }
        Err(last)
    }
}

enum Next {
    Letter(Letter),
    End(i32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        let digest = format!("sha256:{:x}", Sha256::digest(b"value"));
        Letter {
            key: Some(b"key".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![("length".to_owned(), b"5".to_vec()), ("digest".to_owned(), digest.into_bytes())],
            ..Letter::default()
        }
    }

    #[test]
    fn only_a_complete_record_with_a_key_can_be_replayed() {
        assert_eq!(letter().replayable(), Ok(()));
        let cases = [
            (Letter { value: None, ..letter() }, "no value"),
            (Letter { key: None, ..letter() }, "no key"),
            (Letter { value: Some(b"valu".to_vec()), ..letter() }, "truncated"),
            (Letter { value: Some(b"VALUE".to_vec()), ..letter() }, "digest does not match"),
            (Letter { headers: Vec::new(), ..letter() }, "truncated"),
        ];
        for (letter, words) in cases {
            assert!(letter.replayable().unwrap_err().contains(words), "{words}");
        }
    }
}
