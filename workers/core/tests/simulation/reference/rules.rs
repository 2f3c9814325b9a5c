//! What each kind of request does, and the order of the reasons why it does not: first it is judged, which changes
//! nothing, then performed.

use super::Reference;
use super::books::{Code, Coupon};
use crate::ledger;
use coupon_core::batch::{Decision, Redemption, Verdict};
use coupon_core::claim::Claim;
use coupon_core::ids::{CouponNo, Millis, RequestId};
use coupon_core::money;
use coupon_core::record::{Details, Request};
use coupon_core::words::{ClaimState, Kind, Reason};

/// A redemption as it was made, and whether it was rolled back.
#[derive(Clone, Debug)]
pub(super) struct Redeemed {
    pub(super) coupon: CouponNo,
    pub(super) number: i64,
    pub(super) redemption: Redemption,
    pub(super) rolled_back: bool,
}

/// What is done to a code. (To which one is told beside it.)
#[derive(PartialEq)]
pub(super) enum Done {
    GivenInSequence,
    GivenAgain,
    GivenByName,
    Locked,
    Unlocked,
    Returned,
    Redeemed(Redemption),
    RolledBack(Redemption),
    Revoked,
}

/// The number of a code, and what is done to it; or why nothing is.
pub(super) type Judged = Result<(i64, Done), Reason>;

const NO_DETAILS: Details = Details { order: None, amount: None, currency: None, redemption: None };

fn details(request: &Request) -> &Details {
    request.details.as_deref().unwrap_or(&NO_DETAILS)
}

impl Reference {
    /// `found` is what the machine decided: it may choose among the returned codes.
    pub(super) fn judge(&self, request: &Request, no: Option<CouponNo>, found: Option<&Decision>) -> Judged {
        let coupon = no.and_then(|no| self.coupons.get(&no));
        match request.kind {
            Kind::Claim if request.code.is_some() => self.judge_named_claim(request, coupon),
            Kind::Claim => self.judge_claim(request, coupon, found),
            Kind::Lock => self.judge_lock(request, coupon),
            Kind::Unlock => self.judge_unlock(request, coupon),
            Kind::Return => self.judge_return(request, coupon),
            Kind::Redeem => self.judge_redeem(request, coupon),
            Kind::Rollback => self.judge_rollback(request, no),
            Kind::Revoke => judge_revoke(request, coupon),
            Kind::Unknown => Err(Reason::Unprocessable),
        }
    }

    const fn now(&self) -> Millis {
        self.position.time
    }

    fn judge_claim(&self, request: &Request, coupon: Option<&Coupon>, found: Option<&Decision>) -> Judged {
        let coupon = coupon.ok_or(Reason::CouponUnknown)?;
        coupon.definition.open_at(self.now())?;
        if coupon.definition.is_shared() || coupon.available() == 0 {
            return Err(Reason::SoldOut);
        }
        within_limit_of_claims(coupon, &request.user)?;
        if coupon.returned.is_empty() {
            let next = coupon.next_in_sequence().expect("a free number");
            return Ok((next, Done::GivenInSequence));
        }
        let chosen = match found.map(|decision| &decision.verdict) {
            Some(Verdict::Claimed { number, .. }) if coupon.returned.contains(&number.0) => Some(number.0),
            _ => coupon.returned.first().copied(),
        };
        Ok((chosen.expect("a returned number"), Done::GivenAgain))
    }

    fn judge_named_claim(&self, request: &Request, coupon: Option<&Coupon>) -> Judged {
        let coupon = coupon.ok_or(Reason::CouponUnknown)?;
        coupon.definition.open_at(self.now())?;
        let number = number_of(request, coupon)?;
        let code = coupon.known(number);
        if code.is_some_and(|code| code.revoked) {
            return Err(Reason::CodeRevoked);
        }
        if coupon.definition.is_shared() || code.is_some_and(|code| code.claim.is_some()) {
            return Err(Reason::CodeTaken);
        }
        within_limit_of_claims(coupon, &request.user)?;
        Ok((number, Done::GivenByName))
    }

    fn judge_lock(&self, request: &Request, coupon: Option<&Coupon>) -> Judged {
        let (coupon, number, claim) = own_code(request, coupon)?;
        in_window(coupon, self.now())?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Err(Reason::AlreadyLocked),
            _ => Ok((number, Done::Locked)),
        }
    }

    fn judge_unlock(&self, request: &Request, coupon: Option<&Coupon>) -> Judged {
        let (_, number, claim) = own_code(request, coupon)?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Ok((number, Done::Unlocked)),
            _ if claim.status.lock_until.is_some() => Err(Reason::LockLapsed),
            _ => Err(Reason::NotLocked),
        }
    }

    fn judge_return(&self, request: &Request, coupon: Option<&Coupon>) -> Judged {
        let (_, number, claim) = own_code(request, coupon)?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Err(Reason::AlreadyLocked),
            _ => Ok((number, Done::Returned)),
        }
    }

    fn judge_redeem(&self, request: &Request, coupon: Option<&Coupon>) -> Judged {
        let said = details(request);
        let (Some(order), Some(amount)) = (&said.order, said.amount) else {
            return Err(Reason::Unprocessable);
        };
        let currency = said.currency.as_deref().unwrap_or("");
        if !money::is_amount_of(amount, currency) {
            return Err(Reason::Unprocessable);
        }
        let coupon = coupon.ok_or(Reason::CodeUnknown)?;
        let number = number_of(request, coupon)?;
        let code = coupon.known(number);
        let (shared, definition) = (coupon.definition.is_shared(), &coupon.definition);
        let claim = if shared { None } else { Some(own_claim(code, &request.user)?) };
        if code.is_some_and(|code| code.revoked) {
            return Err(Reason::CodeRevoked);
        }
        in_window(coupon, self.now())?;
        if code.is_some_and(|code| code.uses.iter().any(|used| used.order == *order)) {
            return Err(Reason::OrderAlreadyUsed);
        }
        if let Some(claim) = claim {
            let terms = &claim.status;
            match terms.state {
                ClaimState::Redeemed => return Err(Reason::AlreadyRedeemed),
                ClaimState::Locked if terms.order.as_ref().is_some_and(|named| named != order) => {
                    return Err(Reason::AlreadyLocked);
                }
                ClaimState::Claimed if definition.requires_lock => {
                    let lapsed = terms.lock_until.is_some();
                    return Err(if lapsed { Reason::LockLapsed } else { Reason::NotLocked });
                }
                _ => {}
            }
        }
        let price = definition.discount.price(amount, currency)?;
        let per_user = definition.redemptions_per_user.map_or(usize::MAX, |limit| limit as usize);
        let total = definition.redemptions_total.map_or(usize::MAX, |limit| limit as usize);
        let exhausted = shared && coupon.is_exhausted(number);
        if exhausted || coupon.redemptions_of(&request.user) >= per_user || coupon.redemptions() >= total {
            return Err(Reason::UsageLimitReached);
        }
        let redemption = Redemption {
            id: request.id,
            order: order.clone(),
            amount,
            discount: price.discount,
            final_price: price.final_price,
            currency: currency.into(),
            redeemed: self.now(),
        };
        Ok((number, Done::Redeemed(redemption)))
    }

    fn judge_rollback(&self, request: &Request, no: Option<CouponNo>) -> Judged {
        let id: RequestId = details(request).redemption.ok_or(Reason::RedemptionUnknown)?;
        let of_coupon = self.redemptions.get(&id).filter(|redeemed| Some(redeemed.coupon) == no);
        let redeemed = of_coupon.ok_or(Reason::RedemptionUnknown)?;
        if redeemed.rolled_back {
            return Err(Reason::AlreadyRolledBack);
        }
        Ok((redeemed.number, Done::RolledBack(redeemed.redemption.clone())))
    }
}

fn judge_revoke(request: &Request, coupon: Option<&Coupon>) -> Judged {
    let coupon = coupon.ok_or(Reason::CodeUnknown)?;
    let number = number_of(request, coupon)?;
    let code = coupon.known(number);
    let redeemed = |code: &Code| {
        code.claim.as_ref().is_some_and(|claim| claim.status.state == ClaimState::Redeemed)
            || coupon.definition.is_shared() && coupon.is_exhausted(number)
    };
    match code {
        Some(code) if code.revoked => Err(Reason::CodeRevoked),
        Some(code) if redeemed(code) => Err(Reason::AlreadyRedeemed),
        _ => Ok((number, Done::Revoked)),
    }
}

/// The number of the code that a request names, if it is stock of this coupon.
fn number_of(request: &Request, coupon: &Coupon) -> Result<i64, Reason> {
    let named = request.code.as_deref().and_then(ledger::named);
    let number = named.and_then(|(load, idx)| coupon.number_of(load, idx));
    number.ok_or(Reason::CodeUnknown)
}

/// The user's live claim of a code that is not shared, and not withdrawn.
fn own_code<'a>(
    request: &Request,
    coupon: Option<&'a Coupon>,
) -> Result<(&'a Coupon, i64, &'a Claim), Reason> {
    let coupon = coupon.ok_or(Reason::CodeUnknown)?;
    let number = number_of(request, coupon)?;
    if coupon.definition.is_shared() {
        return Err(Reason::Unprocessable);
    }
    let claim = own_claim(coupon.known(number), &request.user)?;
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

fn in_window(coupon: &Coupon, now: Millis) -> Result<(), Reason> {
    coupon.definition.open_at(now).map_err(|reason| match reason {
        Reason::Expired => Reason::CodeExpired,
        other => other,
    })
}

fn within_limit_of_claims(coupon: &Coupon, user: &str) -> Result<(), Reason> {
    let limit = coupon.definition.claims_per_user.map_or(usize::MAX, |limit| limit as usize);
    if coupon.claims_of(user) >= limit { Err(Reason::UserLimitReached) } else { Ok(()) }
}
