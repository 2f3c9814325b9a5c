//! The process' clock. It mints ids and tells whether a token has expired: no deadline of a coupon hangs on it.

/// Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
