//! How outcomes arrive: every instance consumes all of `coupon.responses`, wakes its waiting clients, opens and closes
//! the sold-out gate, and caches the newest outcomes; older ones are in Postgres.

pub(crate) mod cache;
pub(crate) mod consumer;
pub(crate) mod gate;
pub(crate) mod hub;
pub(crate) mod pending;
pub(crate) mod view;
pub(crate) mod wake_batcher;
