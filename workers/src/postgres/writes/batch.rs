//! The rows of `stampede.write_batch`: plain claims, rejections, stock, and the outbox entry of a batch.

use coupon_core::batch::{Batch, Decision, Verdict};
use coupon_core::ids::{CodeNumber, CouponNo, RequestId};
use sqlx::postgres::PgBindIterExt as _;
use uuid::Uuid;

use super::sql_function::{Call, Function, Parameter, sql_function};
use super::transitions::TransitionRows;
use crate::codec::messages::Message;
use crate::postgres::rows::identity;

/// A batch as the rows of its call.
pub(super) struct BatchRows<'b> {
    batch: &'b Batch,
    /// Rows that a second function writes in the same statement; it then writes all claims.
    transitions: Option<&'b TransitionRows<'b>>,
    messages: &'b [Message],
}

sql_function! {
    write_batch(rows: BatchRows) {
        one batch in rows.batch => {
            p_partition: "int" = batch.fence.partition.0;
            p_epoch: "bigint" = batch.fence.epoch.0;
            p_nonce: "uuid" = Uuid::from_u128(batch.fence.nonce.0);
            p_write_no: "bigint" = batch.fence.write_no.0;
            p_attempt: "uuid" = Uuid::from_u128(batch.fence.attempt.0);
            p_next_offset: "bigint" = batch.position.next_offset.0;
            p_last_offset: "bigint" = batch.position.last_offset.0;
            p_last_digest: "bigint" = batch.position.last_digest;
            p_time_ms: "bigint" = batch.position.time.0;
            p_suspect_until_ms: "bigint" = batch.position.possible_duplicates_until.0;
            p_emitted_seq: "bigint" = batch.watermark.0;
            p_day: "date '1970-01-01' + $::int" = batch.position.time.day();
        }
        each claim in rows.claims() => {
            c_identity: "uuid" = identity(claim.decision.request.id);
            c_body: "bigint" = claim.decision.request.id.body;
            c_coupon: "bigint" = claim.coupon.0;
            c_number: "bigint" = claim.number.0;
            c_offset: "bigint" = claim.decision.offset.0;
            c_ms: "bigint" = claim.decision.decided.0;
            c_user: "text" = &*claim.decision.request.user;
        }
        each rejection in rows.rejections() => {
            o_identity: "uuid" = identity(rejection.decision.request.id);
            o_body: "bigint" = rejection.decision.request.id.body;
            o_coupon: "bigint" = rejection.decision.coupon.map(|coupon| coupon.0);
            o_offset: "bigint" = rejection.decision.offset.0;
            o_ms: "bigint" = rejection.decision.decided.0;
            o_kind: "text" = rejection.decision.request.kind.as_str();
            o_reason: "text" = rejection.reason;
            o_user: "text" = &*rejection.decision.request.user;
            o_target: "text" = rejection.unknown_coupon_id();
        }
        each stock in rows.batch.stock.iter() => {
            s_coupon: "bigint" = stock.coupon.0;
            s_was_top: "bigint" = stock.before.top;
            s_was_cursor: "bigint" = stock.before.cursor;
            s_was_ahead: "bigint" = stock.before.ahead;
            s_was_returned: "bigint" = stock.before.returned;
            s_was_locked: "bigint" = stock.before.locked;
            s_was_redeemed: "bigint" = stock.before.redeemed;
            s_was_revoked: "bigint" = stock.before.revoked;
            s_was_redemptions: "bigint" = stock.before.redemptions;
            s_top: "bigint" = stock.after.top;
            s_cursor: "bigint" = stock.after.cursor;
            s_ahead: "bigint" = stock.after.ahead;
            s_returned: "bigint" = stock.after.returned;
            s_claimed: "bigint" = stock.after.claimed;
            s_locked: "bigint" = stock.after.locked;
            s_redeemed: "bigint" = stock.after.redeemed;
            s_revoked: "bigint" = stock.after.revoked;
            s_redemptions: "bigint" = stock.after.redemptions;
            s_passed: "bigint" = stock.passed;
        }
        each load in rows.batch.loads.iter() => {
            l_load: "bigint" = load.load.0;
            l_base: "bigint" = load.base;
        }
        each returned in rows.batch.returned_taken.iter() => {
            r_coupon: "bigint" = returned.0.0;
            r_number: "bigint" = returned.1.0;
        }
        each id in rows.stored_elsewhere() => {
            x_identity: "uuid" = identity(id);
            x_body: "bigint" = id.body;
        }
        each message in rows.messages.iter() => {
            m_topic: "text" = message.topic;
            m_key: "bytea" = message.key.as_deref();
            m_value: "bytea" = message.value.as_deref();
            m_headers: "text" = headers(message);
        }
    }
}

struct Claim<'b> {
    decision: &'b Decision,
    coupon: CouponNo,
    number: CodeNumber,
}

struct Rejection<'b> {
    decision: &'b Decision,
    reason: &'static str,
}

impl<'b> Rejection<'b> {
    /// The coupon id of the request, if no such coupon exists: the row then refers to no coupon.
    fn unknown_coupon_id(&self) -> Option<&'b str> {
        self.decision.coupon.is_none().then_some(&*self.decision.request.coupon_id)
    }
}

impl<'b> BatchRows<'b> {
    /// # Errors
    /// A batch whose outcomes would not all be written, or not all be published.
    pub(super) fn new(
        batch: &'b Batch,
        transitions: Option<&'b TransitionRows<'b>>,
        messages: &'b [Message],
    ) -> Result<Self, String> {
        let rows = Self { batch, transitions, messages };
        let elsewhere = transitions.map_or(0, |transitions| transitions.ids().count());
        let count = rows.claims().count() + rows.rejections().count() + elsewhere;
        if count != batch.decisions.len() {
            return Err(format!("{} decisions make {count} rows", batch.decisions.len()));
        }
        if batch.publishes() != batch.emit_seq.is_some() {
            return Err(format!("outbox entry {:?} does not match the batch", batch.emit_seq));
        }
        Ok(rows)
    }

    /// Whether a row belongs to the outcome table of the batch's day.
    pub(super) fn has_daily_rows(&self) -> bool {
        self.rejections().next().is_some() || self.transitions.is_some_and(TransitionRows::has_daily_rows)
    }

    fn claims(&self) -> impl Iterator<Item = Claim<'b>> {
        let decisions: &[Decision] = if self.transitions.is_some() { &[] } else { &self.batch.decisions };
        decisions.iter().filter_map(|decision| match (&decision.verdict, decision.coupon) {
            (Verdict::Claimed { number, .. }, Some(coupon)) => {
                Some(Claim { decision, coupon, number: *number })
            }
            _ => None,
        })
    }

    fn rejections(&self) -> impl Iterator<Item = Rejection<'b>> {
        self.batch.decisions.iter().filter_map(|decision| match decision.verdict {
            Verdict::Rejected(reason) => Some(Rejection { decision, reason: reason.as_str() }),
            Verdict::Claimed { .. } | Verdict::Changed(_) => None,
        })
    }

    /// Requests that are published with this batch, and whose outcomes are in rows of other tables or batches.
    fn stored_elsewhere(&self) -> impl Iterator<Item = RequestId> {
        let transitions = self.transitions.into_iter().flat_map(TransitionRows::ids);
        transitions.chain(self.batch.duplicates.iter().map(|decision| decision.request.id))
    }
}

fn headers(message: &Message) -> String {
    let headers = message.headers.iter().map(|(name, value)| (name.to_string(), value.as_str().into()));
    serde_json::Value::Object(headers.collect()).to_string()
}
