//! The workers: whoever owns a partition of `coupon.requests` decides its records, one after another.
//!
//! What is decided, and everything that correctness hangs on, is in `coupon_core`, which does no I/O. This crate
//! performs what the core asks for, and feeds the answers back.
//!
//! Reading order:
//! 1. [`run`]: how a worker starts and ends. [`config`]: what it is told.
//! 2. [`fleet`], [`owner`]: from the group's assignment to one task for each partition.
//! 3. [`driver`]: the loop of one ownership; [`seams`]: the traits through which it reaches the world.
//! 4. [`consumer`] (the one thread that talks to Kafka's consumers) and [`decode`] (from bytes to records).
//! 5. [`writing`], [`ledger`], [`ledgers`]: where a batch becomes durable and a previous owner is shut out.
//!    [`migrate`]: the tables.
//! 6. [`stock`], [`lists`]: lists of codes in Redis. [`log`], [`inspector`], [`topic_identity`]: is the log still the
//!    one that Postgres knows?
//! 7. [`emitter`], [`response`], [`messages`]: where outcomes are told.
//! 8. [`standing`], [`lag`], [`metrics`]: what operators see; [`operator`]: what they can do. [`crash_points`]: where
//!    tests crash it.

pub mod backoff;
pub mod config;
pub mod consumer;
pub mod crash_points;
pub mod decode;
pub mod driver;
pub mod emitter;
pub mod fleet;
pub mod inspector;
mod kafka_log;
pub mod lag;
pub mod ledger;
pub mod ledgers;
pub mod lists;
pub mod log;
pub mod messages;
pub mod metrics;
pub mod migrate;
pub mod operator;
pub mod owner;
pub mod response;
pub mod run;
pub mod seams;
pub mod standing;
pub mod stock;
pub mod topic_identity;
pub mod writing;
