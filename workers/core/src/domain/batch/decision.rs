//! The final outcome of one request.

use crate::domain::ids::{CodeNumber, CouponNo, Millis, Offset, RequestId};
use crate::domain::record::Request;
use crate::domain::words::{ClaimState, Reason};
use rust_decimal::Decimal;

/// The final outcome of one request: the content of its row and its response event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The request. A decision that was read from Postgres has no `code` and no `details`: they are not stored.
    pub request: Request,
    /// The coupon's number; `None` if the coupon does not exist.
    pub coupon: Option<CouponNo>,
    /// Offset of the request.
    pub offset: Offset,
    /// The partition's time of the decision.
    pub decided: Millis,
    /// The result.
    pub verdict: Verdict,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user has this code.
    Claimed {
        /// Number of the code within the coupon.
        number: CodeNumber,
        /// The code as shown to people.
        code: Box<str>,
        /// Deadline of the claim, if the coupon has holds.
        hold_until: Option<Millis>,
    },
    /// A code changed: the result of every accepted request except a claim.
    Changed(Box<Changed>),
    /// Nothing changed.
    Rejected(Reason),
}

/// The state of a code right after a request. Later transitions do not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Number of the code within the coupon.
    pub number: CodeNumber,
    /// The code as shown to people.
    pub code: Box<str>,
    /// State of its claim. REVOKED also for a revoked code without a claim; `None` for a shared code.
    pub state: Option<ClaimState>,
    /// Time of the claim.
    pub claimed: Option<Millis>,
    /// End of the hold.
    pub hold_until: Option<Millis>,
    /// End of the lock.
    pub lock_until: Option<Millis>,
    /// lock: the order that it named.
    pub order: Option<Box<str>>,
    /// redeem, rollback: the redemption.
    pub redemption: Option<Redemption>,
}

/// A redemption, identified by its redeem request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// The redeem request.
    pub id: RequestId,
    /// The order.
    pub order: Box<str>,
    /// The order's amount.
    pub amount: Decimal,
    /// The discount.
    pub discount: Decimal,
    /// The amount less the discount.
    pub final_price: Decimal,
    /// Currency of all three amounts (ISO 4217).
    pub currency: Box<str>,
    /// The partition's time of the redemption.
    pub redeemed: Millis,
}
