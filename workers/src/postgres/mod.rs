//! Postgres behind the ports of the driver: the ledger, the only source of truth.
//!
//! Guarantees:
//! - a batch is written by one statement in one commit, or not at all;
//! - only the newest owner of a partition writes: `stampede.write_batch` compares epoch, nonce and write number;
//! - every call ends with one of [`WriteResult`], and "unknown" is one of them;
//! - every read is driven by an index, whatever the tables looked like when its plan was made.
//!
//! Reading order: [`writes`] (the columns of a batch and the call) and `errors` (what follows from an error); `takeover`,
//! with `connection` and `warm_connections`; [`reads`] (lookups before a batch); `outbox` (what an earlier owner has not
//! published); `rows` (types of the core in rows); [`ledgers`] (the ports); [`migrate`]; [`retention`].
//!
//! [`WriteResult`]: coupon_core::interface::WriteResult

mod connection;
mod errors;
pub mod ledgers;
pub mod migrate;
mod outbox;
mod reads;
pub mod retention;
mod rows;
mod takeover;
mod warm_connections;
mod writes;

pub use connection::read_pool;
pub use errors::LedgerError;
pub use warm_connections::WarmConnections;

use std::sync::Arc;

use coupon_core::ids::Partition;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Mutex;

use connection::{WriteConnection, write_options};

/// Reads from the ledger; one for a whole worker, cheap to clone.
#[derive(Clone, Debug)]
pub struct PgReader {
    pool: PgPool,
}

impl PgReader {
    /// Reads through a pool created by [`read_pool`].
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// The ledger of one partition, for its owner: one connection that writes, and the reader.
#[derive(Debug)]
pub struct PgLedger {
    options: PgConnectOptions,
    reader: PgReader,
    partition: Partition,
    worker: String,
    application_name: String,
    connection: Mutex<WriteConnection>,
    warm_connections: Option<Arc<WarmConnections>>,
}

impl PgLedger {
    /// Connects on first use. `worker` is stored in the partition's row, for operators.
    #[must_use]
    pub fn new(options: &PgConnectOptions, reader: PgReader, partition: Partition, worker: &str) -> Self {
        let application_name = format!("stampede-partition-{partition}");
        let options = write_options(options, &application_name);
        let connection = Mutex::new(WriteConnection::new(options.clone()));
        let worker = worker.to_owned();
        let warm_connections = None;
        Self { options, reader, partition, worker, application_name, connection, warm_connections }
    }

    /// Takes over with one of these connections, if one is ready.
    #[must_use]
    pub fn with_warm_connections(mut self, warm_connections: Arc<WarmConnections>) -> Self {
        self.warm_connections = Some(warm_connections);
        self
    }

    /// The reader, for this partition and all others.
    #[must_use]
    pub const fn reader(&self) -> &PgReader {
        &self.reader
    }

    /// The partition.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.partition
    }
}
