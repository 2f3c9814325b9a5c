//! Kafka, read from the beginning of each topic up to end offsets that were read before.
//!
//! Reading order: `topics.rs` (offsets and records), `decoder.rs`, `log.rs` (`coupon.requests`), `responses.rs`,
//! `events_and_dead_letters.rs`.

mod decoder;
mod events_and_dead_letters;
mod log;
mod responses;
mod topics;

pub(crate) use decoder::decoder;
pub(crate) use events_and_dead_letters::{
    CouponAt, EventsAndDeadLetters, LapseEvent, PublishedLapse, coupon_digest,
};
pub(crate) use log::{Log, LogRecord, RecordKind, RequestFields};
pub(crate) use responses::{ResponseEvent, read_responses};
pub use topics::TopicReadError;
pub(crate) use topics::{Committed, Kafka, OffsetRange, OffsetRanges, is_before_end};
