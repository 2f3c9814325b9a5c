//! A claim as its row stores it, and its next deadline.

use crate::domain::ids::{CodeNumber, CouponNo, Millis, RequestId};
use crate::domain::words::ClaimState;

/// A claim: which user has which code, since when, and in which state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The claim request.
    pub id: RequestId,
    /// The coupon.
    pub coupon: CouponNo,
    /// The code's number within the coupon.
    pub number: CodeNumber,
    /// The code as shown to people.
    pub code: Box<str>,
    /// The user.
    pub user: Box<str>,
    /// Time of the claim.
    pub claimed: Millis,
    /// The part that transitions change.
    pub status: ClaimStatus,
}

/// The part of a claim that transitions change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimStatus {
    /// The state.
    pub state: ClaimState,
    /// End of the hold; `None` without a hold.
    pub hold_until: Option<Millis>,
    /// End of the lock. Kept after the lock has lapsed, cleared when it is released.
    pub lock_until: Option<Millis>,
    /// LOCKED: the order that the lock named. REDEEMED: the order that was paid with the code.
    pub order: Option<Box<str>>,
    /// RETURNED: the time at which the hold lapsed; `None` if the user returned the code.
    pub lapsed: Option<Millis>,
}

impl ClaimStatus {
    /// The status of a new claim.
    #[must_use]
    pub const fn claimed(hold_until: Option<Millis>) -> Self {
        Self { state: ClaimState::Claimed, hold_until, lock_until: None, order: None, lapsed: None }
    }

    /// The next deadline: of the lock while it is live, since a live lock suspends the hold, else of the hold. `None`
    /// for a claim that cannot lapse in this state.
    #[must_use]
    pub const fn deadline(&self) -> Option<Millis> {
        match self.state {
            ClaimState::Claimed => self.hold_until,
            ClaimState::Locked => self.lock_until,
            ClaimState::Redeemed | ClaimState::Returned | ClaimState::Revoked => None,
        }
    }

    /// Whether the claim keeps its code out of stock.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != ClaimState::Returned
    }
}
