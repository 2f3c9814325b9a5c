//! The topics as this code needs them. `topics.yaml` says the same with reasons, and who produces and consumes;
//! `tests/topics.rs` holds the two against each other.

use crate::registry::Subject;

/// What users ask for, and everything else a coupon's owner must know.
pub const REQUESTS: &str = "coupon.requests";
/// Final outcomes.
pub const RESPONSES: &str = "coupon.responses";
/// What no request asked for.
pub const EVENTS: &str = "coupon.events";
/// Records that cannot be processed, as they were received.
pub const DEAD_LETTERS: &str = "coupon.dead-letters";

/// Record header of `coupon.requests`: the canonical request id, so that even an unreadable request can be answered.
pub const HEADER_REQUEST_ID: &str = "request_id";
/// Record header of `coupon.requests`: the user.
pub const HEADER_USER_ID: &str = "user_id";

/// Partitions of every topic where nothing else is configured at first start. Coupons never move: choose generously.
pub const DEFAULT_PARTITIONS: i32 = 8;

/// `topics.yaml` as it ships.
pub const YAML: &str = include_str!("../topics.yaml");

/// How a topic is to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// Whose schemas describe its values; none where values are of any kind.
    pub subject: Option<Subject>,
    /// `retention.ms`.
    pub retention_ms: i64,
    /// Whether the broker's time of appending is the record's (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    /// `max.message.bytes`: the longest batch of records.
    pub max_message_bytes: i32,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Kafka's default, said aloud: it bounds a whole batch of a producer, not one record.
const BATCH_BYTES: i32 = 1_048_588;

/// Every topic.
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
