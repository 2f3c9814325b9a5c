//! Conversion between the bytes of Kafka records and the types of the core. No I/O.
//!
//! [`decode`]: from a record of `coupon.requests` to what the core executes. [`response`]: from a decision to its
//! response event. [`messages`]: the events and dead letters of a batch.

pub mod decode;
pub mod messages;
pub mod response;
