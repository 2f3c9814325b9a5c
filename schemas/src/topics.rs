//! The topics as constants. `topics.yaml` describes the same topics with reasons, producers and consumers;
//! `tests/topics.rs` compares the two.

use crate::subject::Subject;
pub use crate::subject::{DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES};

/// Record header of `coupon.requests`: the canonical request id, so that even an unreadable request gets an outcome.
pub const HEADER_REQUEST_ID: &str = "request_id";
/// Record header of `coupon.requests`: the user.
pub const HEADER_USER_ID: &str = "user_id";

/// Default number of partitions of every topic, applied at the first start. Coupons never change partition, so allow for
/// growth.
pub const DEFAULT_PARTITIONS: i32 = 8;

/// The text of `topics.yaml`.
pub const YAML: &str = include_str!("../topics.yaml");

/// A topic, as it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// The subject of its values; `None` if they may be anything.
    pub subject: Option<Subject>,
    /// `retention.ms`.
    pub retention_ms: i64,
    /// Whether records have the broker's append time (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    /// `max.message.bytes`: the maximum size of a record batch.
    pub max_message_bytes: i32,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Kafka's default. It bounds a producer's whole batch, not one record.
const BATCH_BYTES: i32 = 1_048_588;

/// All topics.
pub const ALL: [Topic; 4] = [
    Topic {
        name: REQUESTS,
        subject: Some(Subject::Request),
        retention_ms: 7 * DAY_MS,
        log_append_time: true,
        max_message_bytes: BATCH_BYTES,
    },
    Topic {
        name: RESPONSES,
        subject: Some(Subject::Response),
        retention_ms: 3 * DAY_MS,
        log_append_time: false,
        max_message_bytes: BATCH_BYTES,
    },
    Topic {
        name: EVENTS,
        subject: Some(Subject::Event),
        retention_ms: 7 * DAY_MS,
        log_append_time: false,
        max_message_bytes: BATCH_BYTES,
    },
    Topic {
        name: DEAD_LETTERS,
        subject: None,
        retention_ms: 30 * DAY_MS,
        log_append_time: false,
        max_message_bytes: BATCH_BYTES,
    },
];
