//! Writing a batch: one call of `stampede.write_batch`, one round trip, one commit. This is where a claim becomes
//! durable, and where a previous owner is shut out. What happens to codes once they are given is written by a second
//! call in the same statement (`life.rs`).
//!
//! The columns of a batch go from its decisions straight into the call's buffer; nothing is copied in between.

mod transitions;

use std::time::Duration;

use coupon_core::batch::{Batch, Decision, Verdict};
use coupon_core::ids::{CodeNumber, RequestId};
use coupon_core::interface::WriteResult;
use sqlx::postgres::{PgArguments, PgBindIterExt as _};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::WriteConnection;
use super::errors::{connection_survives, result_of};
use super::{LedgerError, PgLedger};
use crate::codec::messages::Message;
use transitions::{Life, WRITE_LIFE};

/// Longer than Postgres itself lets a statement run: only a server that is gone or frozen reaches it.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Days whose tables are made at once: the next midnight finds its table.
const DAYS_AHEAD: i32 = 3;

/// The day of a batch, of days since 1970.
pub(super) const DAY: &str = "date '1970-01-01' + $12::int";
/// How many parameters [`WRITE_BATCH`] has.
pub(super) const WRITE_BATCH_PARAMETERS: usize = 57;
pub(super) const WRITE_BATCH: &str = "select stampede.write_batch(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, date '1970-01-01' + $12::int,
    $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25, $26, $27, $28,
    $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47,
    $48, $49, $50, $51, $52, $53, $54, $55, $56, $57)";

impl PgLedger {
    /// Writes a batch, or nothing. Call it again with the same batch as often as its answer says so.
    pub async fn write(&self, batch: &Batch) -> WriteResult {
        let life = match Life::of(batch) {
            Ok(life) => life,
            Err(wrong) => return WriteResult::Mismatch(wrong),
        };
        let columns = Columns { batch, life: life.as_ref() };
        if let Some(wrong) = columns.contradiction() {
            return WriteResult::Mismatch(wrong);
        }
        let messages = self.messages.of(batch);
        let mut own = self.connection.lock().await;
        let mut connection = match own.take().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(partition = self.partition.0, %error, "no connection to write with");
                return WriteResult::Retry;
            }
        };
        if let Err(error) = ensure_day(&mut own, &mut connection, &columns).await {
            tracing::warn!(partition = self.partition.0, %error, "the tables of a day cannot be made");
            return WriteResult::Retry;
        }
        let call = Box::pin(columns.call(&messages).execute(&mut connection));
        match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(_)) => {
                own.put_back(connection);
                WriteResult::Written
            }
            Ok(Err(error)) => {
                if connection_survives(&error) {
                    own.put_back(connection);
                }
                let result = result_of(&error);
                tracing::warn!(partition = self.partition.0, write_no = batch.fence.write_no.0, %error, ?result, "not written");
                result
            }
            Err(_) => WriteResult::Unknown,
        }
    }
}

/// Makes the daily tables that a batch needs, if they are not known to exist.
async fn ensure_day(
    own: &mut WriteConnection,
    connection: &mut PgConnection,
    columns: &Columns<'_>,
) -> Result<(), LedgerError> {
    let day = day_of(columns.batch);
    if own.known_days.contains(&day) || !columns.need_a_day() {
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

fn day_of(batch: &Batch) -> i32 {
    i32::try_from(batch.position.time.0.div_euclid(DAY_MS)).unwrap_or(i32::MAX)
}

pub(super) type Call<'q> = Query<'q, Postgres, PgArguments>;

/// A batch as the columns of its call.
struct Columns<'b> {
    batch: &'b Batch,
    /// What a second call in the same statement writes; all claims are there then.
    life: Option<&'b Life<'b>>,
}

impl<'b> Columns<'b> {
    /// Columns are cut from the decisions by filters; what none of them takes would be lost without a word.
    fn contradiction(&self) -> Option<String> {
        let batch = self.batch;
        let elsewhere = self.life.map_or(0, |life| life.ids().count());
        let columns = self.claims().count() + self.rejections().count() + elsewhere;
        if columns != batch.decisions.len() {
            return Some(format!("{} decisions make {columns} rows", batch.decisions.len()));
        }
        (batch.publishes() != batch.emit_seq.is_some())
            .then(|| format!("outbox entry {:?} does not fit", batch.emit_seq))
    }

    fn need_a_day(&self) -> bool {
        self.rejections().next().is_some() || self.life.is_some_and(Life::needs_a_day)
    }

    fn claims(&self) -> impl Iterator<Item = (&'b Decision, i64, CodeNumber)> {
        let decisions: &[Decision] = if self.life.is_some() { &[] } else { &self.batch.decisions };
        decisions.iter().filter_map(|decision| match (&decision.verdict, decision.coupon) {
            (Verdict::Claimed { number, .. }, Some(coupon)) => Some((decision, coupon.0, *number)),
            _ => None,
        })
    }

    fn rejections(&self) -> impl Iterator<Item = (&'b Decision, &'static str)> {
        self.batch.decisions.iter().filter_map(|decision| match decision.verdict {
            Verdict::Rejected(reason) => Some((decision, reason.as_str())),
            Verdict::Claimed { .. } | Verdict::Changed(_) => None,
        })
    }

    /// Requests whose outcomes lie elsewhere, and are told with this batch.
    fn others(&self) -> impl Iterator<Item = RequestId> {
        let life = self.life.into_iter().flat_map(Life::ids);
        life.chain(self.batch.duplicates.iter().map(|decision| decision.request.id))
    }

    fn call<'q>(&'q self, messages: &'q [Message]) -> Call<'q> {
        let (fence, position) = (&self.batch.fence, &self.batch.position);
        let sql = if self.life.is_some() { WRITE_LIFE.as_str() } else { WRITE_BATCH };
        let call = sqlx::query(sql)
            .bind(fence.partition.0)
            .bind(fence.epoch.0)
            .bind(Uuid::from_u128(fence.nonce.0))
            .bind(fence.write_no.0)
            .bind(Uuid::from_u128(fence.attempt.0))
            .bind(position.next_offset.0)
            .bind(position.last_offset.0)
            .bind(position.last_digest)
            .bind(position.time.0)
            .bind(position.possible_duplicates_until.0)
            .bind(self.batch.watermark.0)
            .bind(day_of(self.batch));
        let call = self.bind_rejections(self.bind_claims(call));
        let call = bind_messages(self.bind_others(bind_stock(call, self.batch)), messages);
        self.life.into_iter().fold(call, |call, life| life.bind(call))
    }

    fn bind_claims<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        call.bind(self.claims().map(|(d, ..)| identity(d.request.id)).bind_iter())
            .bind(self.claims().map(|(d, ..)| d.request.id.body).bind_iter())
            .bind(self.claims().map(|(_, coupon, _)| coupon).bind_iter())
            .bind(self.claims().map(|(.., number)| number.0).bind_iter())
            .bind(self.claims().map(|(d, ..)| d.offset.0).bind_iter())
            .bind(self.claims().map(|(d, ..)| d.decided.0).bind_iter())
            .bind(self.claims().map(|(d, ..)| &*d.request.user).bind_iter())
    }

    fn bind_rejections<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        call.bind(self.rejections().map(|(d, _)| identity(d.request.id)).bind_iter())
            .bind(self.rejections().map(|(d, _)| d.request.id.body).bind_iter())
            .bind(self.rejections().map(|(d, _)| d.coupon.map(|coupon| coupon.0)).bind_iter())
            .bind(self.rejections().map(|(d, _)| d.offset.0).bind_iter())
            .bind(self.rejections().map(|(d, _)| d.decided.0).bind_iter())
            .bind(self.rejections().map(|(d, _)| d.request.kind.as_str()).bind_iter())
            .bind(self.rejections().map(|(_, reason)| reason).bind_iter())
            .bind(self.rejections().map(|(d, _)| &*d.request.user).bind_iter())
            .bind(
                self.rejections()
                    .map(|(d, _)| d.coupon.is_none().then_some(&*d.request.coupon_id))
                    .bind_iter(),
            )
    }

    fn bind_others<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        call.bind(self.others().map(identity).bind_iter()).bind(self.others().map(|id| id.body).bind_iter())
    }
}

fn identity(id: RequestId) -> Uuid {
    Uuid::from_u128(id.identity)
}

fn bind_stock<'q>(call: Call<'q>, batch: &'q Batch) -> Call<'q> {
    let stock = &batch.stock;
    call.bind(stock.iter().map(|s| s.coupon.0).bind_iter())
        .bind(stock.iter().map(|s| s.before.top).bind_iter())
        .bind(stock.iter().map(|s| s.before.cursor).bind_iter())
        .bind(stock.iter().map(|s| s.before.ahead).bind_iter())
        .bind(stock.iter().map(|s| s.before.returned).bind_iter())
        .bind(stock.iter().map(|s| s.before.locked).bind_iter())
        .bind(stock.iter().map(|s| s.before.redeemed).bind_iter())
        .bind(stock.iter().map(|s| s.before.revoked).bind_iter())
        .bind(stock.iter().map(|s| s.before.redemptions).bind_iter())
        .bind(stock.iter().map(|s| s.after.top).bind_iter())
        .bind(stock.iter().map(|s| s.after.cursor).bind_iter())
        .bind(stock.iter().map(|s| s.after.ahead).bind_iter())
        .bind(stock.iter().map(|s| s.after.returned).bind_iter())
        .bind(stock.iter().map(|s| s.after.claimed).bind_iter())
        .bind(stock.iter().map(|s| s.after.locked).bind_iter())
        .bind(stock.iter().map(|s| s.after.redeemed).bind_iter())
        .bind(stock.iter().map(|s| s.after.revoked).bind_iter())
        .bind(stock.iter().map(|s| s.after.redemptions).bind_iter())
        .bind(stock.iter().map(|s| s.passed).bind_iter())
        .bind(batch.loads.iter().map(|l| l.load.0).bind_iter())
        .bind(batch.loads.iter().map(|l| l.base).bind_iter())
        .bind(batch.returned_taken.iter().map(|r| r.0.0).bind_iter())
        .bind(batch.returned_taken.iter().map(|r| r.1.0).bind_iter())
}

fn bind_messages<'q>(call: Call<'q>, messages: &'q [Message]) -> Call<'q> {
    call.bind(messages.iter().map(|m| m.topic).bind_iter())
        .bind(messages.iter().map(|m| m.key.as_deref()).bind_iter())
        .bind(messages.iter().map(|m| m.value.as_deref()).bind_iter())
        .bind(messages.iter().map(headers).bind_iter())
}

fn headers(message: &Message) -> String {
    let headers = message.headers.iter().map(|(name, value)| (name.to_string(), value.as_str().into()));
    serde_json::Value::Object(headers.collect()).to_string()
}
