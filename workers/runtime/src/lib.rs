//! What every Stampede program shares: configuration, telemetry, start and shutdown, and the settings of the Kafka,
//! Postgres and Redis clients. Nothing here depends on coupons.
//!
//! Guarantees: an invalid setting ends the start with a one-line error that names the remedy; a server that is not up
//! *yet* is waited for, for a bounded time, with log lines that name it.
//!
//! Reading order:
//! 1. [`config`]: the shared command-line arguments, each with its environment variable.
//! 2. [`telemetry`], [`lifecycle`], [`probes`]: logs and metrics, signals and readiness, the probe port.
//! 3. [`postgres`], [`redis`], [`kafka`]: client settings, with the reason for each. [`supervised`]: replaces Kafka
//!    clients that no longer work.
//! 4. [`topics`], [`registry`]: topics and schemas, which must exist before the first record. [`group`]: the session
//!    timeout of the consumer group.
//! 5. [`retry`]: bounded waiting for a server. [`crash_points`]: fault injection for tests. `nodelay`: sets `TCP_NODELAY`
//!    on the sockets of sqlx.

pub mod config;
pub mod crash_points;
pub mod group;
pub mod kafka;
pub mod lifecycle;
mod nodelay;
pub mod postgres;
pub mod probes;
pub mod redis;
pub mod registry;
pub mod retry;
pub mod supervised;
pub mod telemetry;
pub mod topics;
