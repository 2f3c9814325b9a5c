//! Deciding what is asked of a code that exists: named claims, and everything that is done to a code afterwards.

use super::Machine;
use super::cache::Coupon;
use super::codes::{Named, Place};
use super::draft::Draft;
use super::execute::Step;
use crate::domain::batch::{Changed, CodeFlags, EventKind, Redemption, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::{CouponNo, Offset};
use crate::domain::money::is_amount_of;
use crate::domain::record::{Details, Request};
use crate::domain::transitions::{Checkout, Known, is_exhausted, rolled_back};
use crate::domain::words::{ClaimState, Kind, Reason};
use crate::interface::CodeEntry;
use crate::machine::decide::LiveClaimsKnown;
use crate::planted::Bug;

/// Why there is no accepted outcome.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is rejected.
    Rejected(Option<CouponNo>, Reason),
    /// It depends on something that was not read.
    Missing,
}

type Ruling = Result<(CouponNo, Verdict), Refusal>;

/// A code that a request names, as far as it was found.
struct Found {
    coupon: CouponNo,
    place: Place,
}

impl Machine {
    /// Decides a request that names a code or a redemption.
    pub(super) fn decide_about_a_code(
        &mut self,
        request: &mut Request,
        offset: Offset,
        draft: &mut Draft,
    ) -> Step {
        let ruling = match request.kind {
            Kind::Claim => self.claim_named(request, draft),
            Kind::Redeem => self.redeem(request, draft),
            Kind::Rollback => self.roll_back(request, draft),
            Kind::Lock | Kind::Unlock | Kind::Return | Kind::Revoke => self.change_code(request, draft),
            Kind::Unknown => Err(Refusal::Rejected(None, Reason::Unprocessable)),
        };
        match ruling {
            Err(Refusal::Missing) => return Step::Missing,
            Err(Refusal::Rejected(coupon, reason)) => draft.refuse(request, offset, coupon, reason),
            Ok((coupon, verdict)) => {
                draft.decide(request, offset, Some(coupon), verdict);
                if let (Kind::Redeem, Some(decision)) = (request.kind, draft.batch.decisions.last()) {
                    draft.codes.redeemed(decision);
                }
            }
        }
        Step::Decided
    }

    fn claim_named(&mut self, request: &Request, draft: &mut Draft) -> Ruling {
        let Some(coupon) = self.memory.get_mut(&request.coupon_id) else {
            return Err(Refusal::Rejected(None, Reason::CouponUnknown));
        };
        let no = coupon.no;
        let refuse = |reason| Refusal::Rejected(Some(no), reason);
        coupon.definition.open_at(draft.now).map_err(refuse)?;
        let place = find(coupon, request, draft)?;
        let known = known(coupon, place, request, draft)?;
        known.claim().map_err(refuse)?;
        if let Some(limit) = coupon.definition.claims_per_user {
            match coupon.live_claims(&request.user, coupon.planned == draft.ordinal) {
                LiveClaimsKnown::Count(live) if live >= limit => {
                    return Err(refuse(Reason::UserLimitReached));
                }
                LiveClaimsKnown::Count(_) => {}
                LiveClaimsKnown::Unread => return Err(Refusal::Missing),
            }
        }
        let code = draft.codes.standing(place).ok_or(Refusal::Missing)?.code.clone();
        draft.touch(coupon);
        coupon.stock.take_number(place.1, draft.ordinal);
        coupon.stock.count(None, Some(ClaimState::Claimed));
        draft.sold_out_by_the_last(coupon);
        let hold_until = coupon.definition.hold_from(draft.now);
        if coupon.claimed(&request.user, draft.ordinal) {
            self.memory.one_user_more();
        }
        draft.made(request, no, place.1, &code, hold_until);
        Ok((no, Verdict::Claimed { number: place.1, code, hold_until }))
    }

    fn change_code(&mut self, request: &Request, draft: &mut Draft) -> Ruling {
        let Found { coupon: no, place } = self.find(request, draft)?;
        let coupon = self.memory.by_no(no).ok_or(Refusal::Missing)?;
        let refuse = |reason| Refusal::Rejected(Some(no), reason);
        let known = known(coupon, place, request, draft)?;
        if coupon.definition.is_shared() && request.kind != Kind::Revoke {
            return Err(refuse(Reason::Unprocessable));
        }
        let order = request.details.as_ref().and_then(|details| details.order.as_deref());
        let status = match request.kind {
            Kind::Lock => known.lock(order).map(Some),
            Kind::Unlock => known.unlock().map(Some),
            Kind::Return => known.give_back().map(Some),
            _ => known.revoke(),
        };
        let status = status.map_err(refuse)?;
        let flags = known.flags;
        let changed = match status {
            Some(status) => changed(&self.change_claim(place, status, draft)?),
            None => self.withdraw_free_code(place, draft)?,
        };
        if request.kind == Kind::Revoke {
            draft.codes.flags(place, CodeFlags { revoked: true, ..flags });
        }
        Ok((no, Verdict::Changed(Box::new(changed))))
    }

    /// A code that nobody has leaves the stock for good.
    fn withdraw_free_code(&mut self, place: Place, draft: &mut Draft) -> Result<Changed, Refusal> {
        let coupon = self.memory.by_no(place.0).ok_or(Refusal::Missing)?;
        let code = draft.codes.standing(place).ok_or(Refusal::Missing)?.code.clone();
        draft.touch(coupon);
        coupon.stock.take_number(place.1, draft.ordinal);
        coupon.stock.count(None, Some(ClaimState::Revoked));
        draft.sold_out_by_the_last(coupon);
        Ok(Changed { state: Some(ClaimState::Revoked), ..unclaimed(place, code) })
    }

    fn redeem(&mut self, request: &Request, draft: &mut Draft) -> Ruling {
        let Some((order, amount, currency)) = checkout(request.details.as_deref()) else {
            return Err(Refusal::Rejected(self.coupon_no(request), Reason::Unprocessable));
        };
        let Found { coupon: no, place } = self.find(request, draft)?;
        let coupon = self.memory.by_no(no).ok_or(Refusal::Missing)?;
        let by_user = match coupon.definition.redemptions_per_user {
            Some(_) => coupon.redemptions(&request.user, coupon.planned == draft.ordinal),
            None => Some(0),
        };
        let by_user = by_user.ok_or(Refusal::Missing)?;
        let order_used = draft.codes.order_used(place, order);
        let in_all = coupon.stock.row().redemptions;
        let checkout = Checkout { order, amount, currency, order_used, by_user, in_all };
        let known = known(coupon, place, request, draft)?;
        let (status, price) =
            known.redeem(&checkout).map_err(|reason| Refusal::Rejected(Some(no), reason))?;
        let flags = known.flags;
        let changed_claim = match status {
            Some(status) => changed(&self.change_claim(place, status, draft)?),
            None => self.use_shared(place, flags, 1, draft)?,
        };
        self.count_redemption(no, &request.user, 1, draft)?;
        let redemption = Redemption {
            id: request.id,
            order: order.into(),
            amount,
            discount: price.discount,
            final_price: price.final_price,
            currency: currency.into(),
            redeemed: draft.now,
        };
        let changed = Changed { redemption: Some(redemption), ..changed_claim };
        Ok((no, Verdict::Changed(Box::new(changed))))
    }

    fn roll_back(&mut self, request: &Request, draft: &mut Draft) -> Ruling {
        let unknown = |coupon| Refusal::Rejected(coupon, Reason::RedemptionUnknown);
        let no = self.coupon_no(request).ok_or_else(|| unknown(None))?;
        let id = request.details.as_ref().and_then(|details| details.redemption);
        let stored = id.and_then(|id| draft.codes.redemption(id)).filter(|stored| stored.coupon == no);
        let stored = stored.ok_or_else(|| unknown(Some(no)))?.clone();
        if stored.rolled_back {
            return Err(Refusal::Rejected(Some(no), Reason::AlreadyRolledBack));
        }
        let place = (no, stored.number);
        let coupon = self.memory.by_no(no).ok_or(Refusal::Missing)?;
        let counted = coupon.definition.redemptions_per_user.is_some();
        if counted && coupon.redemptions(&stored.user, coupon.planned == draft.ordinal).is_none() {
            return Err(Refusal::Missing);
        }
        let standing = draft.codes.standing(place).ok_or(Refusal::Missing)?;
        let changed = if coupon.definition.is_shared() {
            let flags = standing.flags;
            self.use_shared(place, flags, -1, draft)?
        } else {
            let status = rolled_back(&coupon.definition, draft.now);
            changed(&self.change_claim(place, status, draft)?)
        };
        self.count_redemption(no, &stored.user, -1, draft)?;
        draft.codes.roll_back(stored.redemption.id, draft.now);
        let changed = Changed { redemption: Some(stored.redemption), ..changed };
        Ok((no, Verdict::Changed(Box::new(changed))))
    }

    /// One use of a shared code more, or one less. One that is exhausted is not there for anybody else.
    fn use_shared(
        &mut self,
        place: Place,
        flags: CodeFlags,
        by: i64,
        draft: &mut Draft,
    ) -> Result<Changed, Refusal> {
        let coupon = self.memory.by_no(place.0).ok_or(Refusal::Missing)?;
        let code = draft.codes.standing(place).ok_or(Refusal::Missing)?.code.clone();
        let after = CodeFlags { uses: flags.uses + by, ..flags };
        let (was_out, is_out) =
            (is_exhausted(&coupon.definition, flags), is_exhausted(&coupon.definition, after));
        draft.touch(coupon);
        if is_out && !was_out && !flags.revoked {
            coupon.stock.take_number(place.1, draft.ordinal);
            coupon.stock.count(None, Some(ClaimState::Redeemed));
        } else if was_out && !is_out && !flags.revoked {
            coupon.stock.count(Some(ClaimState::Redeemed), None);
            coupon.stock.put_back(CodeEntry { number: place.1, code: code.clone() }, draft.ordinal);
        }
        draft.codes.flags(place, after);
        Ok(unclaimed(place, code))
    }

    fn count_redemption(
        &mut self,
        no: CouponNo,
        user: &str,
        by: i32,
        draft: &mut Draft,
    ) -> Result<(), Refusal> {
        let coupon = self.memory.by_no(no).ok_or(Refusal::Missing)?;
        draft.touch(coupon);
        coupon.stock.count_redemption(by.into());
        let limited = coupon.definition.redemptions_per_user.is_some();
        if limited && coupon.redeemed(user, by, draft.ordinal) {
            self.memory.one_user_more();
        }
        Ok(())
    }

    /// The claim of a code gets new terms; counters, stock and its user's claims follow.
    pub(super) fn change_claim(
        &mut self,
        place: Place,
        status: ClaimStatus,
        draft: &mut Draft,
    ) -> Result<Claim, Refusal> {
        let coupon = self.memory.by_no(place.0).ok_or(Refusal::Missing)?;
        let standing = draft.codes.standing(place).ok_or(Refusal::Missing)?;
        let claim = standing.claim.as_ref().ok_or(Refusal::Missing)?;
        let returned = status.state == ClaimState::Returned;
        let limited = coupon.definition.claims_per_user.is_some();
        if returned && limited && !coupon.remembers(&claim.user) {
            return Err(Refusal::Missing);
        }
        let from = claim.status.state;
        let (entry, user) = (CodeEntry { number: place.1, code: claim.code.clone() }, claim.user.clone());
        draft.touch(coupon);
        coupon.stock.count(Some(from), Some(status.state));
        if returned && !self.config.planted.has(Bug::ReturnedCodeLost) {
            coupon.stock.put_back(entry, draft.ordinal);
        }
        if returned && limited {
            coupon.gave_up(&user, draft.ordinal);
        }
        let claim = draft.codes.change(place, status).ok_or(Refusal::Missing)?;
        if let Some(at) = claim.status.lapsed {
            draft.lapse(EventKind::HoldLapsed, coupon, &claim, at);
        }
        if returned && coupon.stock.row().available() == 1 {
            draft.event(EventKind::Restocked, coupon);
        }
        Ok(claim)
    }

    fn coupon_no(&self, request: &Request) -> Option<CouponNo> {
        self.memory.get(&request.coupon_id).map(|coupon| coupon.no)
    }

    fn find(&self, request: &Request, draft: &Draft) -> Result<Found, Refusal> {
        let coupon = self.memory.get(&request.coupon_id);
        let coupon = coupon.ok_or(Refusal::Rejected(None, Reason::CodeUnknown))?;
        Ok(Found { coupon: coupon.no, place: find(coupon, request, draft)? })
    }
}

fn find(coupon: &Coupon, request: &Request, draft: &Draft) -> Result<Place, Refusal> {
    let applied = |load| draft.batch.loads.iter().any(|applied| applied.load == load);
    let Some(code) = request.code.as_deref() else {
        return Err(Refusal::Rejected(Some(coupon.no), Reason::CodeUnknown));
    };
    match draft.codes.named(code, coupon.no, applied) {
        Named::Place(place) => Ok(place),
        Named::Unknown => Err(Refusal::Rejected(Some(coupon.no), Reason::CodeUnknown)),
        Named::NotYet => Err(Refusal::Missing),
    }
}

fn known<'a>(
    coupon: &'a Coupon,
    place: Place,
    request: &'a Request,
    draft: &'a Draft,
) -> Result<Known<'a>, Refusal> {
    let standing = draft.codes.standing(place).ok_or(Refusal::Missing)?;
    Ok(Known {
        definition: &coupon.definition,
        claim: standing.claim.as_ref(),
        flags: standing.flags,
        user: &request.user,
        lapsed: draft.codes.has_lapsed(place, &request.user),
        now: draft.now,
    })
}

/// Order, amount and currency, if the request says all three and they can be.
fn checkout(details: Option<&Details>) -> Option<(&str, rust_decimal::Decimal, &str)> {
    let Details { order, amount, currency, .. } = details?;
    let (order, amount, currency) = (order.as_deref()?, (*amount)?, currency.as_deref()?);
    is_amount_of(amount, currency).then_some((order, amount, currency))
}

/// A code without a claim.
const fn unclaimed(place: Place, code: Box<str>) -> Changed {
    Changed {
        number: place.1,
        code,
        state: None,
        claimed: None,
        hold_until: None,
        lock_until: None,
        order: None,
        redemption: None,
    }
}

/// What is told of a claim: a lock only while it lasts.
fn changed(claim: &Claim) -> Changed {
    let ClaimStatus { state, hold_until, lock_until, order, .. } = &claim.status;
    let locked = *state == ClaimState::Locked;
    Changed {
        number: claim.number,
        code: claim.code.clone(),
        state: Some(*state),
        claimed: Some(claim.claimed),
        hold_until: *hold_until,
        lock_until: lock_until.filter(|_| locked),
        order: order.clone().filter(|_| locked),
        redemption: None,
    }
}
