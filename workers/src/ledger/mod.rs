//! The ledger: what is decided becomes durable here, and only what is here is believed.
//!
//! Guarantees:
//! - a batch is written by one statement that calls one Postgres function, or two, in one commit, or not at all;
//! - only the newest owner of a partition writes: `stampede.write_batch` compares epoch, nonce and write number;
//! - whatever happens to a call, the answer is one of [`WriteResult`], and "unknown" is one of them;
//! - every read is driven by an index, whatever the tables looked like when its plan was made.
//!
//! Reading order: [`write`](self) (`write.rs`, and `life.rs` for what becomes of codes once they are given) with its
//! error table (`errors.rs`); `takeover.rs`, with `spares.rs`; `read.rs` with `coupons.rs`, `codes.rs` (by number), `named.rs` (by name),
//! `due.rs` and `decided.rs`; `outbox.rs`. What all of them say of rows is in `rows.rs`.
//!
//! [`WriteResult`]: coupon_core::interface::WriteResult

mod codes;
mod coupons;
mod decided;
mod due;
mod errors;
mod life;
mod named;
mod outbox;
mod read;
mod rows;
mod spares;
mod takeover;
mod write;

pub use outbox::OutboxEntry;
pub use spares::Spares;

use std::sync::Arc;
use std::time::Duration;

use coupon_core::ids::Partition;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::messages::Messages;
use write::Writer;

/// Not much less: see the pools' in `runtime::postgres`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why something could not be read or taken over. Ask again: nothing was changed.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// What Postgres or the way to it reports.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// A row holds what this version cannot read; telling something else instead would be wrong.
    #[error("a row that this version cannot read ({0}): was it written by a newer one?")]
    Unreadable(String),
    /// It took too long.
    #[error("Postgres does not answer within {0:?}")]
    TimedOut(Duration),
}

/// What is read from the ledger; one for a whole worker, cloned at will.
#[derive(Clone, Debug)]
pub struct PgReader {
    pool: PgPool,
}

impl PgReader {
    /// Reads through a pool that [`read_pool`] made.
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
    name: String,
    messages: Messages,
    writer: Mutex<Writer>,
    spares: Option<Arc<Spares>>,
}

impl PgLedger {
    /// Connects when first used. `worker` is written to the partition's row, for people.
    #[must_use]
    pub fn new(
        options: &PgConnectOptions,
        reader: PgReader,
        partition: Partition,
        worker: &str,
        messages: Messages,
    ) -> Self {
        let name = format!("stampede-partition-{partition}");
        let options = writing(options, &name);
        let writer = Mutex::new(Writer::new(options.clone()));
        Self { options, reader, partition, worker: worker.to_owned(), name, messages, writer, spares: None }
    }

    /// Takes over with one of these connections, if one is ready.
    #[must_use]
    pub fn with_spares(mut self, spares: Arc<Spares>) -> Self {
        self.spares = Some(spares);
        self
    }

    /// What is read, of this partition and all others.
    #[must_use]
    pub const fn reader(&self) -> &PgReader {
        &self.reader
    }

    /// The partition it is about.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.partition
    }
}

/// How long a call waits for a row that another transaction has locked; then it is repeated.
const LOCK_TIMEOUT: &str = "3s";
/// How long a call may take at all; a batch takes milliseconds.
const STATEMENT_TIMEOUT: &str = "10s";

/// The pool that the ledgers of one worker read with: plans pinned, statements bounded.
#[must_use]
pub fn read_pool(options: &PgConnectOptions, max_connections: u32) -> PgPool {
    let options = runtime::postgres::force_index_plans(options.clone())
        .options([("statement_timeout", STATEMENT_TIMEOUT)]);
    runtime::postgres::eager_pool(options, max_connections)
}

/// How a connection that writes is opened.
fn writing(options: &PgConnectOptions, name: &str) -> PgConnectOptions {
    runtime::postgres::force_index_plans(options.clone()).application_name(name).options([
        ("lock_timeout", LOCK_TIMEOUT),
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("idle_in_transaction_session_timeout", STATEMENT_TIMEOUT),
    ])
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, LedgerError> {
    Ok(timeout(CONNECT_TIMEOUT, runtime::postgres::connect(options))
        .await
        .map_err(|_| LedgerError::TimedOut(CONNECT_TIMEOUT))??)
}
