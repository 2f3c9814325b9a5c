//! Becoming the owner of a partition, and reading its row back after an answer that never came.
//!
//! Both wait for a write that is still in flight. Whoever makes them wait too long is found: a worker of the same
//! partition is ended (it has been replaced, or its connection is dead), anybody else is reported.

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use coupon_core::batch::Position;
use coupon_core::ids::{Attempt, EmitSeq, Epoch, Millis, Nonce, Offset, WriteNo};
use coupon_core::interface::PartitionRow;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::time::timeout;
use uuid::Uuid;

use super::rows::millis;
use super::spares::introduce;
use super::write::Writer;
use super::{LedgerError, PgLedger, connect};

/// A write takes milliseconds; whoever holds the row longer than this is looked at.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Bounds the whole attempt; the caller repeats it.
const ATTEMPT: Duration = Duration::from_secs(12);

const COLUMNS: &str = "epoch, nonce, write_no, attempt, next_offset, last_offset, last_digest, time_ms,
    suspect_until_ms, next_emit_seq, emitted_seq";

pub(super) static TAKE_OVER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "select {COLUMNS}, next_deadline_ms
           from (select (t.taken).*, t.next_deadline_ms from stampede.take_over($1, $2, $3) t) t"
    )
});

/// Asks a connection which process serves it, and calls it after its partition.
pub(super) const INTRODUCE: &str = "select pg_backend_pid(), set_config('application_name', $1, false)";

/// Ends a predecessor in the same statement that finds it: its process id cannot become somebody else's meanwhile.
const CLEAR_THE_WAY: &str = "
    select pid, application_name, coalesce(state, ''), coalesce(extract(epoch from now() - xact_start), 0)::bigint,
           application_name = $2 and pg_terminate_backend(pid)
      from pg_stat_activity
     where pid = any (pg_blocking_pids($1))";

impl PgLedger {
    /// Makes this worker the owner: from now on every write of a previous owner fails. Repeat it until it succeeds.
    ///
    /// # Errors
    /// [`LedgerError`]: ownership may or may not have changed; taking over again is always right.
    pub async fn take_over(&self, nonce: Nonce) -> Result<PartitionRow, LedgerError> {
        let mut writer = self.writer.lock().await;
        let (mut connection, pid) = self.connection_of(&mut writer).await?;
        let query = sqlx::query(TAKE_OVER.as_str()).bind(self.partition.0).bind(&self.worker);
        let row = query.bind(Uuid::from_u128(nonce.0)).fetch_one(&mut connection);
        let row = self.watch(pid, row).await?;
        writer.put(connection);
        partition_row(&row)
    }

    /// What this owner has, or a spare one, or a new one.
    async fn connection_of(&self, writer: &mut Writer) -> Result<(PgConnection, i32), LedgerError> {
        if !writer.is_connected()
            && let Some(spares) = &self.spares
            && let Some(spare) = spares.take(&self.name).await
        {
            return Ok(spare);
        }
        let mut connection = writer.take().await?;
        let introduced = timeout(ATTEMPT, introduce(&mut connection, &self.name)).await;
        let pid = introduced.map_err(|_| LedgerError::TimedOut(ATTEMPT))??;
        Ok((connection, pid))
    }

    /// The partition's row, once no write is in flight any more. On a connection of its own: the one that writes
    /// may be the one that is lost.
    ///
    /// # Errors
    /// [`LedgerError`]: repeat it until it succeeds.
    pub async fn read_back(&self) -> Result<PartitionRow, LedgerError> {
        let mut connection = connect(&self.options).await?;
        let sql = format!(
            "select {COLUMNS}, null::bigint from stampede.partitions where partition = $1 for update"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.partition.0);
        let introduced = timeout(ATTEMPT, introduce(&mut connection, &self.name)).await;
        let pid = introduced.map_err(|_| LedgerError::TimedOut(ATTEMPT))??;
        let row = self.watch(pid, query.fetch_one(&mut connection)).await?;
        connection.close().await?;
        partition_row(&row)
    }

    /// Waits for a call of backend `pid`, and looks from time to time at who keeps it waiting.
    async fn watch(
        &self,
        pid: i32,
        call: impl Future<Output = Result<PgRow, sqlx::Error>>,
    ) -> Result<PgRow, LedgerError> {
        let mut call = pin!(call);
        let waiting = async {
            loop {
                match timeout(LOOK_AFTER, &mut call).await {
                    Ok(answer) => return Ok(answer?),
                    Err(_) => self.clear_the_way(pid).await,
                }
            }
        };
        timeout(ATTEMPT, waiting).await.unwrap_or(Err(LedgerError::TimedOut(ATTEMPT)))
    }

    async fn clear_the_way(&self, pid: i32) {
        let looked = timeout(ATTEMPT, Box::pin(self.find_and_end(pid))).await;
        if let Err(error) = looked.unwrap_or(Err(LedgerError::TimedOut(ATTEMPT))) {
            tracing::warn!(partition = self.partition.0, %error, "who blocks the partition's row cannot be found");
        }
    }

    async fn find_and_end(&self, pid: i32) -> Result<(), LedgerError> {
        let mut connection = connect(&self.options).await?;
        let blockers: Vec<(i32, String, String, i64, Option<bool>)> =
            sqlx::query_as(CLEAR_THE_WAY).bind(pid).bind(&self.name).fetch_all(&mut connection).await?;
        for (pid, application_name, state, held_s, ended) in blockers {
            let partition = self.partition.0;
            if ended == Some(true) {
                tracing::warn!(
                    partition,
                    pid,
                    state,
                    held_s,
                    "ended a predecessor that held the partition's row"
                );
            } else {
                tracing::warn!(
                    partition,
                    pid,
                    application_name,
                    state,
                    held_s,
                    "somebody holds the partition's row; end it with select pg_terminate_backend({pid})"
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
