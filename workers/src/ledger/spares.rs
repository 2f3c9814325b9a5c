//! Connections to Postgres that are open before a partition needs one: opening one takes longer than everything else
//! that a takeover asks of Postgres.
//!
//! A spare one belongs to nobody. Whoever takes it gives it its partition's name, by which a successor knows it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, SqlSafeStr as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::takeover::{INTRODUCE, TAKE_OVER};
use super::{LedgerError, connect, writing};

/// How often spare connections are looked at: a server that restarted has cut them.
const RHYTHM: Duration = Duration::from_secs(20);
/// How long after a takeover new ones are opened.
const AFTERWARDS: Duration = Duration::from_millis(250);
/// A connection that is slower than this is none to take over with.
const PATIENCE: Duration = Duration::from_secs(1);

/// The spare connections of one worker.
#[derive(Debug)]
pub struct Spares {
    options: PgConnectOptions,
    most: usize,
    ready: Mutex<Vec<PgConnection>>,
    taken: Notify,
}

impl Spares {
    /// None yet; [`Self::keep`] opens them.
    #[must_use]
    pub fn new(options: &PgConnectOptions, worker: &str, most: usize) -> Arc<Self> {
        let options = writing(options, &format!("stampede-spare-{worker}"));
        Arc::new(Self { options, most, ready: Mutex::default(), taken: Notify::new() })
    }

    /// A connection that can write, and is called `name` from now on, with the id of its process. `None`: connect.
    pub(super) async fn take(&self, name: &str) -> Option<(PgConnection, i32)> {
        while let Some(mut connection) = self.pop() {
            self.taken.notify_one();
            // One that was cut meanwhile says so at once.
            if let Ok(Ok(pid)) = timeout(PATIENCE, introduce(&mut connection, name)).await {
                return Some((connection, pid));
            }
        }
        None
    }

    /// Keeps as many ready as there should be. Never ends by itself.
    pub async fn keep(&self) {
        loop {
            if let Err(error) = self.refill().await {
                tracing::debug!(%error, "no spare connection to Postgres: takeovers are slower until there is one");
            }
            match timeout(RHYTHM, self.taken.notified()).await {
                // Partitions are being taken over: that comes first.
                Ok(()) => sleep(AFTERWARDS).await,
                Err(_) => self.look().await,
            }
        }
    }

    /// How many are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.lock().len()
    }

    /// Drops those that were cut. One at a time, so that hardly any is missing while it is looked at.
    async fn look(&self) {
        for _ in 0..self.ready() {
            let Some(mut connection) = self.pop_oldest() else { break };
            if let Ok(Ok(())) = timeout(PATIENCE, connection.ping()).await {
                self.lock().push(connection);
            }
        }
    }

    async fn refill(&self) -> Result<(), LedgerError> {
        while self.ready() < self.most {
            let connection = open(&self.options).await?;
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a connection its partition's name; answers the id of its process.
pub(super) async fn introduce(connection: &mut PgConnection, name: &str) -> Result<i32, LedgerError> {
    let (pid, _name): (i32, String) = sqlx::query_as(INTRODUCE).bind(name).fetch_one(connection).await?;
    Ok(pid)
}

/// With the statements of a takeover prepared.
async fn open(options: &PgConnectOptions) -> Result<PgConnection, LedgerError> {
    let mut connection = connect(options).await?;
    for statement in [INTRODUCE, TAKE_OVER.as_str()] {
        let prepared = (&mut connection).prepare(statement.into_sql_str());
        timeout(PATIENCE, prepared).await.map_err(|_| LedgerError::TimedOut(PATIENCE))??;
    }
    Ok(connection)
}
