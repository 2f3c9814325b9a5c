//! Transitions of a claim: which user may request which, and the status afterwards.
//!
//! The first check that fails gives the reason. The user is checked before the state of the code, so that a user
//! learns nothing about another user's code. The checks, in order:
//! - claim of a named code: `code_revoked`; `code_taken` (see [`check_claim`](crate::domain::decide::check_claim) for
//!   the checks around these);
//! - lock: [ownership](CodeContext::own); `code_revoked`; window; `already_redeemed`; `already_locked`;
//! - unlock: ownership; `code_revoked`; `already_redeemed`; `lock_lapsed`, `not_locked`;
//! - return: ownership; `code_revoked`; `already_redeemed`; `already_locked`;
//! - redeem: ownership; `code_revoked`; window; `order_already_used`; `already_redeemed`; `already_locked` (for
//!   another order); `lock_lapsed`, `not_locked`; `currency_mismatch`; `minimum_order_not_met`;
//!   `usage_limit_reached`;
//! - revoke: `code_revoked`; `already_redeemed`.
//!
//! The caller has checked that coupon and code exist (`code_unknown`), and has fired every deadline up to now. The
//! window of a claimed code ends with `code_expired`.

use crate::domain::batch::{CodeFlags, EventKind};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::coupon::Definition;
use crate::domain::ids::Millis;
use crate::domain::money::Price;
use crate::domain::words::{ClaimState, Reason};
use rust_decimal::Decimal;

/// Everything that a transition of a code depends on.
#[derive(Clone, Copy, Debug)]
pub struct CodeContext<'a> {
    /// The coupon's rules.
    pub definition: &'a Definition,
    /// The code's live claim.
    pub claim: Option<&'a Claim>,
    /// The code's flags.
    pub flags: CodeFlags,
    /// The requesting user.
    pub user: &'a str,
    /// Whether a claim of this user to this code has lapsed.
    pub lapsed: bool,
    /// The partition's time.
    pub now: Millis,
}

/// What a redemption depends on beyond its code.
#[derive(Clone, Copy, Debug)]
pub struct Checkout<'a> {
    /// The order.
    pub order: &'a str,
    /// Its amount.
    pub amount: Decimal,
    /// Its currency.
    pub currency: &'a str,
    /// Whether the order was paid with this code before.
    pub order_used: bool,
    /// Redemptions of this user; used only if the coupon limits them.
    pub redemptions_of_user: u32,
    /// Redemptions of all codes of the coupon.
    pub redemptions_total: i64,
}

impl<'a> CodeContext<'a> {
    /// The live claim, if it belongs to the requesting user.
    ///
    /// # Errors
    /// `hold_lapsed` for a user whose claim has lapsed, `not_your_code` while another user has the code, `code_revoked`
    /// or `not_claimed` without a live claim.
    pub fn own(&self) -> Result<&'a Claim, Reason> {
        match self.claim {
            Some(claim) if &*claim.user == self.user => Ok(claim),
            _ if self.lapsed => Err(Reason::HoldLapsed),
            Some(_) => Err(Reason::NotYourCode),
            None if self.flags.revoked => Err(Reason::CodeRevoked),
            None => Err(Reason::NotClaimed),
        }
    }

    /// Checks that this code can be claimed by name. The caller has checked the window.
    ///
    /// # Errors
    /// `code_revoked`, `code_taken`; a shared code is always taken.
    pub fn claim(&self) -> Result<(), Reason> {
        self.not_revoked()?;
        if self.claim.is_some() || self.definition.is_shared() {
            return Err(Reason::CodeTaken);
        }
        Ok(())
    }

    /// The status after a lock, for this order if one is named.
    ///
    /// # Errors
    /// The first check that fails; also for the other methods.
    pub fn lock(&self, order: Option<&str>) -> Result<ClaimStatus, Reason> {
        let claim = self.own_and_usable()?;
        self.open()?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Err(Reason::AlreadyLocked),
            _ => Ok(ClaimStatus {
                state: ClaimState::Locked,
                lock_until: Some(Millis(self.now.0 + self.definition.lock)),
                order: order.map(Into::into),
                ..claim.status.clone()
            }),
        }
    }

    /// The status after the release of a lock. If the hold has ended meanwhile, the code is returned to stock.
    pub fn unlock(&self) -> Result<ClaimStatus, Reason> {
        let claim = self.own_and_usable()?;
        match claim.status.state {
            ClaimState::Redeemed => return Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => {}
            _ => return Err(reason_without_lock(&claim.status)),
        }
        let released = ClaimStatus { lock_until: None, ..unlocked(&claim.status) };
        Ok(lapse(&released, self.now).map_or(released, |(status, _)| status))
    }

    /// The status after the user returned the code.
    pub fn return_code(&self) -> Result<ClaimStatus, Reason> {
        let claim = self.own_and_usable()?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Err(Reason::AlreadyLocked),
            _ => Ok(ended(ClaimState::Returned)),
        }
    }

    /// The status after a redemption (`None` for a shared code, which has no claim), and the price.
    pub fn redeem(&self, checkout: &Checkout<'_>) -> Result<(Option<ClaimStatus>, Price), Reason> {
        let claim = if self.definition.is_shared() { None } else { Some(self.own()?) };
        self.not_revoked()?;
        self.open()?;
        if checkout.order_used {
            return Err(Reason::OrderAlreadyUsed);
        }
        if let Some(claim) = claim {
            self.lock_allows(&claim.status, checkout.order)?;
        }
        let price = self.definition.discount.price(checkout.amount, checkout.currency)?;
        if self.usage_limit_reached(checkout) {
            return Err(Reason::UsageLimitReached);
        }
        let redeemed = ClaimStatus { order: Some(checkout.order.into()), ..ended(ClaimState::Redeemed) };
        Ok((claim.map(|_| redeemed), price))
    }

    /// The status after the code is withdrawn; `None` for a code without a claim.
    pub fn revoke(&self) -> Result<Option<ClaimStatus>, Reason> {
        self.not_revoked()?;
        let exhausted = self.definition.is_shared() && is_exhausted(self.definition, self.flags);
        match self.claim {
            _ if exhausted => Err(Reason::AlreadyRedeemed),
            Some(claim) if claim.status.state == ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            claim => Ok(claim.map(|_| ended(ClaimState::Revoked))),
        }
    }

    fn not_revoked(&self) -> Result<(), Reason> {
        if self.flags.revoked { Err(Reason::CodeRevoked) } else { Ok(()) }
    }

    fn own_and_usable(&self) -> Result<&'a Claim, Reason> {
        let claim = self.own()?;
        self.not_revoked()?;
        Ok(claim)
    }

    fn open(&self) -> Result<(), Reason> {
        self.definition.open_at(self.now).map_err(|reason| match reason {
            Reason::Expired => Reason::CodeExpired,
            reason => reason,
        })
    }

    fn lock_allows(&self, status: &ClaimStatus, order: &str) -> Result<(), Reason> {
        match status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked if status.order.as_deref().is_some_and(|named| named != order) => {
                Err(Reason::AlreadyLocked)
            }
            ClaimState::Locked => Ok(()),
            _ if self.definition.requires_lock => Err(reason_without_lock(status)),
            _ => Ok(()),
        }
    }

    fn usage_limit_reached(&self, checkout: &Checkout<'_>) -> bool {
        let Definition { redemptions_per_code, redemptions_per_user, redemptions_total, .. } =
            *self.definition;
        let reached = |limit: Option<i64>, count: i64| limit.is_some_and(|limit| count >= limit);
        self.definition.is_shared() && reached(redemptions_per_code.map(i64::from), self.flags.uses)
            || reached(redemptions_per_user.map(i64::from), checkout.redemptions_of_user.into())
            || reached(redemptions_total, checkout.redemptions_total)
    }
}

/// Whether a shared code has reached its limit of redemptions.
#[must_use]
pub fn is_exhausted(definition: &Definition, flags: CodeFlags) -> bool {
    definition.redemptions_per_code.is_some_and(|limit| flags.uses >= i64::from(limit))
}

/// The status after a redemption is rolled back: claimed again, with a fresh hold.
#[must_use]
pub fn rolled_back(definition: &Definition, now: Millis) -> ClaimStatus {
    ClaimStatus::claimed(definition.hold_from(now))
}

/// One lapse, and its event: of a lock that has ended, else of a hold that has ended. `None` if no deadline has passed.
#[must_use]
pub fn lapse(status: &ClaimStatus, now: Millis) -> Option<(ClaimStatus, EventKind)> {
    let deadline = status.deadline().filter(|deadline| *deadline <= now)?;
    Some(match status.state {
        ClaimState::Locked => (unlocked(status), EventKind::LockLapsed),
        _ => (ClaimStatus { lapsed: Some(deadline), ..ended(ClaimState::Returned) }, EventKind::HoldLapsed),
    })
}

/// Claimed again, without the order. The end of the lock is kept: it distinguishes a lapsed lock from no lock.
fn unlocked(status: &ClaimStatus) -> ClaimStatus {
    ClaimStatus { state: ClaimState::Claimed, order: None, ..status.clone() }
}

/// A status that cannot lapse.
const fn ended(state: ClaimState) -> ClaimStatus {
    ClaimStatus { state, hold_until: None, lock_until: None, order: None, lapsed: None }
}

const fn reason_without_lock(status: &ClaimStatus) -> Reason {
    if status.lock_until.is_some() { Reason::LockLapsed } else { Reason::NotLocked }
}

#[cfg(test)]
#[path = "transitions_tests.rs"]
mod tests;
