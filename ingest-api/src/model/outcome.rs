//! The outcome of a request, as the API caches it. Compact, because hundreds of thousands are cached.

use coupon_core::ids::RequestId;
use coupon_core::words::{ClaimState, Reason};
use schemas::{CouponResponse, kinds, status};

/// The final decision on one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The request.
    pub(crate) id: RequestId,
    /// The kind of request.
    pub(crate) kind: Box<str>,
    /// The record's key: the coupon; for an unknown code or redemption its own text.
    pub(crate) coupon_id: Box<str>,
    /// The reason of a rejection; `None` if the request was accepted.
    pub(crate) reason: Option<Box<str>>,
    /// When it was decided, by the clock of the partition.
    pub(crate) decided_ms: i64,
    /// The request's offset in its partition.
    pub(crate) offset: i64,
    /// The code that the request obtained or named.
    pub(crate) code: Option<Box<str>>,
    /// The claim after this decision.
    pub(crate) claim: Option<Claim>,
    /// The redemption that this decision created or rolled back.
    pub(crate) redemption: Option<Box<Redemption>>,
}

/// A claim after a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) state: Box<str>,
    /// Absent for a revoked code that was not claimed.
    pub(crate) claimed_ms: Option<i64>,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
}

/// A redemption as the decision created it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redemption {
    pub(crate) redemption_id: String,
    pub(crate) order_id: String,
    pub(crate) order_amount: String,
    pub(crate) discount: String,
    pub(crate) final_price: String,
    pub(crate) currency: String,
    pub(crate) redeemed_ms: i64,
}

impl Outcome {
    /// Converts a response event; `None` for an invalid request id.
    pub(crate) fn of(response: CouponResponse) -> Option<Self> {
        let id = RequestId::parse(&response.request_id).ok()?;
        let accepted = response.status == status::ACCEPTED;
        let claim = response.claim_state.filter(|_| accepted).map(|state| Claim {
            state: state.into_boxed_str(),
            claimed_ms: response.claimed_at_ms,
            hold_until_ms: response.hold_until_ms,
            lock_until_ms: response.lock_until_ms,
        });
        let redemption = response.redemption_id.filter(|_| accepted).map(|redemption_id| {
            Box::new(Redemption {
                redemption_id,
                order_id: response.order_id.unwrap_or_default(),
                order_amount: response.order_amount.unwrap_or_default(),
                discount: response.discount.unwrap_or_default(),
                final_price: response.final_price.unwrap_or_default(),
                currency: response.currency.unwrap_or_default(),
                redeemed_ms: response.redeemed_at_ms.unwrap_or(response.decided_at_ms),
            })
        });
        let default_reason = || Reason::Unprocessable.as_str().to_owned();
        Some(Self {
            id,
            kind: response.kind.into_boxed_str(),
            coupon_id: response.coupon_id.into_boxed_str(),
            reason: (!accepted).then(|| response.reason.unwrap_or_else(default_reason).into_boxed_str()),
            decided_ms: response.decided_at_ms,
            offset: response.offset,
            code: response.code.filter(|_| accepted).map(String::into_boxed_str),
            claim,
            redemption,
        })
    }

    /// Whether it proves that a code was available: an accepted claim, or a code that went back to stock.
    pub(crate) fn is_sign_of_stock(&self) -> bool {
        let returned = || self.claim.as_ref().is_some_and(|c| &*c.state == ClaimState::Returned.as_str());
        self.reason.is_none() && (&*self.kind == kinds::CLAIM || returned())
    }

    /// Whether it was rejected for this reason.
    pub(crate) fn is_rejected_as(&self, reason: Reason) -> bool {
        self.reason.as_deref() == Some(reason.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A response to a claim.
    pub(crate) fn response(reason: Option<&str>) -> CouponResponse {
        CouponResponse {
            request_id: RequestId { identity: 7, body: 0 }.to_string(),
            kind: "claim".to_owned(),
            coupon_id: "spring".to_owned(),
            user_id: "ann".to_owned(),
            status: if reason.is_none() { "accepted" } else { "rejected" }.to_owned(),
            reason: reason.map(str::to_owned),
            decided_at_ms: 1_000,
            offset: 4,
            code: reason.is_none().then(|| "AB-CD".to_owned()),
            claim_state: reason.is_none().then(|| "CLAIMED".to_owned()),
            claimed_at_ms: reason.is_none().then_some(1_000),
            ..CouponResponse::default()
        }
    }

    /// An outcome of a claim of `spring`.
    pub(crate) fn outcome(identity: u128, body: i64, reason: Option<&str>) -> Outcome {
        Outcome {
            id: RequestId { identity, body },
            kind: "claim".into(),
            coupon_id: "spring".into(),
            reason: reason.map(Into::into),
            decided_ms: 0,
            offset: 0,
            code: None,
            claim: None,
            redemption: None,
        }
    }

    #[test]
    fn a_code_that_went_back_to_stock_is_a_sign_of_stock() {
        let sign = |kind: &str, state: &str| {
            let (kind, claim_state) = (kind.to_owned(), Some(state.to_owned()));
            Outcome::of(CouponResponse { kind, claim_state, ..response(None) }).map(|o| o.is_sign_of_stock())
        };
        assert_eq!(sign("claim", "CLAIMED"), Some(true));
        assert_eq!(sign("return", "RETURNED"), Some(true));
        assert_eq!(sign("unlock", "RETURNED"), Some(true));
        assert_eq!(sign("unlock", "CLAIMED"), Some(false));
        assert_eq!(sign("rollback", "CLAIMED"), Some(false));
    }

    #[test]
    fn a_rejection_without_a_reason_is_still_a_rejection() {
        let outcome = Outcome::of(CouponResponse { reason: None, ..response(Some("x")) });
        assert_eq!(outcome.and_then(|outcome| outcome.reason).as_deref(), Some("unprocessable"));
    }
}
