//! The values that Kafka, Postgres and HTTP have in common: the definition of a coupon, and the outcome of a request.

pub(crate) mod coupon;
pub(crate) mod outcome;
