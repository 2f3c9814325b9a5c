//! Writes a batch with one statement: one round trip, one commit. A claim becomes durable here, and a previous owner is
//! fenced off here.
//!
//! [`batch`] has the rows of `stampede.write_batch`. [`transitions`] has those of `stampede.write_life`, which the same
//! statement calls after it if the batch changes codes in any other way than giving them. [`sql_function`] generates the
//! statements from one declaration per parameter.

mod batch;
mod sql_function;
mod transitions;

use std::sync::LazyLock;
use std::time::Duration;

use coupon_core::interface::WriteResult;
use sqlx::PgConnection;
use tokio::time::timeout;

use super::connection::WriteConnection;
use super::errors::{connection_survives, result_of};
use super::{LedgerError, PgLedger};
use crate::codec::messages::EncodedBatch;
use batch::BatchRows;
use sql_function::{Call, select};
use transitions::TransitionRows;

/// Longer than Postgres' own limits: reached only if the server is gone or frozen.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Days whose tables are created together: the table of the next day exists before midnight.
const DAYS_AHEAD: i32 = 3;

static WRITE_BATCH: LazyLock<String> = LazyLock::new(|| select(&[&BatchRows::FUNCTION]));
/// Postgres evaluates the list from left to right.
static WRITE_BATCH_AND_LIFE: LazyLock<String> =
    LazyLock::new(|| select(&[&BatchRows::FUNCTION, &TransitionRows::FUNCTION]));

impl PgLedger {
    /// Writes a batch, or nothing. Call it again with the same batch only if the result requires it.
    pub async fn write(&self, encoded: &EncodedBatch) -> WriteResult {
        let batch = &**encoded.batch();
        let transitions = match TransitionRows::of(batch) {
            Ok(transitions) => transitions,
            Err(contradiction) => return WriteResult::Mismatch(contradiction),
        };
        let rows = match BatchRows::new(batch, transitions.as_ref(), encoded.messages()) {
            Ok(rows) => rows,
            Err(contradiction) => return WriteResult::Mismatch(contradiction),
        };
        let mut own = self.connection.lock().await;
        let mut connection = match own.take().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(partition = self.partition.0, %error, "no connection to write with");
                return WriteResult::Retry;
            }
        };
        if rows.has_daily_rows()
            && let Err(error) = ensure_day(&mut own, &mut connection, batch.position.time.day()).await
        {
            tracing::warn!(partition = self.partition.0, %error, "cannot create the outcome tables of a day");
            return WriteResult::Retry;
        }
        let call = Box::pin(call(&rows, transitions.as_ref()).execute(&mut connection));
        match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(_)) => {
                own.put_back(connection);
                WriteResult::Written
            }
            Ok(Err(error)) => {
                if connection_survives(&error) {
                    own.put_back(connection);
                }
                // The table of a day may be the reason.
                own.known_days = 0..0;
                let result = result_of(&error);
                tracing::warn!(partition = self.partition.0, write_no = batch.fence.write_no.0, %error, ?result, "not written");
                result
            }
            Err(_) => WriteResult::Unknown,
        }
    }
}

fn call<'q>(rows: &'q BatchRows<'_>, transitions: Option<&'q TransitionRows<'_>>) -> Call<'q> {
    match transitions {
        None => rows.bind(sqlx::query(WRITE_BATCH.as_str())),
        Some(transitions) => transitions.bind(rows.bind(sqlx::query(WRITE_BATCH_AND_LIFE.as_str()))),
    }
}

/// Creates the outcome tables of a day and of the days after it, if they are not known to exist.
async fn ensure_day(
    own: &mut WriteConnection,
    connection: &mut PgConnection,
    day: i32,
) -> Result<(), LedgerError> {
    if own.known_days.contains(&day) {
        return Ok(());
    }
    let ensure = sqlx::query("select stampede.ensure_outcome_days(date '1970-01-01' + $1::int, $2)")
        .bind(day)
        .bind(DAYS_AHEAD)
        .execute(connection);
    timeout(CALL_TIMEOUT, ensure).await.map_err(|_| LedgerError::TimedOut(CALL_TIMEOUT))??;
    own.known_days = day..day + DAYS_AHEAD;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_of_both_functions_is_bound() {
        let bound = BatchRows::FUNCTION.parameters.len() + TransitionRows::FUNCTION.parameters.len();
        let sql = WRITE_BATCH_AND_LIFE.as_str();
        assert!(sql.contains(&format!("${bound}::")) && !sql.contains(&format!("${}", bound + 1)), "{sql}");
        assert!(!sql.contains("$0"), "a shared parameter is not bound: {sql}");
    }
}
