//! How outcomes arrive: every instance consumes all of `coupon.responses`, wakes its waiting clients and caches the
//! newest outcomes; older ones are in Postgres.

pub(crate) mod cache;
pub(crate) mod consumer;
pub(crate) mod hub;
pub(crate) mod outcome;
pub(crate) mod view;
