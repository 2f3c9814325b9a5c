//! The events and dead letters of a batch, as messages ready to be produced.
//!
//! They are encoded once: the ledger stores and the publisher produces the same [`EncodedBatch`], so a takeover that
//! publishes them again from the outbox publishes the same bytes.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use coupon_core::batch::{Batch, Event};
use coupon_core::ids::{Offset, Partition};
use coupon_core::record::DeadLetter;
use schemas::topics::{DEAD_LETTERS, EVENTS};
use schemas::{CouponEvent, Encoder, SchemaId};
use sha2::{Digest as _, Sha256};

/// Kept bytes of a dead letter's value: what a broker accepts (1 MB by default), minus key and headers.
pub const MAX_VALUE_BYTES: usize = 900 * 1024;
/// Kept bytes of its key.
pub const MAX_KEY_BYTES: usize = 32 * 1024;
/// Kept bytes of its error text.
const MAX_ERROR_BYTES: usize = 1024;

/// A message to produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of the system's topics.
    pub topic: &'static str,
    /// The key; it determines the partition.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Headers, in alphabetical order of their names.
    pub headers: Vec<(Cow<'static, str>, String)>,
}

/// A batch with its events and dead letters, which are encoded on first use.
#[derive(Debug)]
pub struct EncodedBatch {
    batch: Arc<Batch>,
    encoder: Messages,
    messages: OnceLock<Vec<Message>>,
}

impl EncodedBatch {
    /// Nothing is encoded yet.
    #[must_use]
    pub const fn new(batch: Arc<Batch>, encoder: Messages) -> Self {
        Self { batch, encoder, messages: OnceLock::new() }
    }

    /// The batch.
    #[must_use]
    pub const fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// Its events and dead letters, in the order in which they are stored.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        self.messages.get_or_init(|| self.encoder.of(&self.batch))
    }
}

/// Encodes the messages of batches.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    event: Encoder<CouponEvent>,
}

impl Messages {
    /// `event` is the id of the event schema.
    #[must_use]
    pub fn new(event: SchemaId) -> Self {
        Self { event: Encoder::new(event) }
    }

    /// The events and dead letters of a batch, in the order in which they are stored.
    #[must_use]
    pub fn of(&self, batch: &Batch) -> Vec<Message> {
        let partition = batch.fence.partition;
        let events = batch.events.iter().filter_map(|event| self.event(partition, event));
        let dead_letters =
            batch.dead_letters.iter().map(|(offset, letter)| dead_letter(partition, *offset, letter));
        events.chain(dead_letters).collect()
    }

    fn event(&self, partition: Partition, event: &Event) -> Option<Message> {
        let value = self.event.encode_to_vec(&CouponEvent {
            kind: event.kind.as_str().to_owned(),
            coupon_id: event.coupon_id.to_string(),
            at_ms: event.at.0,
            partition: partition.0,
            offset: event.offset.0,
            code: event.lapsed.as_ref().map(|lapsed| lapsed.code.to_string()),
            user_id: event.lapsed.as_ref().map(|lapsed| lapsed.user.to_string()),
            available: Some(event.available),
        });
        match value {
            Ok(value) => Some(Message {
                topic: EVENTS,
                key: Some(event.coupon_id.as_bytes().to_vec()),
                value: Some(value),
                headers: Vec::new(),
            }),
            // Only a coupon id of 64 KiB can cause this, and the ledger limits ids to 64 characters.
            Err(error) => {
                tracing::error!(%error, kind = event.kind.as_str(), "cannot encode an event; it is not published");
                None
            }
        }
    }
}

fn dead_letter(partition: Partition, offset: Offset, letter: &DeadLetter) -> Message {
    let whole = letter.value.as_deref().unwrap_or_default();
    let headers = vec![
        ("digest".into(), format!("sha256:{:x}", Sha256::digest(whole))),
        ("error".into(), printable(&letter.error)),
        ("length".into(), whole.len().to_string()),
        ("offset".into(), offset.to_string()),
        ("partition".into(), partition.to_string()),
        ("reason".into(), letter.reason.to_owned()),
    ];
    Message {
        topic: DEAD_LETTERS,
        key: letter.key.as_deref().map(|key| truncated(key, MAX_KEY_BYTES)),
        value: letter.value.as_deref().map(|value| truncated(value, MAX_VALUE_BYTES)),
        headers,
    }
}

fn truncated(bytes: &[u8], max: usize) -> Vec<u8> {
    bytes[..bytes.len().min(max)].to_vec()
}

/// An error text may quote its record, and Postgres rejects NUL: a dead letter that cannot be stored would stop its
/// partition.
fn printable(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_ERROR_BYTES);
    text[..end].chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::batch::{EventKind, Lapsed};
    use coupon_core::ids::Millis;
    use schemas::Decoder;

    #[test]
    fn the_event_of_a_lapse_has_its_code_and_user() {
        let id = SchemaId(3);
        let event = Event {
            kind: EventKind::HoldLapsed,
            coupon_id: "summer".into(),
            available: 4,
            lapsed: Some(Lapsed { code: "ABC".into(), user: "ann".into() }),
            offset: Offset(9),
            at: Millis(1_000),
        };
        let encoded = |event: &Event| {
            let message = Messages::new(id).event(Partition(3), event).unwrap();
            assert_eq!(message.key.as_deref(), Some(&b"summer"[..]));
            Decoder::<CouponEvent>::new(id).decode(&message.value.unwrap()).unwrap()
        };
        let lapse = encoded(&event);
        assert_eq!((lapse.kind.as_str(), lapse.at_ms, lapse.offset), ("hold_lapsed", 1_000, 9));
        assert_eq!((lapse.code.as_deref(), lapse.user_id.as_deref()), (Some("ABC"), Some("ann")));
        let restocked = encoded(&Event { kind: EventKind::Restocked, lapsed: None, ..event });
        assert_eq!((restocked.code, restocked.user_id, restocked.available), (None, None, Some(4)));
    }

    #[test]
    fn a_dead_letter_is_truncated_to_what_a_broker_accepts_and_describes_the_original() {
        let value = vec![7_u8; MAX_VALUE_BYTES + 1];
        let letter = DeadLetter {
            reason: "too_large",
            error: format!("bad\0 {}é", "x".repeat(2000)).into(),
            key: Some(vec![1; MAX_KEY_BYTES + 1].into()),
            value: Some(value.clone().into()),
        };
        let message = dead_letter(Partition(3), Offset(42), &letter);
        assert_eq!(message.value.as_deref(), Some(&value[..MAX_VALUE_BYTES]));
        assert_eq!(message.key.map(|key| key.len()), Some(MAX_KEY_BYTES));
        let header =
            |name: &str| message.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str()).unwrap_or("");
        assert_eq!(header("length"), (MAX_VALUE_BYTES + 1).to_string());
        assert_eq!(header("digest"), format!("sha256:{:x}", Sha256::digest(&value)));
        assert_eq!((header("partition"), header("offset"), header("reason")), ("3", "42", "too_large"));
        assert!(header("error").starts_with("bad\u{fffd} x") && header("error").len() < 1100);
        assert!(message.headers.is_sorted(), "a JSON object returns its keys in this order");
    }
}
