//! The shell kit that every program of Stampede starts with: what is configured, how it tells what it does, when it
//! stops, and how it talks to Kafka, Postgres and Redis. Nothing here knows what a coupon is.
//!
//! Guarantees: whatever cannot work is refused at start in one line that says what to do; whatever is not up *yet* is
//! waited for, with a line saying what, for a bounded time.
//!
//! Reading order:
//! 1. [`config`]: the arguments that programs share, each with its environment variable.
//! 2. [`telemetry`], [`lifecycle`], [`probes`]: logs and metrics, signals and readiness, and the port that shows both.
//! 3. [`postgres`], [`redis`], [`kafka`]: settings of the clients, with the reason for each. [`renewable`]: clients of Kafka
//!    that cannot find back to it.
//! 4. [`topics`], [`registry`]: what must exist before the first record: topics and schemas. [`group`]: how long the
//!    consumer group waits for a silent member.
//! 5. [`patience`]: waiting for a server, bounded. `nodelay`: what sqlx forgets about its sockets.

pub mod config;
pub mod group;
pub mod kafka;
pub mod lifecycle;
mod nodelay;
pub mod patience;
pub mod postgres;
pub mod probes;
pub mod redis;
pub mod registry;
pub mod renewable;
pub mod telemetry;
pub mod topics;
