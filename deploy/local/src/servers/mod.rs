//! One file per server: how it is prepared and launched, and where it listens.
//!
//! `kafka`, `postgres`, `redis`, and `stampede` for `ingest-api` and `workers`. `kafka_admin` performs the operations of
//! a Kafka administrator, `disk` gives Postgres a small disk that can be filled.

pub(crate) mod disk;
pub(crate) mod kafka;
mod kafka_admin;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod stampede;

pub use disk::can_mount;
pub use kafka_admin::Admin;
