//! The wall clock of this process. It mints request ids and checks the expiry of tokens; no deadline of a coupon
//! depends on it.

/// Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
