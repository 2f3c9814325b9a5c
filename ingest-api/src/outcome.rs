//! An outcome as the API keeps and shows it. Small, because hundreds of thousands of them are kept.

use coupon_core::ids::RequestId;
use coupon_core::words::{ClaimState, Reason};
use schemas::{CouponResponse, kinds, status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::fields::rfc3339;

/// What was decided on one request. Final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The request.
    pub(crate) id: RequestId,
    /// What it asked for.
    pub(crate) kind: Box<str>,
    /// Of which coupon, as the record was keyed: for a code or redemption that nobody knows, its own text.
    pub(crate) coupon_id: Box<str>,
    /// Why it was rejected; `None`: it was accepted.
    pub(crate) reason: Option<Box<str>>,
    /// When, in the partition's time.
    pub(crate) decided_ms: i64,
    /// The request's place in its partition, where the source tells it.
    pub(crate) offset: i64,
    /// The code that the request obtained or was about.
    pub(crate) code: Option<Box<str>>,
    /// The claim as this decision left it.
    pub(crate) claim: Option<Claim>,
    /// The redemption that this decision made, or rolled back.
    pub(crate) redemption: Option<Box<Redemption>>,
}

/// A claim as a decision left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) state: Box<str>,
    /// Absent for a code that was withdrawn and that nobody had.
    pub(crate) claimed_ms: Option<i64>,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
}

/// A redemption as a decision made it.
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
    /// From a response event; `None` where its id is no id.
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
        let unnamed = || Reason::Unprocessable.as_str().to_owned();
        Some(Self {
            id,
            kind: response.kind.into_boxed_str(),
            coupon_id: response.coupon_id.into_boxed_str(),
            reason: (!accepted).then(|| response.reason.unwrap_or_else(unnamed).into_boxed_str()),
            decided_ms: response.decided_at_ms,
            offset: response.offset,
            code: response.code.filter(|_| accepted).map(String::into_boxed_str),
            claim,
            redemption,
        })
    }

    /// Whether it proves that there was a code to be had: a claim that was accepted, a code that came back.
    pub(crate) fn is_sign_of_stock(&self) -> bool {
        let came_back = || self.claim.as_ref().is_some_and(|c| &*c.state == ClaimState::Returned.as_str());
        self.reason.is_none() && (&*self.kind == kinds::CLAIM || came_back())
    }

    /// Whether it was rejected for this reason.
    pub(crate) fn is_rejected_as(&self, reason: Reason) -> bool {
        self.reason.as_deref() == Some(reason.as_str())
    }

    /// The coupon, where the user may know it. A code that nobody knows and a code of somebody else look the same:
    /// so does everything that may be said of both.
    fn shown_coupon(&self) -> Option<&str> {
        const ABOUT_CODES: [&str; 6] =
            [kinds::LOCK, kinds::UNLOCK, kinds::RETURN, kinds::REDEEM, kinds::ROLLBACK, kinds::REVOKE];
        const OF_BOTH: [Reason; 5] = [
            Reason::CodeUnknown,
            Reason::NotYourCode,
            Reason::RedemptionUnknown,
            Reason::IdempotencyKeyReused,
            Reason::Unprocessable,
        ];
        let untold = ABOUT_CODES.contains(&&*self.kind) && OF_BOTH.iter().any(|r| self.is_rejected_as(*r));
        if untold { None } else { Some(&self.coupon_id) }
    }

    /// As its user sees it.
    pub(crate) fn view<'a>(&'a self, shown_id: &'a str) -> RequestView<'a> {
        let not_yours = self.is_rejected_as(Reason::NotYourCode);
        // Whose code it is, is nobody else's business.
        let reason = if not_yours { Some(Reason::CodeUnknown.as_str()) } else { self.reason.as_deref() };
        let code = self.code.as_deref();
        RequestView {
            request_id: shown_id,
            kind: Some(&self.kind),
            coupon_id: self.shown_coupon(),
            status: if reason.is_none() { status::ACCEPTED } else { status::REJECTED },
            reason,
            code,
            claim: self.claim.as_ref().map(|claim| ClaimView {
                coupon_id: &self.coupon_id,
                code: code.unwrap_or_default(),
                state: &claim.state,
                claimed_at: claim.claimed_ms.map(rfc3339),
                hold_until: claim.hold_until_ms.map(rfc3339),
                lock_until: claim.lock_until_ms.map(rfc3339),
            }),
            redemption: self.redemption.as_deref().map(|redemption| RedemptionView {
                redemption_id: &redemption.redemption_id,
                code: code.unwrap_or_default(),
                order_id: &redemption.order_id,
                order_amount: &redemption.order_amount,
                discount: &redemption.discount,
                final_price: &redemption.final_price,
                currency: &redemption.currency,
                redeemed_at: rfc3339(redemption.redeemed_ms),
            }),
            decided_at: Some(rfc3339(self.decided_ms)),
        }
    }
}

/// A request and, once it is decided, its outcome.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub(crate) struct RequestView<'a> {
    request_id: &'a str,
    /// claim, lock, unlock, return, redeem, rollback or revoke; null while pending.
    kind: Option<&'a str>,
    /// null while pending, and for a code or redemption that is unknown.
    coupon_id: Option<&'a str>,
    /// pending, accepted or rejected.
    #[schema(example = "accepted")]
    status: &'a str,
    /// Why it was rejected: one of the stable words in this document's description.
    reason: Option<&'a str>,
    code: Option<&'a str>,
    claim: Option<ClaimView<'a>>,
    redemption: Option<RedemptionView<'a>>,
    /// RFC 3339, UTC.
    decided_at: Option<String>,
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
}

/// A claimed code.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Claim)]
struct ClaimView<'a> {
    coupon_id: &'a str,
    code: &'a str,
    /// CLAIMED, LOCKED, REDEEMED, RETURNED or REVOKED: as this request left it.
    #[schema(example = "CLAIMED")]
    state: &'a str,
    /// Absent for a code that was withdrawn and that nobody had.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_until: Option<String>,
}

/// A code that paid for an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Redemption)]
struct RedemptionView<'a> {
    /// By which it can be rolled back.
    redemption_id: &'a str,
    code: &'a str,
    order_id: &'a str,
    order_amount: &'a str,
    discount: &'a str,
    final_price: &'a str,
    currency: &'a str,
    redeemed_at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(reason: Option<&str>) -> CouponResponse {
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

    fn shown(reason: Option<&str>) -> serde_json::Value {
        let outcome = Outcome::of(response(reason)).expect("a response of ours");
        serde_json::to_value(outcome.view("x.y")).expect("it is JSON")
    }

    #[test]
    fn a_won_claim_shows_its_code_and_a_lost_one_its_reason() {
        let won = shown(None);
        assert_eq!(won["status"], "accepted");
        assert_eq!(won["claim"]["code"], "AB-CD");
        assert_eq!(won["claim"]["claimed_at"], "1970-01-01T00:00:01.000Z");
        assert_eq!(won["reason"], serde_json::Value::Null);
        let lost = shown(Some("sold_out"));
        assert_eq!((&lost["status"], &lost["reason"]), (&"rejected".into(), &"sold_out".into()));
        assert_eq!(lost["claim"], serde_json::Value::Null);
    }

    #[test]
    fn a_code_of_somebody_else_looks_like_one_that_nobody_knows() {
        for kind in ["lock", "unlock", "return", "redeem", "revoke"] {
            let shown = |reason: &str, coupon_id: &str| {
                let (kind, coupon_id) = (kind.to_owned(), coupon_id.to_owned());
                let outcome = Outcome::of(CouponResponse { kind, coupon_id, ..response(Some(reason)) });
                serde_json::to_value(outcome.expect("a response of ours").view("x.y")).expect("it is JSON")
            };
            let unknown = shown("code_unknown", "THEC0DE1TSE1F");
            assert_eq!(unknown["coupon_id"], serde_json::Value::Null);
            assert_eq!(shown("not_your_code", "spring"), unknown);
            // Nor does a reused key tell them apart.
            let reused = shown("idempotency_key_reused", "THEC0DE1TSE1F");
            assert_eq!(shown("idempotency_key_reused", "spring"), reused);
            assert_eq!(shown("already_locked", "spring")["coupon_id"], "spring");
        }
        assert_eq!(shown(Some("code_unknown"))["coupon_id"], "spring", "a claim names its coupon itself");
    }

    #[test]
    fn a_code_that_came_back_is_a_sign_of_stock() {
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
    fn a_rejection_without_a_word_is_still_a_rejection() {
        let outcome = Outcome::of(CouponResponse { reason: None, ..response(Some("x")) });
        assert_eq!(outcome.and_then(|outcome| outcome.reason).as_deref(), Some("unprocessable"));
    }
}
