//! Execution of one request about one coupon.
//!
//! The rules are in [`decide`](crate::domain::decide) and [`transitions`](crate::domain::transitions). This module finds
//! the code, applies the checks in their order, and changes stock, codes and counts of an accepted request. A rejected
//! request changes nothing.

use super::draft::Draft;
use crate::domain::batch::{Changed, CodeFlags, EventKind, Redemption, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::decide::{NotAccepted, check_any_code, check_claim};
use crate::domain::ids::CouponNo;
use crate::domain::money::is_amount_of;
use crate::domain::record::{Details, Request};
use crate::domain::transitions::{Checkout, CodeContext, is_exhausted, rolled_back};
use crate::domain::words::{ClaimState, Kind, Reason};
use crate::interface::CodeEntry;
use crate::machine::cache::{Cache, Coupon};
use crate::machine::codes::{CodeId, NamedCode};
use crate::machine::stock::Take;
use crate::planted::Bug;
use rust_decimal::Decimal;

/// The result of a request: accepted with this verdict, or not.
pub(super) type Ruling = Result<Verdict, NotAccepted>;

/// Executes a new request; returns its coupon, if it exists, and the ruling.
pub(super) fn execute(request: &Request, cache: &mut Cache, draft: &mut Draft) -> (Option<CouponNo>, Ruling) {
    if request.kind == Kind::Unknown {
        return (None, Err(Reason::Unprocessable.into()));
    }
    let Some(coupon) = cache.by_id_mut(&request.coupon_id) else {
        return (None, Err(unknown_coupon(request).into()));
    };
    (Some(coupon.no), Execution { request, coupon, draft }.execute())
}

/// The reason for a coupon that does not exist.
fn unknown_coupon(request: &Request) -> Reason {
    match request.kind {
        Kind::Claim => Reason::CouponUnknown,
        Kind::Rollback => Reason::RedemptionUnknown,
        Kind::Redeem if checkout_fields(request).is_none() => Reason::Unprocessable,
        _ => Reason::CodeUnknown,
    }
}

/// One request, its coupon, and the batch that it becomes part of.
struct Execution<'a> {
    request: &'a Request,
    coupon: &'a mut Coupon,
    draft: &'a mut Draft,
}

impl Execution<'_> {
    fn execute(&mut self) -> Ruling {
        match self.request.kind {
            Kind::Claim => self.claim(),
            Kind::Redeem => self.redeem(),
            Kind::Rollback => self.roll_back(),
            Kind::Revoke => self.revoke(),
            Kind::Lock | Kind::Unlock | Kind::Return => self.change(),
            Kind::Unknown => Err(Reason::Unprocessable.into()),
        }
    }

    /// A claim of any code, or of the named one.
    fn claim(&mut self) -> Ruling {
        let Self { request, coupon, draft } = self;
        let code = || match request.code {
            None => check_any_code(&coupon.definition, coupon.stock.row().available()).map(|()| None),
            Some(_) => {
                let id = find_code(request, coupon, draft)?;
                context(id, request, coupon, draft)?.claim()?;
                Ok(Some(id))
            }
        };
        let live_claims = || coupon.live_claims(&request.user, draft.ordinal);
        let named = check_claim(&coupon.definition, draft.now, code, live_claims)?;
        let CodeEntry { number, code } = self.take_code(named)?;
        let Self { request, coupon, draft } = self;
        draft.event_if_sold_out(coupon);
        let hold_until = coupon.definition.hold_from(draft.now);
        draft.new_users += usize::from(coupon.add_claim(&request.user, draft.ordinal));
        draft.add_claim(request, (coupon.no, number), &code, hold_until);
        Ok(Verdict::Claimed { number, code, hold_until })
    }

    /// Takes the named code, or the next free one.
    fn take_code(&mut self, named: Option<CodeId>) -> Result<CodeEntry, NotAccepted> {
        let Self { coupon, draft, .. } = self;
        let before = coupon.stock.row();
        let entry = match named {
            Some(id) => {
                let code = draft.codes.state(id).ok_or(NotAccepted::Missing)?.code.clone();
                coupon.stock.take_number(id.1, draft.ordinal);
                coupon.stock.count(None, Some(ClaimState::Claimed));
                CodeEntry { number: id.1, code }
            }
            None => match coupon.stock.take(draft.ordinal) {
                Take::Returned(entry) | Take::Sequence(entry) => entry,
                Take::SoldOut => return Err(Reason::SoldOut.into()),
                Take::Missing => return Err(NotAccepted::Missing),
            },
        };
        draft.touch_from(coupon, before);
        Ok(entry)
    }

    /// A lock, its release, or a return.
    fn change(&mut self) -> Ruling {
        let id = self.find_code()?;
        let context = self.context(id)?;
        if self.coupon.definition.is_shared() {
            return Err(Reason::Unprocessable.into());
        }
        let details = self.request.details.as_ref();
        let status = match self.request.kind {
            Kind::Lock => context.lock(details.and_then(|details| details.order.as_deref()))?,
            Kind::Unlock => context.unlock()?,
            _ => context.return_code()?,
        };
        Ok(verdict(self.change_claim(id, status)?, None))
    }

    fn revoke(&mut self) -> Ruling {
        let id = self.find_code()?;
        let context = self.context(id)?;
        let (flags, status) = (context.flags, context.revoke()?);
        let changed = match status {
            Some(status) => self.change_claim(id, status)?,
            None => self.withdraw_free_code(id)?,
        };
        self.draft.codes.change_flags(id, CodeFlags { revoked: true, ..flags });
        Ok(verdict(changed, None))
    }

    /// Removes a code without a claim from stock permanently.
    fn withdraw_free_code(&mut self, id: CodeId) -> Result<Changed, NotAccepted> {
        let Self { coupon, draft, .. } = self;
        let code = draft.codes.state(id).ok_or(NotAccepted::Missing)?.code.clone();
        draft.touch(coupon);
        coupon.stock.take_number(id.1, draft.ordinal);
        coupon.stock.count(None, Some(ClaimState::Revoked));
        draft.event_if_sold_out(coupon);
        Ok(Changed { state: Some(ClaimState::Revoked), ..unclaimed(id, code) })
    }

    fn redeem(&mut self) -> Ruling {
        let Some((order, amount, currency)) = checkout_fields(self.request) else {
            return Err(Reason::Unprocessable.into());
        };
        let id = self.find_code()?;
        let user = &self.request.user;
        let redemptions_of_user = match self.coupon.definition.redemptions_per_user {
            Some(_) => self.coupon.redemptions(user, self.draft.ordinal).ok_or(NotAccepted::Missing)?,
            None => 0,
        };
        let order_used = self.draft.codes.is_order_used(id, order);
        let redemptions_total = self.coupon.stock.row().redemptions;
        let checkout =
            Checkout { order, amount, currency, order_used, redemptions_of_user, redemptions_total };
        let context = self.context(id)?;
        let (status, price) = context.redeem(&checkout)?;
        let flags = context.flags;
        let changed = match status {
            Some(status) => self.change_claim(id, status)?,
            None => self.use_shared_code(id, flags, 1)?,
        };
        self.count_redemption(user, 1);
        let redemption = Redemption {
            id: self.request.id,
            order: order.into(),
            amount,
            discount: price.discount,
            final_price: price.final_price,
            currency: currency.into(),
            redeemed: self.draft.now,
        };
        Ok(verdict(changed, Some(redemption)))
    }

    fn roll_back(&mut self) -> Ruling {
        let Self { request, coupon, draft } = self;
        let redemption = request.details.as_ref().and_then(|details| details.redemption);
        let stored = redemption.and_then(|id| draft.codes.redemption(id));
        let stored = stored.filter(|stored| stored.coupon == coupon.no).ok_or(Reason::RedemptionUnknown)?;
        if stored.rolled_back {
            return Err(Reason::AlreadyRolledBack.into());
        }
        let stored = stored.clone();
        if coupon.counts_redemptions() && coupon.redemptions(&stored.user, draft.ordinal).is_none() {
            return Err(NotAccepted::Missing);
        }
        let id = (coupon.no, stored.number);
        let flags = draft.codes.state(id).ok_or(NotAccepted::Missing)?.flags;
        let changed = if coupon.definition.is_shared() {
            self.use_shared_code(id, flags, -1)?
        } else {
            let status = rolled_back(&coupon.definition, draft.now);
            self.change_claim(id, status)?
        };
        self.count_redemption(&stored.user, -1);
        self.draft.codes.roll_back(stored.redemption.id, self.draft.now);
        Ok(verdict(changed, Some(stored.redemption)))
    }

    /// Adds (1) or removes (−1) a use of a shared code. An exhausted code is not free for named claims.
    fn use_shared_code(&mut self, id: CodeId, before: CodeFlags, by: i64) -> Result<Changed, NotAccepted> {
        let Self { coupon, draft, .. } = self;
        let code = draft.codes.state(id).ok_or(NotAccepted::Missing)?.code.clone();
        let after = CodeFlags { uses: before.uses + by, ..before };
        let was_exhausted = is_exhausted(&coupon.definition, before);
        let exhausted = is_exhausted(&coupon.definition, after);
        draft.touch(coupon);
        if exhausted && !was_exhausted && !before.revoked {
            coupon.stock.take_number(id.1, draft.ordinal);
            coupon.stock.count(None, Some(ClaimState::Redeemed));
        } else if was_exhausted && !exhausted && !before.revoked {
            coupon.stock.count(Some(ClaimState::Redeemed), None);
            coupon.stock.put_back(CodeEntry { number: id.1, code: code.clone() }, draft.ordinal);
        }
        draft.codes.change_flags(id, after);
        Ok(unclaimed(id, code))
    }

    fn count_redemption(&mut self, user: &str, by: i32) {
        let Self { coupon, draft, .. } = self;
        draft.touch(coupon);
        coupon.stock.count_redemption(by.into());
        draft.new_users += usize::from(coupon.add_redemption(user, by, draft.ordinal));
    }

    fn change_claim(&mut self, id: CodeId, status: ClaimStatus) -> Result<Changed, NotAccepted> {
        change_claim(self.coupon, id, status, self.draft).map(|claim| changed(&claim))
    }

    fn find_code(&self) -> Result<CodeId, NotAccepted> {
        find_code(self.request, self.coupon, self.draft)
    }

    fn context(&self, id: CodeId) -> Result<CodeContext<'_>, NotAccepted> {
        context(id, self.request, self.coupon, self.draft)
    }
}

/// Sets the status of a code's claim; counters, stock and the counts of its user follow.
pub(in crate::machine) fn change_claim(
    coupon: &mut Coupon,
    id: CodeId,
    status: ClaimStatus,
    draft: &mut Draft,
) -> Result<Claim, NotAccepted> {
    let claim = draft.codes.claim(id).ok_or(NotAccepted::Missing)?;
    let returned = status.state == ClaimState::Returned;
    if returned && coupon.counts_claims() && !coupon.has_cached(&claim.user) {
        return Err(NotAccepted::Missing);
    }
    let before = claim.status.state;
    let (entry, user) = (CodeEntry { number: id.1, code: claim.code.clone() }, claim.user.clone());
    draft.touch(coupon);
    coupon.stock.count(Some(before), Some(status.state));
    if returned && !draft.planted.has(Bug::ReturnedCodeLost) {
        coupon.stock.put_back(entry, draft.ordinal);
    }
    if returned {
        coupon.remove_claim(&user, draft.ordinal);
    }
    let claim = draft.codes.change_claim(id, status).ok_or(NotAccepted::Missing)?;
    if let Some(at) = claim.status.lapsed {
        draft.lapse_event(EventKind::HoldLapsed, coupon, &claim, at);
    }
    if returned && coupon.stock.row().available() == 1 {
        draft.event(EventKind::Restocked, coupon);
    }
    Ok(claim)
}

fn find_code(request: &Request, coupon: &Coupon, draft: &Draft) -> Result<CodeId, NotAccepted> {
    let applied = |load| draft.batch.loads.iter().any(|applied| applied.load == load);
    let name = request.code.as_deref().ok_or(Reason::CodeUnknown)?;
    match draft.codes.named(name, coupon.no, applied) {
        NamedCode::Found(id) => Ok(id),
        NamedCode::Unknown => Err(Reason::CodeUnknown.into()),
        NamedCode::BecomesStock => Err(NotAccepted::Missing),
    }
}

fn context<'a>(
    id: CodeId,
    request: &'a Request,
    coupon: &'a Coupon,
    draft: &'a Draft,
) -> Result<CodeContext<'a>, NotAccepted> {
    let state = draft.codes.state(id).ok_or(NotAccepted::Missing)?;
    Ok(CodeContext {
        definition: &coupon.definition,
        claim: state.claim.as_ref(),
        flags: state.flags,
        user: &request.user,
        lapsed: draft.codes.has_lapsed(id, &request.user),
        now: draft.now,
    })
}

/// Order, amount and currency of a redeem request; `None` unless all three are present and valid.
fn checkout_fields(request: &Request) -> Option<(&str, Decimal, &str)> {
    let Details { order, amount, currency, .. } = request.details.as_deref()?;
    let (order, amount, currency) = (order.as_deref()?, (*amount)?, currency.as_deref()?);
    is_amount_of(amount, currency).then_some((order, amount, currency))
}

fn verdict(changed: Changed, redemption: Option<Redemption>) -> Verdict {
    Verdict::Changed(Box::new(Changed { redemption, ..changed }))
}

/// The outcome for a code without a claim.
const fn unclaimed(id: CodeId, code: Box<str>) -> Changed {
    Changed {
        number: id.1,
        code,
        state: None,
        claimed: None,
        hold_until: None,
        lock_until: None,
        order: None,
        redemption: None,
    }
}

/// The outcome for a claim. Lock and order are included only while it is locked.
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
