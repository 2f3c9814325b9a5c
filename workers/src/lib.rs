//! The workers: each owns partitions of `coupon.requests` and decides their records in log order.
//!
//! Every rule is in `coupon_core`, a state machine that does no I/O. This crate performs the machine's effects and
//! returns their results to it.
//!
//! Reading order:
//! 1. [`run`]: start and shutdown of a worker. [`config`]: its options.
//! 2. [`owner`]: from the group's assignment to one task per partition, and the driver of one ownership.
//! 3. [`ports`]: the traits between the driver and its adapters.
//! 4. Adapters: [`kafka`] (consumer, publisher, checks of the log), [`postgres`] (reads, fenced writes, takeover),
//!    [`redis`] (cache lists of codes).
//! 5. [`codec`]: from bytes to records, and from decisions to messages.
//! 6. [`metrics`], [`operator`] (commands for operators), [`retention`], [`backoff`], [`crash_points`] (fault injection for tests).
//!
//! Dependencies point one way: `owner` uses `ports` and never an adapter; adapters implement `ports` and never use
//! `owner`; [`run`] connects both.

pub mod backoff;
pub mod codec;
pub mod config;
pub mod crash_points;
mod dependencies;
pub mod kafka;
pub mod metrics;
pub mod operator;
pub mod owner;
pub mod ports;
pub mod postgres;
pub mod redis;
pub mod retention;
pub mod run;
