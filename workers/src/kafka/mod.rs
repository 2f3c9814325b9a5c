//! Kafka behind the ports of the driver.
//!
//! [`consumer`]: the thread that owns the group membership and the reader. [`publisher`]: the producers of outcomes.
//! [`log`]: commands to the consumer thread, and the check at a takeover that the log is the one that Postgres has
//! recorded; it combines [`inspector`] (bounds, last record, committed metadata), [`log_state`] (the comparison) and
//! [`topic_identity`]. [`lag`]: records that are not decided yet.

mod client_log;
pub mod consumer;
pub mod inspector;
pub mod lag;
pub mod log;
pub mod log_state;
mod offsets;
pub mod publisher;
pub mod topic_identity;
