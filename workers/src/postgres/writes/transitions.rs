//! The rows of `stampede.write_life`: everything that a batch does to codes beyond giving them. The function is called in
//! the same statement as `write_batch` and after it, and only if there are such rows: a batch of plain claims and
//! rejections costs nothing here.

use std::borrow::Cow;
use std::collections::HashMap;

use coupon_core::batch::{Batch, Changed, ClaimChange, Decision, Redemption, RolledBack, Verdict};
use coupon_core::claim::ClaimStatus;
use coupon_core::ids::{CodeNumber, CouponNo, Millis, RequestId};
use coupon_core::words::{ClaimState, Kind};
use sqlx::postgres::PgBindIterExt as _;

use super::sql_function::{Call, Function, Parameter, sql_function};
use crate::postgres::rows::{identity, redeemed, state_no};

/// The rows of one batch.
pub(super) struct TransitionRows<'b> {
    batch: &'b Batch,
    /// Changes of claims that existed before.
    changes: Vec<Change<'b>>,
    claims: Vec<Claimed<'b>>,
    redemptions: Vec<Redeemed<'b>>,
    /// Accepted requests that are neither claims nor redemptions.
    others: Vec<Other<'b>>,
    /// Rollbacks of redemptions that existed before.
    rolled_back: Vec<&'b RolledBack>,
}

sql_function! {
    write_life(rows: TransitionRows) sharing (
        p_partition: "int";
        p_epoch: "bigint";
        p_nonce: "uuid";
        p_write_no: "bigint";
        p_day: "date '1970-01-01' + $::int";
    ) {
        each change in rows.changes.iter() => {
            u_identity: "uuid" = identity(change.change.claim.id);
            u_was_state: "smallint" = state_no(change.state_before);
            u_was_deadline: "bigint" = millis(change.deadline_before);
            u_state: "smallint" = state_no(change.change.claim.status.state);
            u_hold_until: "bigint" = millis(change.change.claim.status.hold_until);
            u_lock_until: "bigint" = millis(change.change.claim.status.lock_until);
            u_order: "text" = change.change.claim.status.order.as_deref();
            u_lapsed: "bigint" = millis(change.change.claim.status.lapsed);
        }
        each claim in rows.claims.iter() => {
            c_identity: "uuid" = identity(claim.decision.request.id);
            c_body: "bigint" = claim.decision.request.id.body;
            c_coupon: "bigint" = claim.coupon.0;
            c_number: "bigint" = claim.number.0;
            c_offset: "bigint" = claim.decision.offset.0;
            c_ms: "bigint" = claim.decision.decided.0;
            c_user: "text" = &*claim.decision.request.user;
            c_first_hold: "bigint" = millis(claim.first_hold);
            c_state: "smallint" = state_no(claim.status.state);
            c_hold_until: "bigint" = millis(claim.status.hold_until);
            c_lock_until: "bigint" = millis(claim.status.lock_until);
            c_order: "text" = claim.status.order.as_deref();
            c_lapsed: "bigint" = millis(claim.status.lapsed);
        }
        each rollback in rows.rolled_back.iter() => {
            b_identity: "uuid" = identity(rollback.id);
            b_body: "bigint" = rollback.id.body;
            b_ms: "bigint" = rollback.at.0;
        }
        each redeemed in rows.redemptions.iter() => {
            d_identity: "uuid" = identity(redeemed.decision.request.id);
            d_body: "bigint" = redeemed.decision.request.id.body;
            d_coupon: "bigint" = redeemed.coupon.0;
            d_number: "bigint" = redeemed.changed.number.0;
            d_offset: "bigint" = redeemed.decision.offset.0;
            d_ms: "bigint" = redeemed.redemption.redeemed.0;
            d_claimed: "bigint" = millis(redeemed.changed.claimed);
            d_user: "text" = &*redeemed.decision.request.user;
            d_order: "text" = &*redeemed.redemption.order;
            d_amount: "text" = redeemed.redemption.amount.to_string();
            d_discount: "text" = redeemed.redemption.discount.to_string();
            d_price: "text" = redeemed.redemption.final_price.to_string();
            d_currency: "text" = &*redeemed.redemption.currency;
            d_rolled_back: "bigint" = millis(redeemed.rolled_back);
        }
        each other in rows.others.iter() => {
            a_identity: "uuid" = identity(other.decision.request.id);
            a_body: "bigint" = other.decision.request.id.body;
            a_coupon: "bigint" = other.coupon.0;
            a_offset: "bigint" = other.decision.offset.0;
            a_ms: "bigint" = other.decision.decided.0;
            a_kind: "text" = other.decision.request.kind.as_str();
            a_user: "text" = &*other.decision.request.user;
            a_number: "bigint" = other.changed.number.0;
            a_state: "smallint" = other.changed.state.map(state_no);
            a_claimed: "bigint" = millis(other.changed.claimed);
            a_hold_until: "bigint" = millis(other.changed.hold_until);
            a_lock_until: "bigint" = millis(other.changed.lock_until);
            a_order: "text" = other.changed.order.as_deref();
            a_redemption: "uuid" = other.rolled_back().map(identity);
            a_redemption_body: "bigint" = other.rolled_back().map(|id| id.body);
        }
        each flags in rows.batch.code_flags.iter() => {
            k_coupon: "bigint" = flags.coupon.0;
            k_number: "bigint" = flags.number.0;
            k_was_uses: "bigint" = flags.before.uses;
            k_was_revoked: "boolean" = flags.before.revoked;
            k_uses: "bigint" = flags.after.uses;
            k_revoked: "boolean" = flags.after.revoked;
        }
        each freed in rows.batch.ahead_freed.iter() => {
            f_coupon: "bigint" = freed.0.0;
            f_number: "bigint" = freed.1.0;
        }
        each taken in rows.batch.ahead_taken.iter() => {
            t_coupon: "bigint" = taken.0.0;
            t_number: "bigint" = taken.1.0;
        }
        each returned in rows.batch.returned_added.iter() => {
            r_coupon: "bigint" = returned.0.0;
            r_number: "bigint" = returned.1.0;
        }
    }
}

struct Change<'b> {
    change: &'b ClaimChange,
    state_before: ClaimState,
    deadline_before: Option<Millis>,
}

/// A claim of this batch, in its state after the batch.
struct Claimed<'b> {
    decision: &'b Decision,
    coupon: CouponNo,
    number: CodeNumber,
    first_hold: Option<Millis>,
    status: Cow<'b, ClaimStatus>,
}

/// A redemption of this batch, in its state after the batch.
struct Redeemed<'b> {
    decision: &'b Decision,
    coupon: CouponNo,
    changed: &'b Changed,
    redemption: &'b Redemption,
    rolled_back: Option<Millis>,
}

/// An accepted request that is neither a claim nor a redemption.
struct Other<'b> {
    decision: &'b Decision,
    coupon: CouponNo,
    changed: &'b Changed,
}

impl Other<'_> {
    fn rolled_back(&self) -> Option<RequestId> {
        self.changed.redemption.as_ref().map(|redemption| redemption.id)
    }
}

impl<'b> TransitionRows<'b> {
    /// `None` if `write_batch` alone writes everything.
    ///
    /// # Errors
    /// A part of the batch for which there is no row.
    pub(super) fn of(batch: &'b Batch) -> Result<Option<Self>, String> {
        if is_plain(batch) {
            return Ok(None);
        }
        let mut folded = FoldedChanges::of(batch)?;
        let mut rows = Self {
            batch,
            changes: batch.claims.iter().filter_map(Change::of).collect(),
            claims: Vec::new(),
            redemptions: Vec::new(),
            others: Vec::new(),
            rolled_back: batch.rolled_back.iter().filter(|rollback| !rollback.made_here).collect(),
        };
        for decision in &batch.decisions {
            rows.add(decision, &mut folded).map_err(|error| {
                format!("request {} ({}): {error}", decision.request.id, decision.request.kind)
            })?;
        }
        folded.ensure_used_up()?;
        Ok(Some(rows))
    }

    fn add(&mut self, decision: &'b Decision, folded: &mut FoldedChanges<'b>) -> Result<(), &'static str> {
        if matches!(decision.verdict, Verdict::Rejected(_)) {
            return Ok(());
        }
        let coupon = decision.coupon.ok_or("accepted without a coupon")?;
        if (decision.request.kind == Kind::Claim) != matches!(decision.verdict, Verdict::Claimed { .. }) {
            return Err("its kind has no such verdict");
        }
        match &decision.verdict {
            Verdict::Rejected(_) => {}
            Verdict::Claimed { number, hold_until, .. } => {
                let status = match folded.claims.remove(&decision.request.id) {
                    Some(claim) if (claim.coupon, claim.number) != (coupon, *number) => {
                        return Err("its claim is of another code");
                    }
                    Some(claim) => Cow::Borrowed(&claim.status),
                    None => Cow::Owned(ClaimStatus::claimed(*hold_until)),
                };
                let (number, first_hold) = (*number, *hold_until);
                self.claims.push(Claimed { decision, coupon, number, first_hold, status });
            }
            Verdict::Changed(changed) if decision.request.kind == Kind::Redeem => {
                let redemption = redemption_of(decision, changed)?;
                let rolled_back = folded.rolled_back.remove(&decision.request.id);
                self.redemptions.push(Redeemed { decision, coupon, changed, redemption, rolled_back });
            }
            Verdict::Changed(changed) => {
                if (decision.request.kind == Kind::Rollback) != changed.redemption.is_some() {
                    return Err("only a rollback refers to a redemption");
                }
                self.others.push(Other { decision, coupon, changed });
            }
        }
        Ok(())
    }

    /// Requests whose outcomes are written here, and not by `write_batch`.
    pub(super) fn ids(&self) -> impl Iterator<Item = RequestId> {
        let claims = self.claims.iter().map(|claim| claim.decision.request.id);
        let redemptions = self.redemptions.iter().map(|redemption| redemption.decision.request.id);
        claims.chain(redemptions).chain(self.others.iter().map(|other| other.decision.request.id))
    }

    /// Whether a row belongs to the outcome table of the batch's day.
    pub(super) const fn has_daily_rows(&self) -> bool {
        !self.others.is_empty()
    }
}

impl<'b> Change<'b> {
    fn of(change: &'b ClaimChange) -> Option<Self> {
        let (state_before, deadline_before) = change.before?;
        Some(Self { change, state_before, deadline_before })
    }
}

/// The redemption of a decision, whose outcome must be rebuilt from the redemption's row alone.
fn redemption_of<'b>(decision: &Decision, changed: &'b Changed) -> Result<&'b Redemption, &'static str> {
    let redemption = changed.redemption.as_ref().ok_or("without a redemption")?;
    let rebuilt = redeemed(changed.number, changed.code.clone(), changed.claimed, redemption.clone());
    if rebuilt != *changed || redemption.id != decision.request.id || redemption.redeemed != decision.decided
    {
        return Err("its outcome has more than a redemption's row");
    }
    Ok(redemption)
}

/// Whether `write_batch` alone writes everything.
fn is_plain(batch: &Batch) -> bool {
    let is_plain = |decision: &Decision| {
        matches!(decision.verdict, Verdict::Rejected(_) | Verdict::Claimed { hold_until: None, .. })
    };
    batch.claims.is_empty()
        && batch.rolled_back.is_empty()
        && batch.code_flags.is_empty()
        && batch.ahead_taken.is_empty()
        && batch.ahead_freed.is_empty()
        && batch.returned_added.is_empty()
        && batch.decisions.iter().all(is_plain)
}

/// Changes of claims and redemptions that the same batch makes. Each is folded into the row that the batch inserts.
struct FoldedChanges<'b> {
    claims: HashMap<RequestId, &'b coupon_core::claim::Claim>,
    rolled_back: HashMap<RequestId, Millis>,
}

impl<'b> FoldedChanges<'b> {
    fn of(batch: &'b Batch) -> Result<Self, String> {
        let claims = || batch.claims.iter().filter(|change| change.before.is_none());
        let rollbacks = || batch.rolled_back.iter().filter(|rollback| rollback.made_here);
        let folded = Self {
            claims: claims().map(|change| (change.claim.id, &change.claim)).collect(),
            rolled_back: rollbacks().map(|rollback| (rollback.id, rollback.at)).collect(),
        };
        if folded.claims.len() == claims().count() && folded.rolled_back.len() == rollbacks().count() {
            Ok(folded)
        } else {
            Err("a claim or a redemption of this batch changes twice".to_owned())
        }
    }

    /// Every change must have found its row.
    fn ensure_used_up(&self) -> Result<(), String> {
        let left = self.claims.keys().chain(self.rolled_back.keys()).next();
        left.map_or(Ok(()), |id| Err(format!("request {id}: changed, but not made by this batch")))
    }
}

fn millis(time: Option<Millis>) -> Option<i64> {
    time.map(|time| time.0)
}
