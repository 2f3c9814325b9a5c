//! Connections to Postgres that are open before a partition needs one: opening a connection takes longer than all
//! statements of a takeover.
//!
//! A warm connection belongs to no partition. The takeover that takes it tags it with its partition's application name,
//! by which the next owner recognises it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, SqlSafeStr as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::LedgerError;
use super::connection::{TAG_CONNECTION, connect, tag_connection, write_options};
use super::takeover::TAKE_OVER;

/// How often warm connections are checked: a server restart cuts them.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// How long after a takeover new ones are opened.
const REFILL_DELAY: Duration = Duration::from_millis(250);
/// A connection that responds slower than this is not used for a takeover.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The warm connections of one worker.
#[derive(Debug)]
pub struct WarmConnections {
    options: PgConnectOptions,
    target: usize,
    ready: Mutex<Vec<PgConnection>>,
    taken: Notify,
}

impl WarmConnections {
    /// Empty; [`Self::maintain`] opens `target` connections.
    #[must_use]
    pub fn new(options: &PgConnectOptions, worker: &str, target: usize) -> Arc<Self> {
        let options = write_options(options, &format!("stampede-warm-{worker}"));
        Arc::new(Self { options, target, ready: Mutex::default(), taken: Notify::new() })
    }

    /// A connection that can write, tagged with `name`, and the process id of its backend. `None` if none is ready.
    pub(super) async fn take(&self, name: &str) -> Option<(PgConnection, i32)> {
        while let Some(mut connection) = self.pop() {
            self.taken.notify_one();
            // A connection that was cut fails here.
            if let Ok(Ok(pid)) = timeout(RESPONSE_TIMEOUT, tag_connection(&mut connection, name)).await {
                return Some((connection, pid));
            }
        }
        None
    }

    /// Keeps the target number of connections ready. Never returns.
    pub async fn maintain(&self) {
        loop {
            if let Err(error) = self.refill().await {
                tracing::debug!(%error, "cannot open a warm connection to Postgres: takeovers are slower meanwhile");
            }
            match timeout(CHECK_INTERVAL, self.taken.notified()).await {
                // Takeovers are running; they have priority.
                Ok(()) => sleep(REFILL_DELAY).await,
                Err(_) => self.check().await,
            }
        }
    }

    /// How many are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.lock().len()
    }

    /// Drops connections that were cut. Checks one at a time, so that the others stay available.
    async fn check(&self) {
        for _ in 0..self.ready() {
            let Some(mut connection) = self.pop_oldest() else { break };
            if let Ok(Ok(())) = timeout(RESPONSE_TIMEOUT, connection.ping()).await {
                self.lock().push(connection);
            }
        }
    }

    async fn refill(&self) -> Result<(), LedgerError> {
        while self.ready() < self.target {
            let connection = open_prepared(&self.options).await?;
            self.lock().push(connection);
        }
        Ok(())
    }

    fn pop(&self) -> Option<PgConnection> {
        self.lock().pop()
    }

    fn pop_oldest(&self) -> Option<PgConnection> {
        let mut ready = self.lock();
        if ready.is_empty() { None } else { Some(ready.remove(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection and prepares the statements of a takeover.
async fn open_prepared(options: &PgConnectOptions) -> Result<PgConnection, LedgerError> {
    let mut connection = connect(options).await?;
    for statement in [TAG_CONNECTION, TAKE_OVER.as_str()] {
        let prepared = (&mut connection).prepare(statement.into_sql_str());
        timeout(RESPONSE_TIMEOUT, prepared).await.map_err(|_| LedgerError::TimedOut(RESPONSE_TIMEOUT))??;
    }
    Ok(connection)
}
