//! The life of a claimed code: what may be done to it, by whom, and what it is afterwards.
//!
//! The order of the checks decides the reason that is told. Who asks comes before how the code stands: a stranger
//! learns nothing about somebody else's code. For each request the first check that fails answers:
//! - claim (named): window; `code_revoked`; `code_taken`; the user's limit (checked by the caller);
//! - lock: [ownership](Known::own); `code_revoked`; window; `already_redeemed`; `already_locked`;
//! - unlock: ownership; `code_revoked`; `already_redeemed`; `lock_lapsed`, `not_locked`;
//! - give back: ownership; `code_revoked`; `already_redeemed`; `already_locked`;
//! - redeem: ownership; `code_revoked`; window; `order_already_used`; `already_redeemed`; `already_locked` (for
//!   another order); `lock_lapsed`, `not_locked`; `currency_mismatch`; `minimum_order_not_met`;
//!   `usage_limit_reached`;
//! - revoke: `code_revoked`; `already_redeemed`.
//!
//! That coupon and code exist (`code_unknown`) has been checked by then, and every deadline up to now has fired.
//! The window of a code that is claimed already ends with `code_expired`.

use crate::domain::batch::{CodeFlags, EventKind};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::coupon::Definition;
use crate::domain::ids::Millis;
use crate::domain::money::Price;
use crate::domain::words::{ClaimState, Reason};
use rust_decimal::Decimal;

/// What a request about a code can depend on.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The coupon's rules.
    pub definition: &'a Definition,
    /// The code's live claim.
    pub claim: Option<&'a Claim>,
    /// What is known of the code beyond that.
    pub flags: CodeFlags,
    /// Who asks.
    pub user: &'a str,
    /// Whether a claim of theirs to this code has lapsed.
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
    /// Whether it was paid for with this code before.
    pub order_used: bool,
    /// How often the user has redeemed; only looked at where that is limited.
    pub by_user: u32,
    /// How often the coupon's codes were redeemed.
    pub in_all: i64,
}

impl<'a> Known<'a> {
    /// The live claim, if it is the asker's.
    ///
    /// # Errors
    /// `hold_lapsed` to somebody who had the code, `not_your_code` while somebody else has it, `code_revoked` or
    /// `not_claimed` where nobody has.
    pub fn own(&self) -> Result<&'a Claim, Reason> {
        match self.claim {
            Some(claim) if &*claim.user == self.user => Ok(claim),
            _ if self.lapsed => Err(Reason::HoldLapsed),
            Some(_) => Err(Reason::NotYourCode),
            None if self.flags.revoked => Err(Reason::CodeRevoked),
            None => Err(Reason::NotClaimed),
        }
    }

    /// A claim of this very code.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub fn claim(&self) -> Result<(), Reason> {
        self.definition.open_at(self.now)?;
        if self.flags.revoked {
            return Err(Reason::CodeRevoked);
        }
        if self.claim.is_some() || self.definition.is_shared() {
            return Err(Reason::CodeTaken);
        }
        Ok(())
    }

    /// A lock for a checkout.
    ///
    /// # Errors
    /// Why not; also of the other methods.
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

    /// The release of a lock. A claim whose hold has ended meanwhile goes back to stock.
    pub fn unlock(&self) -> Result<ClaimStatus, Reason> {
        let claim = self.own_and_usable()?;
        match claim.status.state {
            ClaimState::Redeemed => return Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => {}
            _ => return Err(without_a_lock(&claim.status)),
        }
        let released = ClaimStatus { lock_until: None, ..unlocked(&claim.status) };
        Ok(lapse(&released, self.now).map_or(released, |(status, _)| status))
    }

    /// The code is given back.
    pub fn give_back(&self) -> Result<ClaimStatus, Reason> {
        let claim = self.own_and_usable()?;
        match claim.status.state {
            ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            ClaimState::Locked => Err(Reason::AlreadyLocked),
            _ => Ok(ended(ClaimState::Returned)),
        }
    }

    /// A redemption: the terms of the claim afterwards (none for a code that is shared), and the price.
    pub fn redeem(&self, checkout: &Checkout<'_>) -> Result<(Option<ClaimStatus>, Price), Reason> {
        let shared = self.definition.is_shared();
        let claim = if shared { None } else { Some(self.own()?) };
        self.usable()?;
        self.open()?;
        if checkout.order_used {
            return Err(Reason::OrderAlreadyUsed);
        }
        if let Some(claim) = claim {
            self.lock_allows(&claim.status, checkout.order)?;
        }
        let price = self.definition.discount.price(checkout.amount, checkout.currency)?;
        let reached = |limit: Option<i64>, count: i64| limit.is_some_and(|limit| count >= limit);
        if shared && reached(self.definition.redemptions_per_code.map(i64::from), self.flags.uses)
            || reached(self.definition.redemptions_per_user.map(i64::from), checkout.by_user.into())
            || reached(self.definition.redemptions_total, checkout.in_all)
        {
            return Err(Reason::UsageLimitReached);
        }
        let paid = ClaimStatus { order: Some(checkout.order.into()), ..ended(ClaimState::Redeemed) };
        Ok((claim.map(|_| paid), price))
    }

    /// The code is withdrawn: the terms of its claim afterwards, if it has one.
    pub fn revoke(&self) -> Result<Option<ClaimStatus>, Reason> {
        self.usable()?;
        let exhausted = self.definition.is_shared() && is_exhausted(self.definition, self.flags);
        match self.claim {
            _ if exhausted => Err(Reason::AlreadyRedeemed),
            Some(claim) if claim.status.state == ClaimState::Redeemed => Err(Reason::AlreadyRedeemed),
            claim => Ok(claim.map(|_| ended(ClaimState::Revoked))),
        }
    }

    fn usable(&self) -> Result<(), Reason> {
        if self.flags.revoked { Err(Reason::CodeRevoked) } else { Ok(()) }
    }

    fn own_and_usable(&self) -> Result<&'a Claim, Reason> {
        let claim = self.own()?;
        self.usable()?;
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
            _ if self.definition.requires_lock => Err(without_a_lock(status)),
            _ => Ok(()),
        }
    }
}

/// Whether a code that is shared was used as often as allowed.
#[must_use]
pub fn is_exhausted(definition: &Definition, flags: CodeFlags) -> bool {
    definition.redemptions_per_code.is_some_and(|most| flags.uses >= i64::from(most))
}

/// A redeemed claim after its redemption was rolled back: claimed again, with a fresh hold.
#[must_use]
pub fn rolled_back(definition: &Definition, now: Millis) -> ClaimStatus {
    ClaimStatus::claimed(definition.hold_from(now))
}

/// One step of lapsing, and its event: a lock that has ended, then a hold that has. `None`: nothing has ended.
#[must_use]
pub fn lapse(status: &ClaimStatus, now: Millis) -> Option<(ClaimStatus, EventKind)> {
    let deadline = status.deadline().filter(|deadline| *deadline <= now)?;
    Some(match status.state {
        ClaimState::Locked => (unlocked(status), EventKind::LockLapsed),
        _ => (ClaimStatus { lapsed: Some(deadline), ..ended(ClaimState::Returned) }, EventKind::HoldLapsed),
    })
}

/// Claimed again, as it was but for the order: a lock's end is kept, to tell one that lapsed from none at all.
fn unlocked(status: &ClaimStatus) -> ClaimStatus {
    ClaimStatus { state: ClaimState::Claimed, order: None, ..status.clone() }
}

/// A state in which nothing can lapse.
const fn ended(state: ClaimState) -> ClaimStatus {
    ClaimStatus { state, hold_until: None, lock_until: None, order: None, lapsed: None }
}

const fn without_a_lock(status: &ClaimStatus) -> Reason {
    if status.lock_until.is_some() { Reason::LockLapsed } else { Reason::NotLocked }
}

#[cfg(test)]
#[path = "transitions_tests.rs"]
mod tests;
