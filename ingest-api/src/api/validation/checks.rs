//! The checks of a redeem, in its order: existence, ownership, revocation, window, redeemed, lock, then (by the caller)
//! currency and minimum, limits.

use coupon_core::coupon::{Definition, Status};
use coupon_core::ids::Millis;
use coupon_core::words::{ClaimState, Reason};

use crate::db::outcomes::claim_state;
use crate::db::validation::CodeSnapshot;

/// The live claim of a code, after every deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LiveClaim {
    is_own: bool,
    state: ClaimState,
    lock_has_lapsed: bool,
}

impl CodeSnapshot {
    /// Every check that does not depend on the order.
    pub(super) fn check_usable(&self) -> Result<(), Reason> {
        let claim = self.check_ownership()?;
        let is_in = |state| claim.is_some_and(|claim| claim.state == state);
        if self.revoked || is_in(ClaimState::Revoked) {
            return Err(Reason::CodeRevoked);
        }
        self.check_window()?;
        if is_in(ClaimState::Redeemed) {
            return Err(Reason::AlreadyRedeemed);
        }
        if self.requires_lock && !self.is_shared() && !is_in(ClaimState::Locked) {
            let lapsed = claim.is_some_and(|claim| claim.lock_has_lapsed);
            return Err(if lapsed { Reason::LockLapsed } else { Reason::NotLocked });
        }
        Ok(())
    }

    /// The limits on redemptions.
    pub(super) fn check_limits(&self) -> Result<(), Reason> {
        let reached = |count: i64, limit: Option<i64>| limit.is_some_and(|limit| count >= limit);
        let of_code = self.is_shared() && reached(self.uses, self.redemptions_per_code.map(i64::from));
        let of_user = reached(self.own_redemptions, self.redemptions_per_user.map(i64::from));
        if of_code || of_user || reached(self.redemptions, self.redemptions_total) {
            return Err(Reason::UsageLimitReached);
        }
        Ok(())
    }

    /// The user's live claim; `None` for a shared code, which needs no claim.
    fn check_ownership(&self) -> Result<Option<LiveClaim>, Reason> {
        if self.is_shared() {
            return Ok(None);
        }
        let claim = self.live_claim();
        let has_lapsed = claim.is_some_and(|claim| claim.is_own && claim.state == ClaimState::Returned);
        match claim.filter(|claim| claim.state != ClaimState::Returned) {
            Some(own) if own.is_own => Ok(Some(own)),
            _ if has_lapsed || self.has_lapsed => Err(Reason::HoldLapsed),
            // The same reason as for an unknown code: it must not reveal that another user has the code.
            Some(_) => Err(Reason::CodeUnknown),
            None if self.revoked => Err(Reason::CodeRevoked),
            None => Err(Reason::NotClaimed),
        }
    }

    fn live_claim(&self) -> Option<LiveClaim> {
        let (is_own, stored) = (self.is_own?, self.state.and_then(claim_state)?);
        let lock_is_over = self.has_passed(self.lock_until_ms);
        let state = match stored {
            ClaimState::Locked if lock_is_over => ClaimState::Claimed,
            other => other,
        };
        let returned = state == ClaimState::Claimed && self.has_passed(self.hold_until_ms);
        let state = if returned { ClaimState::Returned } else { state };
        Some(LiveClaim { is_own, state, lock_has_lapsed: lock_is_over && state == ClaimState::Claimed })
    }

    fn check_window(&self) -> Result<(), Reason> {
        let definition = Definition {
            status: Status::parse(&self.status).unwrap_or(Status::Ended),
            starts: self.starts_at_ms.map(Millis),
            expires: self.expires_at_ms.map(Millis),
            ..Definition::default()
        };
        definition.open_at(Millis(self.now_ms)).map_err(|reason| match reason {
            Reason::Expired => Reason::CodeExpired,
            other => other,
        })
    }

    fn has_passed(&self, deadline_ms: Option<i64>) -> bool {
        deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.now_ms)
    }

    fn is_shared(&self) -> bool {
        self.redemptions_per_code != Some(1)
    }
}
