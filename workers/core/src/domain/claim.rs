//! A claim as its row stands, and when it lapses.

use crate::domain::ids::{CodeNumber, CouponNo, Millis, RequestId};
use crate::domain::words::ClaimState;

/// A claim: who has which code, since when, and on what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The request that made it.
    pub id: RequestId,
    /// The coupon.
    pub coupon: CouponNo,
    /// The code's number within the coupon.
    pub number: CodeNumber,
    /// The code as shown to people.
    pub code: Box<str>,
    /// Whose it is.
    pub user: Box<str>,
    /// When it was claimed.
    pub claimed: Millis,
    /// What changes in its life.
    pub status: ClaimStatus,
}

/// What changes in the life of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimStatus {
    /// Where it stands.
    pub state: ClaimState,
    /// When its hold ends; `None` without one.
    pub hold_until: Option<Millis>,
    /// When its lock ends. Kept once the lock has lapsed, gone once it was released.
    pub lock_until: Option<Millis>,
    /// LOCKED: the order that the lock named. REDEEMED: the order that the code paid for.
    pub order: Option<Box<str>>,
    /// RETURNED: when the hold lapsed; `None` where the code was given back.
    pub lapsed: Option<Millis>,
}

impl ClaimStatus {
    /// Of a claim that was just made.
    #[must_use]
    pub const fn claimed(hold_until: Option<Millis>) -> Self {
        Self { state: ClaimState::Claimed, hold_until, lock_until: None, order: None, lapsed: None }
    }

    /// When it lapses next: a live lock suspends the hold. `None`: never, as it stands.
    #[must_use]
    pub const fn deadline(&self) -> Option<Millis> {
        match self.state {
            ClaimState::Claimed => self.hold_until,
            ClaimState::Locked => self.lock_until,
            ClaimState::Redeemed | ClaimState::Returned | ClaimState::Revoked => None,
        }
    }

    /// Whether the code is not to be had by anybody else.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != ClaimState::Returned
    }
}
