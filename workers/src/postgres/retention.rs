//! Drops what is older than the retention: days of outcomes, what is left of the outbox, jobs without codes.
//!
//! A day goes in two steps, neither of which blocks a read or a write of another day: its table is detached
//! concurrently, then dropped. Any worker may do it; an advisory lock lets one at a time. A worker that dies in between
//! leaves a detached or a half-detached table, which the next one finishes.

use std::collections::BTreeMap;
use std::time::Duration;

use coupon_core::ids::{Offset, Partition};
use sqlx::postgres::{PgBindIterExt as _, PgConnectOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::timeout;

use super::LedgerError;
use super::connection::connect;

/// A concurrent detach waits for the end of every transaction that uses the table, a backup's for example. After this
/// time it is left pending, and the next round finishes it.
const STATEMENT_TIMEOUT: &str = "10min";
/// A drop waits so long for a session that reads the table, and is repeated in the next round.
const LOCK_TIMEOUT: &str = "5s";
/// Client-side limit of a round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(3_600);

const TRY_LOCK: &str = "select pg_try_advisory_lock(hashtextextended('stampede.retention', 0))";
const PENDING: &str = "
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'stampede.outcomes'::regclass and i.inhdetachpending";
/// Tables of days that are no longer part of `outcomes`.
const DETACHED: &str = "
    select c.relname from pg_class c
     where c.relnamespace = 'stampede'::regnamespace and c.relkind = 'r' and c.relname ~ '^outcomes_[0-9]{8}$'
       and not c.relispartition";

/// What is dropped, and when.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The connection.
    pub options: PgConnectOptions,
    /// Days for which outcomes are kept, after the day of their decision.
    pub days: i32,
    /// The deduplication window, in milliseconds.
    pub deduplication_ms: i64,
}

impl Retention {
    /// Drops what is due, unless another worker is at it. Returns the dropped tables.
    ///
    /// # Errors
    /// [`LedgerError`]: the next round continues.
    pub async fn apply(&self) -> Result<Vec<String>, LedgerError> {
        let options = self.options.clone().application_name("stampede-retention");
        let options =
            options.options([("statement_timeout", STATEMENT_TIMEOUT), ("lock_timeout", LOCK_TIMEOUT)]);
        let mut connection = connect(&options).await?;
        let dropped = timeout(ROUND_TIMEOUT, self.apply_on(&mut connection)).await;
        let dropped = dropped.map_err(|_| LedgerError::TimedOut(ROUND_TIMEOUT))??;
        // Releases the lock, too.
        connection.close().await?;
        Ok(dropped)
    }

    async fn apply_on(&self, connection: &mut PgConnection) -> Result<Vec<String>, LedgerError> {
        if !sqlx::query_scalar(TRY_LOCK).fetch_one(&mut *connection).await? {
            return Ok(Vec::new());
        }
        let leftovers = sqlx::query("select stampede.delete_leftovers($1)").bind(self.days);
        leftovers.execute(&mut *connection).await?;
        for table in tables(connection, PENDING).await? {
            run(
                connection,
                &format!("alter table stampede.outcomes detach partition stampede.{table} finalize"),
            )
            .await?;
        }
        let due: Vec<String> = sqlx::query_scalar("select stampede.droppable_days($1, $2)")
            .bind(self.days)
            .bind(self.deduplication_ms)
            .fetch_all(&mut *connection)
            .await?;
        for table in due {
            run(
                connection,
                &format!("alter table stampede.outcomes detach partition stampede.{table} concurrently"),
            )
            .await?;
        }
        let detached = tables(connection, DETACHED).await?;
        for table in &detached {
            run(connection, &format!("drop table stampede.{table}")).await?;
        }
        Ok(detached)
    }

    /// Records which of these partitions have decided their whole log. `running` has their next offsets, `ends` the ends
    /// of their logs, which were read later.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn record_caught_up(
        &self,
        running: &[(Partition, Offset)],
        ends: &BTreeMap<Partition, Offset>,
    ) -> Result<(), LedgerError> {
        let caught_up = || running.iter().filter(|(partition, next)| ends.get(partition) == Some(next));
        if caught_up().next().is_none() {
            return Ok(());
        }
        let options = self.options.clone().application_name("stampede-retention");
        let mut connection = connect(&options).await?;
        let record = sqlx::query("select stampede.record_caught_up($1, $2)")
            .bind(caught_up().map(|(partition, _)| partition.0).bind_iter())
            .bind(caught_up().map(|(_, end)| end.0).bind_iter())
            .execute(&mut connection);
        timeout(ROUND_TIMEOUT, record).await.map_err(|_| LedgerError::TimedOut(ROUND_TIMEOUT))??;
        Ok(connection.close().await?)
    }
}

async fn tables(connection: &mut PgConnection, query: &'static str) -> Result<Vec<String>, LedgerError> {
    Ok(sqlx::query_scalar(query).fetch_all(connection).await?)
}

/// The names of tables are those of our own: `outcomes_` and eight digits.
async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), LedgerError> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
    Ok(())
}
