//! What a batch tells beside its responses: events and dead letters, as records ready to be produced.
//!
//! The ledger stores them with the batch and the emitter produces them: both ask here, so a takeover that tells them
//! again from the outbox tells the same.

use std::borrow::Cow;

use coupon_core::batch::{Batch, Event};
use coupon_core::ids::{Offset, Partition};
use coupon_core::record::DeadLetter;
use schemas::topics::{DEAD_LETTERS, EVENTS};
use schemas::{CouponEvent, Encoder, SchemaId};
use sha2::{Digest as _, Sha256};

/// What is kept of a dead letter's value: what a broker takes (1 MB by default), less key and headers.
pub const LONGEST_VALUE: usize = 900 * 1024;
/// What is kept of its key.
pub const LONGEST_KEY: usize = 32 * 1024;
/// What is kept of the text of its error.
const LONGEST_ERROR: usize = 1024;

/// A record to produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of our topics.
    pub topic: &'static str,
    /// The key; it decides the partition.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Headers, in alphabetical order of their names.
    pub headers: Vec<(Cow<'static, str>, String)>,
}

/// Makes the messages of batches.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    event: Encoder<CouponEvent>,
}

impl Messages {
    /// `event` is the id of the schema of events.
    #[must_use]
    pub fn new(event: SchemaId) -> Self {
        Self { event: Encoder::new(event) }
    }

    /// The events and dead letters of a batch, in the order in which they are stored.
    #[must_use]
    pub fn of(&self, batch: &Batch) -> Vec<Message> {
        let partition = batch.fence.partition;
        let events = batch.events.iter().filter_map(|event| self.event(partition, event));
        let letters =
            batch.dead_letters.iter().map(|(offset, letter)| letter_message(partition, *offset, letter));
        events.chain(letters).collect()
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
            // Only a coupon id of 64 KiB could do this, and the ledger has none of more than 64 characters.
            Err(error) => {
                tracing::error!(%error, kind = event.kind.as_str(), "an event cannot be encoded and is left out");
                None
            }
        }
    }
}

fn letter_message(partition: Partition, offset: Offset, letter: &DeadLetter) -> Message {
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
        key: letter.key.as_deref().map(|key| cut(key, LONGEST_KEY)),
        value: letter.value.as_deref().map(|value| cut(value, LONGEST_VALUE)),
        headers,
    }
}

fn cut(bytes: &[u8], longest: usize) -> Vec<u8> {
    bytes[..bytes.len().min(longest)].to_vec()
}

/// Text of an error may quote its record, and Postgres stores no NUL: a dead letter that cannot be stored would
/// stop its partition.
fn printable(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_ERROR);
    text[..end].chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::batch::{EventKind, Lapsed};
    use coupon_core::ids::Millis;
    use schemas::Decoder;

    #[test]
    fn a_lapse_says_whose_claim_of_which_code_it_was() {
        let id = SchemaId(3);
        let event = Event {
            kind: EventKind::HoldLapsed,
            coupon_id: "summer".into(),
            available: 4,
            lapsed: Some(Lapsed { code: "ABC".into(), user: "ann".into() }),
            offset: Offset(9),
            at: Millis(1_000),
        };
        let told = |event: &Event| {
            let message = Messages::new(id).event(Partition(3), event).unwrap();
            assert_eq!(message.key.as_deref(), Some(&b"summer"[..]));
            Decoder::<CouponEvent>::new(id).decode(&message.value.unwrap()).unwrap()
        };
        let lapse = told(&event);
        assert_eq!((lapse.kind.as_str(), lapse.at_ms, lapse.offset), ("hold_lapsed", 1_000, 9));
        assert_eq!((lapse.code.as_deref(), lapse.user_id.as_deref()), (Some("ABC"), Some("ann")));
        let restocked = told(&Event { kind: EventKind::Restocked, lapsed: None, ..event });
        assert_eq!((restocked.code, restocked.user_id, restocked.available), (None, None, Some(4)));
    }

    #[test]
    fn a_dead_letter_is_cut_to_what_a_broker_takes_and_says_what_it_was() {
        let value = vec![7_u8; LONGEST_VALUE + 1];
        let letter = DeadLetter {
            reason: "too_large",
            error: format!("bad\0 {}é", "x".repeat(2000)).into(),
            key: Some(vec![1; LONGEST_KEY + 1].into()),
            value: Some(value.clone().into()),
        };
        let message = letter_message(Partition(3), Offset(42), &letter);
        assert_eq!(message.value.as_deref(), Some(&value[..LONGEST_VALUE]));
        assert_eq!(message.key.map(|key| key.len()), Some(LONGEST_KEY));
        let header =
            |name: &str| message.headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str()).unwrap_or("");
        assert_eq!(header("length"), (LONGEST_VALUE + 1).to_string());
        assert_eq!(header("digest"), format!("sha256:{:x}", Sha256::digest(&value)));
        assert_eq!((header("partition"), header("offset"), header("reason")), ("3", "42", "too_large"));
        assert!(header("error").starts_with("bad\u{fffd} x") && header("error").len() < 1100);
        assert!(message.headers.is_sorted(), "what is stored as a JSON object comes back in this order");
    }
}
