//! A request and its outcome as JSON.
//!
//! Guarantee: for a user without the code, an unknown code and another user's code look the same.

use coupon_core::words::Reason;
use schemas::{kinds, status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::outcome::Outcome;
use crate::text::rfc3339;

/// A request and, once it is decided, its outcome.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub(crate) struct RequestView<'a> {
    request_id: &'a str,
    /// claim, lock, unlock, return, redeem, rollback or revoke; null while pending.
    kind: Option<&'a str>,
    /// null while pending, and for an unknown code or redemption.
    coupon_id: Option<&'a str>,
    /// pending, accepted or rejected.
    #[schema(example = "accepted")]
    status: &'a str,
    /// The reason of a rejection: one of the stable words in this document's description.
    reason: Option<&'a str>,
    code: Option<&'a str>,
    claim: Option<ClaimView<'a>>,
    redemption: Option<RedemptionView<'a>>,
    /// RFC 3339, UTC.
    decided_at: Option<String>,
}

/// A claimed code.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Claim)]
struct ClaimView<'a> {
    coupon_id: &'a str,
    code: &'a str,
    /// CLAIMED, LOCKED, REDEEMED, RETURNED or REVOKED: the state after this request.
    #[schema(example = "CLAIMED")]
    state: &'a str,
    /// Absent for a revoked code that was not claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_until: Option<String>,
}

/// A code that was used for an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Redemption)]
struct RedemptionView<'a> {
    /// The id for a roll back.
    redemption_id: &'a str,
    code: &'a str,
    order_id: &'a str,
    order_amount: &'a str,
    discount: &'a str,
    final_price: &'a str,
    currency: &'a str,
    redeemed_at: String,
}

impl<'a> RequestView<'a> {
    /// A request that is not decided yet.
    pub(crate) fn pending(shown_id: &'a str) -> Self {
        Self {
            request_id: shown_id,
            kind: None,
            coupon_id: None,
            status: "pending",
            reason: None,
            code: None,
            claim: None,
            redemption: None,
            decided_at: None,
        }
    }

    /// A decided request, as its user may see it.
    pub(crate) fn decided(shown_id: &'a str, outcome: &'a Outcome) -> Self {
        // Returned as it is, `not_your_code` would reveal that another user has the code.
        let not_yours = outcome.is_rejected_as(Reason::NotYourCode);
        let reason = if not_yours { Some(Reason::CodeUnknown.as_str()) } else { outcome.reason.as_deref() };
        let code = outcome.code.as_deref();
        Self {
            request_id: shown_id,
            kind: Some(&outcome.kind),
            coupon_id: visible_coupon(outcome),
            status: if reason.is_none() { status::ACCEPTED } else { status::REJECTED },
            reason,
            code,
            claim: outcome.claim.as_ref().map(|claim| ClaimView {
                coupon_id: &outcome.coupon_id,
                code: code.unwrap_or_default(),
                state: &claim.state,
                claimed_at: claim.claimed_ms.map(rfc3339),
                hold_until: claim.hold_until_ms.map(rfc3339),
                lock_until: claim.lock_until_ms.map(rfc3339),
            }),
            redemption: outcome.redemption.as_deref().map(|redemption| RedemptionView {
                redemption_id: &redemption.redemption_id,
                code: code.unwrap_or_default(),
                order_id: &redemption.order_id,
                order_amount: &redemption.order_amount,
                discount: &redemption.discount,
                final_price: &redemption.final_price,
                currency: &redemption.currency,
                redeemed_at: rfc3339(redemption.redeemed_ms),
            }),
            decided_at: Some(rfc3339(outcome.decided_ms)),
        }
    }
}

/// The coupon, unless it would distinguish an unknown code from another user's code.
fn visible_coupon(outcome: &Outcome) -> Option<&str> {
    const KINDS_ABOUT_CODES: [&str; 6] =
        [kinds::LOCK, kinds::UNLOCK, kinds::RETURN, kinds::REDEEM, kinds::ROLLBACK, kinds::REVOKE];
    /// The reasons that both cases can have.
    const AMBIGUOUS: [Reason; 5] = [
        Reason::CodeUnknown,
        Reason::NotYourCode,
        Reason::RedemptionUnknown,
        Reason::IdempotencyKeyReused,
        Reason::Unprocessable,
    ];
    let hidden = KINDS_ABOUT_CODES.contains(&&*outcome.kind)
        && AMBIGUOUS.iter().any(|reason| outcome.is_rejected_as(*reason));
    if hidden { None } else { Some(&outcome.coupon_id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::tests::response;
    use schemas::CouponResponse;
    use serde_json::Value;

    fn view(response: CouponResponse) -> Value {
        let outcome = Outcome::of(response).expect("a valid response");
        serde_json::to_value(RequestView::decided("x.y", &outcome)).expect("JSON")
    }

    #[test]
    fn an_accepted_claim_shows_its_code_and_a_rejected_one_its_reason() {
        let accepted = view(response(None));
        assert_eq!(accepted["status"], "accepted");
        assert_eq!(accepted["claim"]["code"], "AB-CD");
        assert_eq!(accepted["claim"]["claimed_at"], "1970-01-01T00:00:01.000Z");
        assert_eq!(accepted["reason"], Value::Null);
        let rejected = view(response(Some("sold_out")));
        assert_eq!((&rejected["status"], &rejected["reason"]), (&"rejected".into(), &"sold_out".into()));
        assert_eq!(rejected["claim"], Value::Null);
    }

    #[test]
    fn another_users_code_looks_like_an_unknown_code() {
        for kind in ["lock", "unlock", "return", "redeem", "revoke"] {
            let view = |reason: &str, coupon_id: &str| {
                let (kind, coupon_id) = (kind.to_owned(), coupon_id.to_owned());
                view(CouponResponse { kind, coupon_id, ..response(Some(reason)) })
            };
            let unknown = view("code_unknown", "THEC0DE1TSE1F");
            assert_eq!(unknown["coupon_id"], Value::Null);
            assert_eq!(view("not_your_code", "spring"), unknown);
            // A reused key does not distinguish them either.
            let reused = view("idempotency_key_reused", "THEC0DE1TSE1F");
            assert_eq!(view("idempotency_key_reused", "spring"), reused);
            assert_eq!(view("already_locked", "spring")["coupon_id"], "spring");
        }
        let claim = view(response(Some("code_unknown")));
        assert_eq!(claim["coupon_id"], "spring", "the client of a claim named the coupon itself");
    }
}
