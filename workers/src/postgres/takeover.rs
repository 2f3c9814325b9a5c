//! Taking over a partition, and reading its row back after a write without a result.
//!
//! Both wait for a write that is still in flight. A session that blocks them too long is looked up: a worker of the same
//! partition is terminated (it was replaced, or its connection is dead), any other session is reported.

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use coupon_core::batch::Position;
use coupon_core::ids::{Attempt, EmitSeq, Epoch, Millis, Nonce, Offset, WriteNo};
use coupon_core::interface::PartitionRow;
use runtime::postgres::LEVEL;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::{WriteConnection, connect, tag_connection};
use super::rows::millis;
use super::{LedgerError, PgLedger};

/// A write takes milliseconds; a session that holds the row longer than this is looked up.
const LOOK_UP_BLOCKERS_AFTER: Duration = Duration::from_millis(500);
/// Time limit of one attempt; the caller retries.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);

const COLUMNS: &str = "epoch, nonce, write_no, attempt, next_offset, last_offset, last_digest, time_ms,
    suspect_until_ms, next_emit_seq, emitted_seq";

pub(super) static TAKE_OVER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "select {COLUMNS}, next_deadline_ms
           from (select (t.taken).*, t.next_deadline_ms from stampede.take_over_2($1, $2, $3, $4) t) t"
    )
});

/// Finds and terminates a predecessor in one statement: its process id cannot be reused in between.
const TERMINATE_BLOCKERS: &str = "
    select pid, application_name, coalesce(state, ''), coalesce(extract(epoch from now() - xact_start), 0)::bigint,
           application_name = $2 and pg_terminate_backend(pid)
      from pg_stat_activity
     where pid = any (pg_blocking_pids($1))";

impl PgLedger {
    /// Makes this worker the owner: after it every write of an earlier owner fails.
    ///
    /// # Errors
    /// [`LedgerError`]: ownership may or may not have changed. Retry; a repeated takeover is harmless.
    pub async fn take_over(&self, nonce: Nonce) -> Result<PartitionRow, LedgerError> {
        let mut own = self.connection.lock().await;
        let (mut connection, pid) = self.tagged_connection(&mut own).await?;
        let query = sqlx::query(TAKE_OVER.as_str()).bind(self.partition.0).bind(&self.worker);
        let row = query.bind(Uuid::from_u128(nonce.0)).bind(LEVEL).fetch_one(&mut connection);
        let row = self.terminating_blockers(pid, row).await?;
        own.put_back(connection);
        partition_row(&row)
    }

    /// This owner's connection, or a warm one, or a new one.
    async fn tagged_connection(&self, own: &mut WriteConnection) -> Result<(PgConnection, i32), LedgerError> {
        if !own.is_connected()
            && let Some(warm_connections) = &self.warm_connections
            && let Some(warm) = warm_connections.take(&self.application_name).await
        {
            return Ok(warm);
        }
        let mut connection = own.take().await?;
        let pid = self.tag(&mut connection).await?;
        Ok((connection, pid))
    }

    async fn tag(&self, connection: &mut PgConnection) -> Result<i32, LedgerError> {
        let tagged = timeout(ATTEMPT_TIMEOUT, tag_connection(connection, &self.application_name)).await;
        tagged.map_err(|_| LedgerError::TimedOut(ATTEMPT_TIMEOUT))?
    }

    /// The partition's row, once no write is in flight. Uses a new connection: the one that writes may be the one that is
    /// lost.
    ///
    /// # Errors
    /// [`LedgerError`]: retry until it succeeds.
    pub async fn read_back(&self) -> Result<PartitionRow, LedgerError> {
        let mut connection = connect(&self.options).await?;
        let sql = format!(
            "select {COLUMNS}, null::bigint from stampede.partitions where partition = $1 for update"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.partition.0);
        let pid = self.tag(&mut connection).await?;
        let row = self.terminating_blockers(pid, query.fetch_one(&mut connection)).await?;
        connection.close().await?;
        partition_row(&row)
    }

    /// Waits for a call of backend `pid`, and handles the sessions that block it.
    async fn terminating_blockers(
        &self,
        pid: i32,
        call: impl Future<Output = Result<PgRow, sqlx::Error>>,
    ) -> Result<PgRow, LedgerError> {
        let mut call = pin!(call);
        let waiting = async {
            loop {
                match timeout(LOOK_UP_BLOCKERS_AFTER, &mut call).await {
                    Ok(row) => return Ok(row?),
                    Err(_) => self.terminate_blockers(pid).await,
                }
            }
        };
        timeout(ATTEMPT_TIMEOUT, waiting).await.unwrap_or(Err(LedgerError::TimedOut(ATTEMPT_TIMEOUT)))
    }

    async fn terminate_blockers(&self, pid: i32) {
        let terminated = timeout(ATTEMPT_TIMEOUT, Box::pin(self.try_terminate_blockers(pid))).await;
        if let Err(error) = terminated.unwrap_or(Err(LedgerError::TimedOut(ATTEMPT_TIMEOUT))) {
            tracing::warn!(partition = self.partition.0, %error, "cannot look up what blocks the partition's row");
        }
    }

    async fn try_terminate_blockers(&self, pid: i32) -> Result<(), LedgerError> {
        let mut connection = connect(&self.options).await?;
        let blockers: Vec<(i32, String, String, i64, Option<bool>)> = sqlx::query_as(TERMINATE_BLOCKERS)
            .bind(pid)
            .bind(&self.application_name)
            .fetch_all(&mut connection)
            .await?;
        let partition = self.partition.0;
        for (pid, application_name, state, held_s, terminated) in blockers {
            if terminated == Some(true) {
                tracing::warn!(
                    partition,
                    pid,
                    state,
                    held_s,
                    "terminated an earlier owner's session that held the partition's row"
                );
            } else {
                tracing::warn!(
                    partition,
                    pid,
                    application_name,
                    state,
                    held_s,
                    "a foreign session holds the partition's row; end it with select pg_terminate_backend({pid})"
                );
            }
        }
        Ok(connection.close().await?)
    }
}

fn partition_row(row: &PgRow) -> Result<PartitionRow, LedgerError> {
    Ok(PartitionRow {
        epoch: Epoch(row.try_get(0)?),
        nonce: Nonce(row.try_get::<Option<Uuid>, _>(1)?.unwrap_or_default().as_u128()),
        write_no: WriteNo(row.try_get(2)?),
        attempt: row.try_get::<Option<Uuid>, _>(3)?.map(|attempt| Attempt(attempt.as_u128())),
        position: Position {
            next_offset: Offset(row.try_get(4)?),
            last_offset: Offset(row.try_get(5)?),
            last_digest: row.try_get(6)?,
            time: Millis(row.try_get(7)?),
            possible_duplicates_until: Millis(row.try_get(8)?),
        },
        next_emit_seq: EmitSeq(row.try_get(9)?),
        emitted_seq: EmitSeq(row.try_get(10)?),
        next_deadline: millis(row, 11)?,
    })
}
