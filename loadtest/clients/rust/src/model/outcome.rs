//! Requests, their outcomes, and what users see of their codes.

use serde::Deserialize;

/// A request, and its outcome once it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Outcome {
    /// The request's id, as the server issued it.
    pub request_id: String,
    /// Whether it is decided, and how.
    pub status: Status,
    /// `claim`, `lock`, `unlock`, `return`, `redeem`, `rollback` or `revoke`; absent while pending.
    pub kind: Option<String>,
    /// Absent while pending, and where the code or redemption is unknown.
    pub coupon_id: Option<String>,
    /// Why it was rejected: a stable word (`sold_out`, `user_limit_reached`, …).
    pub reason: Option<String>,
    /// When the reason ends, for reasons that end by themselves.
    pub retry_at: Option<String>,
    /// The code that the request obtained or was about.
    pub code: Option<String>,
    /// The claim as this request left it.
    pub claim: Option<Claim>,
    /// The redemption that this request made or rolled back.
    pub redemption: Option<Redemption>,
    /// When it was decided.
    pub decided_at: Option<String>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted by the API, not decided yet.
    Pending,
    /// Decided: granted.
    Accepted,
    /// Decided: rejected for [`Outcome::reason`].
    Rejected,
}

impl Outcome {
    /// Whether the request was granted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.status == Status::Accepted
    }

    /// Whether the request is not decided yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.status == Status::Pending
    }

    /// Whether the request was rejected for this reason.
    #[must_use]
    pub fn is_rejected_for(&self, reason: &str) -> bool {
        self.status == Status::Rejected && self.reason.as_deref() == Some(reason)
    }

    /// `accepted`, `pending`, or the reason of the rejection.
    #[must_use]
    pub fn word(&self) -> &str {
        match (self.status, &self.reason) {
            (Status::Pending, _) => "pending",
            (Status::Accepted, _) => "accepted",
            (Status::Rejected, Some(reason)) => reason,
            (Status::Rejected, None) => "rejected",
        }
    }
}

/// A claimed code.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claim {
    /// The coupon.
    pub coupon_id: String,
    /// The code.
    pub code: String,
    /// `CLAIMED`, `LOCKED`, `REDEEMED`, `RETURNED` or `REVOKED`.
    pub state: String,
    /// When it was claimed; absent for a revoked code without a holder.
    pub claimed_at: Option<String>,
    /// When it lapses unless it is redeemed.
    pub hold_until: Option<String>,
    /// When its lock ends.
    pub lock_until: Option<String>,
}

/// A code that paid for an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Redemption {
    /// The id to roll it back with.
    pub redemption_id: String,
    /// The code.
    pub code: String,
    /// The order.
    pub order_id: String,
    /// The amount before the discount.
    pub order_amount: String,
    /// The discount.
    pub discount: String,
    /// The amount after the discount.
    pub final_price: String,
    /// ISO 4217.
    pub currency: String,
    /// When it was redeemed.
    pub redeemed_at: String,
}

/// Whether a code could be redeemed now. Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Validation {
    /// Whether it could.
    pub valid: bool,
    /// The reason that a redeem would be rejected with.
    pub reason: Option<String>,
    /// The code.
    pub code: String,
    /// Absent where the code is unknown.
    pub coupon_id: Option<String>,
    /// The amount before the discount.
    pub order_amount: Option<String>,
    /// The discount.
    pub discount: Option<String>,
    /// The amount after the discount.
    pub final_price: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
}

/// A code that a user holds or has used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OwnedCode {
    /// The coupon.
    pub coupon_id: String,
    /// The code.
    pub code: String,
    /// `CLAIMED`, `LOCKED`, `REDEEMED`, `REVOKED`, or `EXPIRED` where the coupon's window is over.
    pub state: String,
    /// When it was claimed.
    pub claimed_at: String,
    /// When it lapses unless it is redeemed.
    pub hold_until: Option<String>,
    /// When its lock ends.
    pub lock_until: Option<String>,
    /// The order that it is locked for or was redeemed with.
    pub order_id: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Requests the next page; `None`: this is the last one.
    pub next_cursor: Option<String>,
}

/// Which page of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageQuery<'a> {
    /// Items on a page; the server's default if absent.
    pub limit: Option<u32>,
    /// [`Page::next_cursor`] of the page before; the first page if absent.
    pub cursor: Option<&'a str>,
}
