//! The way of a request to Kafka: its context, admission control, an id, the producer.
//!
//! A request is accepted (`202`) once every in-sync replica has acknowledged it. No database is on this path for a
//! request that names a coupon.

pub(crate) mod admission;
pub(crate) mod command;
pub(crate) mod context;
pub(crate) mod ids;
pub(crate) mod producer;
pub(crate) mod responses;
pub(crate) mod submit;

mod in_flight;
