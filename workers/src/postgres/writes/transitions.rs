//! The other half of a batch: what it does to codes beyond giving them. One call of `stampede.write_life`, in the same
//! statement as `write_batch` and after it, and only where there is something of the kind: a batch of plain claims and
//! rejections pays nothing for this.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use coupon_core::batch::{Batch, Changed, ClaimChange, Decision, Redemption, RolledBack, Verdict};
use coupon_core::claim::ClaimStatus;
use coupon_core::ids::{CodeNumber, CouponNo, Millis, RequestId};
use coupon_core::words::{ClaimState, Kind};
use sqlx::postgres::PgBindIterExt as _;
use uuid::Uuid;

use super::{Call, DAY, WRITE_BATCH, WRITE_BATCH_PARAMETERS};
use crate::postgres::rows::{redeemed, state_no};

/// Arrays that `write_life` takes, beside the parameters that it shares with `write_batch`.
const ARRAYS: usize = 65;

/// Both calls. Postgres works the list off from left to right.
pub(super) static WRITE_LIFE: LazyLock<String> = LazyLock::new(|| {
    let first = WRITE_BATCH_PARAMETERS + 1;
    let arrays: Vec<String> = (first..first + ARRAYS).map(|n| format!("${n}")).collect();
    format!("{WRITE_BATCH}, stampede.write_life($1, $2, $3, $4, {DAY}, {})", arrays.join(", "))
});

/// What `write_life` writes of a batch.
pub(super) struct Life<'b> {
    batch: &'b Batch,
    /// Claims that were there before.
    changes: Vec<(&'b ClaimChange, (ClaimState, Option<Millis>))>,
    claims: Vec<Claimed<'b>>,
    redemptions: Vec<Redeemed<'b>>,
    /// Accepted requests that neither claimed nor redeemed.
    others: Vec<(&'b Decision, CouponNo, &'b Changed)>,
    /// Of redemptions that were there before.
    rolled_back: Vec<&'b RolledBack>,
}

/// A claim of this batch, as the batch left it.
struct Claimed<'b> {
    decision: &'b Decision,
    coupon: CouponNo,
    number: CodeNumber,
    first_hold: Option<Millis>,
    terms: Cow<'b, ClaimStatus>,
}

/// A redemption of this batch, as the batch left it.
struct Redeemed<'b> {
    decision: &'b Decision,
    coupon: CouponNo,
    changed: &'b Changed,
    redemption: &'b Redemption,
    rolled_back: Option<Millis>,
}

impl<'b> Life<'b> {
    /// What there is of the kind; `None` where `write_batch` alone writes everything.
    ///
    /// # Errors
    /// What would be lost without a word, because no row says it.
    pub(super) fn of(batch: &'b Batch) -> Result<Option<Self>, String> {
        if is_plain(batch) {
            return Ok(None);
        }
        let mut folded = Folded::of(batch)?;
        let mut life = Self {
            batch,
            changes: batch.claims.iter().filter_map(|change| Some((change, change.before?))).collect(),
            claims: Vec::new(),
            redemptions: Vec::new(),
            others: Vec::new(),
            rolled_back: batch.rolled_back.iter().filter(|back| !back.made_here).collect(),
        };
        for decision in &batch.decisions {
            life.take(decision, &mut folded)?;
        }
        folded.is_used_up().map(|()| Some(life))
    }

    fn take(&mut self, decision: &'b Decision, folded: &mut Folded<'b>) -> Result<(), String> {
        let lost = |why| Err(format!("request {} ({}): {why}", decision.request.id, decision.request.kind));
        let coupon = match (&decision.verdict, decision.coupon) {
            (Verdict::Rejected(_), _) => return Ok(()),
            (_, Some(coupon)) => coupon,
            (_, None) => return lost("accepted without a coupon"),
        };
        if (decision.request.kind == Kind::Claim) != matches!(decision.verdict, Verdict::Claimed { .. }) {
            return lost("its kind has no such verdict");
        }
        match (&decision.verdict, decision.request.kind) {
            (Verdict::Claimed { number, hold_until, .. }, _) => {
                let terms = match folded.claims.remove(&decision.request.id) {
                    Some(claim) if (claim.coupon, claim.number) != (coupon, *number) => {
                        return lost("its claim is of another code");
                    }
                    Some(claim) => Cow::Borrowed(&claim.status),
                    None => Cow::Owned(ClaimStatus::claimed(*hold_until)),
                };
                self.claims.push(Claimed {
                    decision,
                    coupon,
                    number: *number,
                    first_hold: *hold_until,
                    terms,
                });
            }
            (Verdict::Changed(changed), Kind::Redeem) => {
                let Some(redemption) = &changed.redemption else { return lost("without a redemption") };
                let row = redeemed(changed.number, changed.code.clone(), changed.claimed, redemption.clone());
                if row != **changed
                    || redemption.id != decision.request.id
                    || redemption.redeemed != decision.decided
                {
                    return lost("its response says more than a redemption's row");
                }
                let rolled_back = folded.rolled_back.remove(&decision.request.id);
                self.redemptions.push(Redeemed { decision, coupon, changed, redemption, rolled_back });
            }
            (Verdict::Changed(changed), kind) => {
                if (kind == Kind::Rollback) != changed.redemption.is_some() {
                    return lost("a rollback, and nothing else, is about a redemption");
                }
                self.others.push((decision, coupon, changed));
            }
            (Verdict::Rejected(_), _) => {}
        }
        Ok(())
    }

    /// Requests whose outcomes are written here, and not by `write_batch`.
    pub(super) fn ids(&self) -> impl Iterator<Item = RequestId> {
        let claims = self.claims.iter().map(|claim| claim.decision.request.id);
        let redemptions = self.redemptions.iter().map(|redemption| redemption.decision.request.id);
        claims.chain(redemptions).chain(self.others.iter().map(|other| other.0.request.id))
    }

    /// Whether it writes outcomes that lie in the table of a day.
    pub(super) const fn needs_a_day(&self) -> bool {
        !self.others.is_empty()
    }

    pub(super) fn bind<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        let call = self.bind_redemptions(self.bind_claims(self.bind_changes(call)));
        self.bind_numbers(self.bind_others(call))
    }

    fn bind_changes<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        let changes = || self.changes.iter();
        let terms = || changes().map(|(change, _)| &change.claim.status);
        call.bind(changes().map(|(change, _)| uuid(change.claim.id)).bind_iter())
            .bind(changes().map(|(_, was)| state_no(was.0)).bind_iter())
            .bind(changes().map(|(_, was)| millis(was.1)).bind_iter())
            .bind(terms().map(|terms| state_no(terms.state)).bind_iter())
            .bind(terms().map(|terms| millis(terms.hold_until)).bind_iter())
            .bind(terms().map(|terms| millis(terms.lock_until)).bind_iter())
            .bind(terms().map(|terms| terms.order.as_deref()).bind_iter())
            .bind(terms().map(|terms| millis(terms.lapsed)).bind_iter())
    }

    fn bind_claims<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        let claims = || self.claims.iter();
        let terms = || claims().map(|claim| &*claim.terms);
        call.bind(claims().map(|c| uuid(c.decision.request.id)).bind_iter())
            .bind(claims().map(|c| c.decision.request.id.body).bind_iter())
            .bind(claims().map(|c| c.coupon.0).bind_iter())
            .bind(claims().map(|c| c.number.0).bind_iter())
            .bind(claims().map(|c| c.decision.offset.0).bind_iter())
            .bind(claims().map(|c| c.decision.decided.0).bind_iter())
            .bind(claims().map(|c| &*c.decision.request.user).bind_iter())
            .bind(claims().map(|c| millis(c.first_hold)).bind_iter())
            .bind(terms().map(|terms| state_no(terms.state)).bind_iter())
            .bind(terms().map(|terms| millis(terms.hold_until)).bind_iter())
            .bind(terms().map(|terms| millis(terms.lock_until)).bind_iter())
            .bind(terms().map(|terms| terms.order.as_deref()).bind_iter())
            .bind(terms().map(|terms| millis(terms.lapsed)).bind_iter())
    }

    fn bind_redemptions<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        let (backs, made) = (|| self.rolled_back.iter(), || self.redemptions.iter());
        call.bind(backs().map(|back| uuid(back.id)).bind_iter())
            .bind(backs().map(|back| back.id.body).bind_iter())
            .bind(backs().map(|back| back.at.0).bind_iter())
            .bind(made().map(|r| uuid(r.decision.request.id)).bind_iter())
            .bind(made().map(|r| r.decision.request.id.body).bind_iter())
            .bind(made().map(|r| r.coupon.0).bind_iter())
            .bind(made().map(|r| r.changed.number.0).bind_iter())
            .bind(made().map(|r| r.decision.offset.0).bind_iter())
            .bind(made().map(|r| r.redemption.redeemed.0).bind_iter())
            .bind(made().map(|r| millis(r.changed.claimed)).bind_iter())
            .bind(made().map(|r| &*r.decision.request.user).bind_iter())
            .bind(made().map(|r| &*r.redemption.order).bind_iter())
            .bind(made().map(|r| r.redemption.amount.to_string()).bind_iter())
            .bind(made().map(|r| r.redemption.discount.to_string()).bind_iter())
            .bind(made().map(|r| r.redemption.final_price.to_string()).bind_iter())
            .bind(made().map(|r| &*r.redemption.currency).bind_iter())
            .bind(made().map(|r| millis(r.rolled_back)).bind_iter())
    }

    fn bind_others<'q>(&'q self, call: Call<'q>) -> Call<'q> {
        let (all, changed) = (|| self.others.iter(), || self.others.iter().map(|other| other.2));
        let undone = || changed().map(|changed| changed.redemption.as_ref().map(|redemption| redemption.id));
        call.bind(all().map(|(decision, ..)| uuid(decision.request.id)).bind_iter())
            .bind(all().map(|(decision, ..)| decision.request.id.body).bind_iter())
            .bind(all().map(|(_, coupon, _)| coupon.0).bind_iter())
            .bind(all().map(|(decision, ..)| decision.offset.0).bind_iter())
            .bind(all().map(|(decision, ..)| decision.decided.0).bind_iter())
            .bind(all().map(|(decision, ..)| decision.request.kind.as_str()).bind_iter())
            .bind(all().map(|(decision, ..)| &*decision.request.user).bind_iter())
            .bind(changed().map(|changed| changed.number.0).bind_iter())
            .bind(changed().map(|changed| changed.state.map(state_no)).bind_iter())
            .bind(changed().map(|changed| millis(changed.claimed)).bind_iter())
            .bind(changed().map(|changed| millis(changed.hold_until)).bind_iter())
            .bind(changed().map(|changed| millis(changed.lock_until)).bind_iter())
            .bind(changed().map(|changed| changed.order.as_deref()).bind_iter())
            .bind(undone().map(|id| id.map(uuid)).bind_iter())
            .bind(undone().map(|id| id.map(|id| id.body)).bind_iter())
    }

    fn bind_numbers<'q>(&'q self, mut call: Call<'q>) -> Call<'q> {
        let marks = &self.batch.code_flags;
        call = call
            .bind(marks.iter().map(|mark| mark.coupon.0).bind_iter())
            .bind(marks.iter().map(|mark| mark.number.0).bind_iter())
            .bind(marks.iter().map(|mark| mark.before.uses).bind_iter())
            .bind(marks.iter().map(|mark| mark.before.revoked).bind_iter())
            .bind(marks.iter().map(|mark| mark.after.uses).bind_iter())
            .bind(marks.iter().map(|mark| mark.after.revoked).bind_iter());
        let Batch { ahead_freed, ahead_taken, returned_added, .. } = self.batch;
        for numbers in [ahead_freed, ahead_taken, returned_added] {
            call = call
                .bind(numbers.iter().map(|(coupon, _)| coupon.0).bind_iter())
                .bind(numbers.iter().map(|(_, number)| number.0).bind_iter());
        }
        call
    }
}

/// Whether `write_batch` alone writes everything.
fn is_plain(batch: &Batch) -> bool {
    let plain = |decision: &Decision| {
        matches!(decision.verdict, Verdict::Rejected(_) | Verdict::Claimed { hold_until: None, .. })
    };
    batch.claims.is_empty()
        && batch.rolled_back.is_empty()
        && batch.code_flags.is_empty()
        && batch.ahead_taken.is_empty()
        && batch.ahead_freed.is_empty()
        && batch.returned_added.is_empty()
        && batch.decisions.iter().all(plain)
}

/// What became within the batch of what it made; each must find the row that it is folded into.
struct Folded<'b> {
    claims: HashMap<RequestId, &'b coupon_core::claim::Claim>,
    rolled_back: HashMap<RequestId, Millis>,
}

impl<'b> Folded<'b> {
    fn of(batch: &'b Batch) -> Result<Self, String> {
        let made = || batch.claims.iter().filter(|change| change.before.is_none());
        let undone = || batch.rolled_back.iter().filter(|back| back.made_here);
        let folded = Self {
            claims: made().map(|change| (change.claim.id, &change.claim)).collect(),
            rolled_back: undone().map(|back| (back.id, back.at)).collect(),
        };
        if folded.claims.len() == made().count() && folded.rolled_back.len() == undone().count() {
            Ok(folded)
        } else {
            Err("a claim or a redemption of this batch changes twice".to_owned())
        }
    }

    fn is_used_up(&self) -> Result<(), String> {
        let left = self.claims.keys().chain(self.rolled_back.keys()).next();
        left.map_or(Ok(()), |id| Err(format!("request {id}: changed, but not made by this batch")))
    }
}

fn uuid(id: RequestId) -> Uuid {
    Uuid::from_u128(id.identity)
}

fn millis(time: Option<Millis>) -> Option<i64> {
    time.map(|time| time.0)
}
