//! Whether a request is accepted, and the reason if not. The order of the checks of each kind is the order of its
//! reasons. Nothing changes here: [`super::apply`] performs the operation.

use super::Reference;
use super::coupon::{Code, Coupon};
use crate::environment::ledger;
use coupon_core::batch::{Decision, Redemption, Verdict};
use coupon_core::claim::Claim;
use coupon_core::ids::{CouponNo, Millis, RequestId};
use coupon_core::money;
use coupon_core::record::{Details, Request};
use coupon_core::words::{ClaimState, Kind, Reason};

/// A redemption, and whether it was rolled back.
#[derive(Clone, Debug)]
pub(super) struct StoredRedemption {
    pub(super) coupon: CouponNo,
    pub(super) number: i64,
    pub(super) redemption: Redemption,
    pub(super) rolled_back: bool,
}

/// The operation that an accepted request performs on a code.
#[derive(PartialEq)]
pub(super) enum Operation {
    TakeNext,
    TakeReturned,
    TakeNamed,
    Lock,
    Unlock,
    Return,
    Redeem(Redemption),
    RollBack(Redemption),
    Revoke,
}

/// The number of a code and the operation on it, or the reason for the rejection.
pub(super) type Evaluation = Result<(i64, Operation), Reason>;

const NO_DETAILS: Details = Details { order: None, amount: None, currency: None, redemption: None };

fn details(request: &Request) -> &Details {
    request.details.as_deref().unwrap_or(&NO_DETAILS)
}

impl Reference {
    /// `found` is the machine's decision: the machine may choose any returned code.
    pub(super) fn evaluate(
        &self,
        request: &Request,
        no: Option<CouponNo>,
        found: Option<&Decision>,
    ) -> Evaluation {
        let coupon = no.and_then(|no| self.coupons.get(&no));
        match request.kind {
            Kind::Claim if request.code.is_some() => self.evaluate_claim_by_code(request, coupon),
            Kind::Claim => self.evaluate_claim(request, coupon, found),
            Kind::Lock => self.evaluate_lock(request, coupon),
            Kind::Unlock => evaluate_unlock(request, coupon),
            Kind::Return => evaluate_return(request, coupon),
            Kind::Redeem => self.evaluate_redeem(request, coupon),
            Kind::Rollback => self.evaluate_rollback(request, no),
            Kind::Revoke => evaluate_revoke(request, coupon),
            Kind::Unknown => Err(Reason::Unprocessable),
        }
    }

    const fn now(&self) -> Millis {
        self.position.time
    }

    fn evaluate_claim(
        &self,
        request: &Request,
        coupon: Option<&Coupon>,
        found: Option<&Decision>,
    ) -> Evaluation {
        let coupon = coupon.ok_or(Reason::CouponUnknown)?;
        coupon.definition.open_at(self.now())?;
        if coupon.definition.is_shared() || coupon.available() == 0 {
            return Err(Reason::SoldOut);
        }
        within_claim_limit(coupon, &request.user)?;
        if coupon.returned.is_empty() {
            let next = coupon.next_in_sequence().expect("a free number");
            return Ok((next, Operation::TakeNext));
        }
        let chosen = match found.map(|decision| &decision.verdict) {
            Some(Verdict::Claimed { number, .. }) if coupon.returned.contains(&number.0) => Some(number.0),
            _ => coupon.returned.first().copied(),
        };
        Ok((chosen.expect("a returned number"), Operation::TakeReturned))
    }

    fn evaluate_claim_by_code(&self, request: &Request, coupon: Option<&Coupon>) -> Evaluation {
        let coupon = coupon.ok_or(Reason::CouponUnknown)?;
        coupon.definition.open_at(self.now())?;
        let number = number_of(request, coupon)?;
        let code = coupon.code(number);
        if code.is_some_and(|code| code.revoked) {
            return Err(Reason::CodeRevoked);
        }
        if coupon.definition.is_shared() || code.is_some_and(|code| code.claim.is_some()) {
            return Err(Reason::CodeTaken);
        }
        within_claim_limit(coupon, &request.user)?;
        Ok((number, Operation::TakeNamed))
    }

    fn evaluate_lock(&self, request: &Request, coupon: Option<&Coupon>) -> Evaluation {
        let (coupon, number, claim) = own_code(request, coupon)?;
        in_window(coupon, self.now())?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Err(Reason::AlreadyLocked),
            _ => Ok((number, Operation::Lock)),
        }
    }

    fn evaluate_redeem(&self, request: &Request, coupon: Option<&Coupon>) -> Evaluation {
        let details = details(request);
        let (Some(order), Some(amount)) = (&details.order, details.amount) else {
            return Err(Reason::Unprocessable);
        };
        let currency = details.currency.as_deref().unwrap_or("");
        if !money::is_amount_of(amount, currency) {
            return Err(Reason::Unprocessable);
        }
        let coupon = coupon.ok_or(Reason::CodeUnknown)?;
        let number = number_of(request, coupon)?;
        let code = coupon.code(number);
        let claim = if coupon.definition.is_shared() { None } else { Some(own_claim(code, &request.user)?) };
        if code.is_some_and(|code| code.revoked) {
            return Err(Reason::CodeRevoked);
        }
        in_window(coupon, self.now())?;
        if code.is_some_and(|code| code.uses.iter().any(|used| used.order == *order)) {
            return Err(Reason::OrderAlreadyUsed);
        }
        claim.map_or(Ok(()), |claim| is_redeemable(claim, order, coupon.definition.requires_lock))?;
        let price = coupon.definition.discount.price(amount, currency)?;
        within_redemption_limits(coupon, number, &request.user)?;
        let redemption = Redemption {
            id: request.id,
            order: order.clone(),
            amount,
            discount: price.discount,
            final_price: price.final_price,
            currency: currency.into(),
            redeemed: self.now(),
        };
        Ok((number, Operation::Redeem(redemption)))
    }

    fn evaluate_rollback(&self, request: &Request, no: Option<CouponNo>) -> Evaluation {
        let id: RequestId = details(request).redemption.ok_or(Reason::RedemptionUnknown)?;
        let of_coupon = self.redemptions.get(&id).filter(|stored| Some(stored.coupon) == no);
        let stored = of_coupon.ok_or(Reason::RedemptionUnknown)?;
        if stored.rolled_back {
            return Err(Reason::AlreadyRolledBack);
        }
        Ok((stored.number, Operation::RollBack(stored.redemption.clone())))
    }
}

fn evaluate_unlock(request: &Request, coupon: Option<&Coupon>) -> Evaluation {
    let (_, number, claim) = own_code(request, coupon)?;
    match claim.status.state {
        ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
        ClaimState::Locked => Ok((number, Operation::Unlock)),
        _ if claim.status.lock_until.is_some() => Err(Reason::LockLapsed),
        _ => Err(Reason::NotLocked),
    }
}

fn evaluate_return(request: &Request, coupon: Option<&Coupon>) -> Evaluation {
    let (_, number, claim) = own_code(request, coupon)?;
    match claim.status.state {
        ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
        ClaimState::Locked => Err(Reason::AlreadyLocked),
        _ => Ok((number, Operation::Return)),
    }
}

fn evaluate_revoke(request: &Request, coupon: Option<&Coupon>) -> Evaluation {
    let coupon = coupon.ok_or(Reason::CodeUnknown)?;
    let number = number_of(request, coupon)?;
    let is_redeemed = |code: &Code| {
        code.claim.as_ref().is_some_and(|claim| claim.status.state == ClaimState::Redeemed)
            || coupon.definition.is_shared() && coupon.is_used_up(number)
    };
    match coupon.code(number) {
        Some(code) if code.revoked => Err(Reason::CodeRevoked),
        Some(code) if is_redeemed(code) => Err(Reason::AlreadyRedeemed),
        _ => Ok((number, Operation::Revoke)),
    }
}

/// The number of the code in a request, if it is stock of this coupon.
fn number_of(request: &Request, coupon: &Coupon) -> Result<i64, Reason> {
    let parsed = request.code.as_deref().and_then(ledger::parse_code_key);
    let number = parsed.and_then(|(load, idx)| coupon.number_of(load, idx));
    number.ok_or(Reason::CodeUnknown)
}

/// The user's live claim of a code that is neither shared nor revoked.
fn own_code<'a>(
    request: &Request,
    coupon: Option<&'a Coupon>,
) -> Result<(&'a Coupon, i64, &'a Claim), Reason> {
    let coupon = coupon.ok_or(Reason::CodeUnknown)?;
    let number = number_of(request, coupon)?;
    if coupon.definition.is_shared() {
        return Err(Reason::Unprocessable);
    }
    let claim = own_claim(coupon.code(number), &request.user)?;
    if claim.status.state == ClaimState::Revoked {
        return Err(Reason::CodeRevoked);
    }
    Ok((coupon, number, claim))
}

fn own_claim<'a>(code: Option<&'a Code>, user: &str) -> Result<&'a Claim, Reason> {
    let code = code.ok_or(Reason::NotClaimed)?;
    match &code.claim {
        Some(claim) if &*claim.user == user => Ok(claim),
        _ if code.lapsed.contains(user) => Err(Reason::HoldLapsed),
        Some(_) => Err(Reason::NotYourCode),
        None if code.revoked => Err(Reason::CodeRevoked),
        None => Err(Reason::NotClaimed),
    }
}

fn is_redeemable(claim: &Claim, order: &str, requires_lock: bool) -> Result<(), Reason> {
    let status = &claim.status;
    match status.state {
        ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
        ClaimState::Locked if status.order.as_deref().is_some_and(|locked_for| locked_for != order) => {
            Err(Reason::AlreadyLocked)
        }
        ClaimState::Claimed if requires_lock && status.lock_until.is_some() => Err(Reason::LockLapsed),
        ClaimState::Claimed if requires_lock => Err(Reason::NotLocked),
        _ => Ok(()),
    }
}

fn in_window(coupon: &Coupon, now: Millis) -> Result<(), Reason> {
    coupon.definition.open_at(now).map_err(|reason| match reason {
        Reason::Expired => Reason::CodeExpired,
        other => other,
    })
}

fn within_claim_limit(coupon: &Coupon, user: &str) -> Result<(), Reason> {
    let limit = coupon.definition.claims_per_user.map_or(usize::MAX, |limit| limit as usize);
    if coupon.claims_of(user) >= limit { Err(Reason::UserLimitReached) } else { Ok(()) }
}

fn within_redemption_limits(coupon: &Coupon, number: i64, user: &str) -> Result<(), Reason> {
    let definition = &coupon.definition;
    let per_user = definition.redemptions_per_user.map_or(usize::MAX, |limit| limit as usize);
    let total = definition.redemptions_total.map_or(usize::MAX, |limit| limit as usize);
    let used_up = definition.is_shared() && coupon.is_used_up(number);
    if used_up || coupon.redemptions_of(user) >= per_user || coupon.redemptions() >= total {
        return Err(Reason::UsageLimitReached);
    }
    Ok(())
}
