//! The way of a request to Kafka: admission control, an id, a place among the pending requests, the producer.
//!
//! A request is accepted (`202`) once every in-sync replica has acknowledged it. No database is on this path for a request
//! that names a coupon.

pub(crate) mod admission;
pub(crate) mod gate;
pub(crate) mod ids;
pub(crate) mod in_flight;
pub(crate) mod payload;
pub(crate) mod pending;
pub(crate) mod producer;
pub(crate) mod submit;
pub(crate) mod wake_batcher;
