//! Connections of a worker to Postgres: how they are opened, bounded and tagged.

use std::ops::Range;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;

use super::LedgerError;

/// Not much less than the pools' timeout in `runtime::postgres`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a call waits for a row that another transaction has locked; then it is retried.
const LOCK_TIMEOUT: &str = "3s";
/// How long a statement may take; a batch takes milliseconds.
const STATEMENT_TIMEOUT: &str = "10s";

/// Returns the process id of a connection's backend, and sets the connection's application name.
pub(super) const TAG_CONNECTION: &str = "select pg_backend_pid(), set_config('application_name', $1, false)";

/// The pool that the ledgers of one worker read with: plans pinned, statements bounded.
#[must_use]
pub fn read_pool(options: &PgConnectOptions, max_connections: u32) -> PgPool {
    let options = runtime::postgres::force_index_plans(options.clone())
        .options([("statement_timeout", STATEMENT_TIMEOUT)]);
    runtime::postgres::eager_pool(options, max_connections)
}

/// Options of a connection that writes.
pub(super) fn write_options(options: &PgConnectOptions, application_name: &str) -> PgConnectOptions {
    runtime::postgres::force_index_plans(options.clone()).application_name(application_name).options([
        ("lock_timeout", LOCK_TIMEOUT),
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("idle_in_transaction_session_timeout", STATEMENT_TIMEOUT),
    ])
}

pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, LedgerError> {
    Ok(timeout(CONNECT_TIMEOUT, runtime::postgres::connect(options))
        .await
        .map_err(|_| LedgerError::TimedOut(CONNECT_TIMEOUT))??)
}

/// Sets the application name of a connection; returns the process id of its backend.
pub(super) async fn tag_connection(connection: &mut PgConnection, name: &str) -> Result<i32, LedgerError> {
    let (pid, _name): (i32, String) = sqlx::query_as(TAG_CONNECTION).bind(name).fetch_one(connection).await?;
    Ok(pid)
}

/// The one connection that writes to a partition. It is taken out for each call and put back only after a definite
/// result, so that a call that timed out never shares a connection with the next.
#[derive(Debug)]
pub(super) struct WriteConnection {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    /// Days since 1970 whose outcome tables are known to exist.
    pub(super) known_days: Range<i32>,
}

impl WriteConnection {
    pub(super) const fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None, known_days: 0..0 }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) async fn take(&mut self) -> Result<PgConnection, LedgerError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => connect(&self.options).await,
        }
    }

    pub(super) fn put_back(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
    }
}
