//! The outcome of one request, in the one form into which a row, a response event and an API response are converted.
//!
//! An outcome is written as one line of text. Two outcomes are equal if and only if their texts are, so rows and events
//! are compared by digests of these texts. A second digest covers only what the API shows to the user.

use coupon_core::ids::RequestId;
use schemas::{CouponResponse, status};
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_64;

/// For requests about a code or a redemption: reasons with which the API does not reveal the coupon to the user.
const REASONS_WITHOUT_COUPON: [&str; 4] =
    ["code_unknown", "redemption_unknown", "idempotency_key_reused", "unprocessable"];

/// The complete outcome of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) kind: &'a str,
    pub(crate) coupon: &'a str,
    pub(crate) user: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) decided_ms: i64,
    pub(crate) verdict: Verdict<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time exists, on the stack")]
pub(crate) enum Verdict<'a> {
    /// Accepted, with the resulting state of the code.
    Accepted(Accepted<'a>),
    /// Rejected, with the reason.
    Rejected(&'a str),
}

/// The state of a code after an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted<'a> {
    pub(crate) code: &'a str,
    pub(crate) number: i64,
    /// The name of its claim's state.
    pub(crate) state: Option<&'a str>,
    pub(crate) claimed_ms: Option<i64>,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
    pub(crate) order: Option<&'a str>,
    pub(crate) payment: Option<Payment<'a>>,
}

/// A redemption. Its order is the order of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payment<'a> {
    pub(crate) id: RequestId,
    pub(crate) amount: &'a str,
    pub(crate) discount: &'a str,
    pub(crate) final_price: &'a str,
    pub(crate) currency: &'a str,
    pub(crate) redeemed_ms: i64,
}

impl Outcome<'_> {
    /// Replaces `text` with the line of this outcome, and returns its digest.
    pub(crate) fn describe(&self, text: &mut String) -> u64 {
        text.clear();
        let Self { kind, coupon, user, partition, offset, decided_ms, verdict } = self;
        write!(text, "{kind} of {coupon} by {user:?} at {partition}@{offset}, decided {decided_ms}: ")
            .unwrap_or_default();
        match verdict {
            Verdict::Accepted(accepted) => {
                write!(text, "accepted {} (number {})", accepted.code, accepted.number).unwrap_or_default();
                accepted.write_claim(text);
                accepted.write_payment(text);
            }
            Verdict::Rejected(reason) => write!(text, "rejected {reason}").unwrap_or_default(),
        }
        xxh3_64(text.as_bytes())
    }

    /// The digest of what the API shows to the user, which a row and an API response have in common. Overwrites `text`.
    ///
    /// A code of another user is shown as an unknown code. The claim of a revoked code is left out, because the code may
    /// have had none.
    pub(crate) fn user_digest(&self, text: &mut String) -> u64 {
        text.clear();
        let Self { kind, coupon, decided_ms, .. } = self;
        let written = match &self.verdict {
            Verdict::Rejected(reason) => {
                let reason = if *reason == "not_your_code" { "code_unknown" } else { *reason };
                let hides_coupon = *kind != "claim" && REASONS_WITHOUT_COUPON.contains(&reason);
                let coupon = if hides_coupon { "" } else { *coupon };
                write!(text, "{kind}\0{coupon}\0{decided_ms}\0rejected {reason}")
            }
            Verdict::Accepted(accepted) => {
                write!(text, "{kind}\0{coupon}\0{decided_ms}\0accepted {}", accepted.code)
            }
        };
        written.unwrap_or_default();
        if let Verdict::Accepted(accepted) = &self.verdict {
            if *kind != "revoke" {
                accepted.write_claim(text);
            }
            if accepted.payment.is_some() {
                accepted.write_payment(text);
            }
        }
        xxh3_64(text.as_bytes())
    }
}

impl Accepted<'_> {
    fn write_claim(&self, text: &mut String) {
        let Self { state, claimed_ms, hold_until_ms, lock_until_ms, .. } = self;
        text.push_str(", ");
        text.push_str(state.unwrap_or("no claim"));
        for (name, at) in
            [("claimed", claimed_ms), ("hold until", hold_until_ms), ("lock until", lock_until_ms)]
        {
            if let Some(at) = at {
                write!(text, ", {name} {at}").unwrap_or_default();
            }
        }
    }

    fn write_payment(&self, text: &mut String) {
        if let Some(order) = self.order {
            write!(text, ", order {order:?}").unwrap_or_default();
        }
        if let Some(Payment { id, amount, discount, final_price, currency, redeemed_ms }) = self.payment {
            write!(
                text,
                ", redemption {id}: {amount:?} less {discount:?} is {final_price:?} {currency:?}, at {redeemed_ms}"
            )
            .unwrap_or_default();
        }
    }
}

/// Replaces `text` with the line of a response event, and returns its digest. An event with an impossible combination of
/// fields is written in full, so that it equals no row.
pub(crate) fn describe_response(response: &CouponResponse, text: &mut String) -> u64 {
    let Some(verdict) = verdict_of(response) else {
        text.clear();
        write!(text, "{response:?}").unwrap_or_default();
        return xxh3_64(text.as_bytes());
    };
    let outcome = Outcome {
        kind: &response.kind,
        coupon: &response.coupon_id,
        user: &response.user_id,
        partition: response.partition,
        offset: response.offset,
        decided_ms: response.decided_at_ms,
        verdict,
    };
    outcome.describe(text)
}

fn verdict_of(response: &CouponResponse) -> Option<Verdict<'_>> {
    match (response.status.as_str(), &response.reason) {
        (status::ACCEPTED, None) => Some(Verdict::Accepted(Accepted {
            code: response.code.as_deref()?,
            number: response.code_number?,
            state: response.claim_state.as_deref(),
            claimed_ms: response.claimed_at_ms,
            hold_until_ms: response.hold_until_ms,
            lock_until_ms: response.lock_until_ms,
            order: response.order_id.as_deref(),
            payment: payment_of(response)?,
        })),
        (status::REJECTED, Some(reason)) => {
            let has_text = [&response.code, &response.claim_state, &response.order_id]
                .into_iter()
                .chain(payment_fields(response))
                .any(Option::is_some);
            let times = [response.claimed_at_ms, response.hold_until_ms, response.lock_until_ms];
            let numbers = times.iter().chain([&response.redeemed_at_ms, &response.code_number]);
            let has_numbers = numbers.copied().any(|number| number.is_some());
            (!has_text && !has_numbers).then_some(Verdict::Rejected(reason))
        }
        _ => None,
    }
}

fn payment_fields(response: &CouponResponse) -> [&Option<String>; 5] {
    let CouponResponse { redemption_id, order_amount, discount, final_price, currency, .. } = response;
    [redemption_id, order_amount, discount, final_price, currency]
}

/// The redemption, if there is one; `None` where only some of its fields are set.
fn payment_of(response: &CouponResponse) -> Option<Option<Payment<'_>>> {
    match (payment_fields(response).map(Option::as_deref), response.redeemed_at_ms) {
        ([None, None, None, None, None], None) => Some(None),
        ([Some(id), Some(amount), Some(discount), Some(final_price), Some(currency)], Some(redeemed_ms)) => {
            let id = RequestId::parse(id).ok()?;
            Some(Some(Payment { id, amount, discount, final_price, currency, redeemed_ms }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

    fn redeem_response() -> CouponResponse {
        CouponResponse {
            request_id: "id".to_owned(),
            kind: "redeem".to_owned(),
            coupon_id: "spring".to_owned(),
            user_id: "ann".to_owned(),
            status: "accepted".to_owned(),
            decided_at_ms: 5,
            partition: 2,
            offset: 17,
            code: Some("ABC".to_owned()),
            code_number: Some(3),
            claim_state: Some("REDEEMED".to_owned()),
            claimed_at_ms: Some(4),
            redemption_id: Some(ID.to_owned()),
            order_id: Some("o-1".to_owned()),
            order_amount: Some("10.00".to_owned()),
            discount: Some("1.00".to_owned()),
            final_price: Some("9.00".to_owned()),
            currency: Some("EUR".to_owned()),
            redeemed_at_ms: Some(5),
            ..CouponResponse::default()
        }
    }

    fn redeem_row() -> Outcome<'static> {
        let accepted = Accepted {
            code: "ABC",
            number: 3,
            state: Some("REDEEMED"),
            claimed_ms: Some(4),
            hold_until_ms: None,
            lock_until_ms: None,
            order: Some("o-1"),
            payment: Some(Payment {
                id: RequestId { identity: 1, body: 0 },
                amount: "10.00",
                discount: "1.00",
                final_price: "9.00",
                currency: "EUR",
                redeemed_ms: 5,
            }),
        };
        let (kind, coupon, user, verdict) = ("redeem", "spring", "ann", Verdict::Accepted(accepted));
        Outcome { kind, coupon, user, partition: 2, offset: 17, decided_ms: 5, verdict }
    }

    #[test]
    fn a_difference_in_any_field_changes_the_digest() {
        let mut text = String::new();
        let expected = redeem_row().describe(&mut text);
        assert_eq!(describe_response(&redeem_response(), &mut text), expected, "{text}");
        let changes: [fn(&mut CouponResponse); 19] = [
            |r| r.code = Some("ABD".to_owned()),
            |r| r.code_number = None,
            |r| r.reason = Some("sold_out".to_owned()),
            |r| r.status = "rejected".to_owned(),
            |r| r.offset += 1,
            |r| r.user_id = "bob".to_owned(),
            |r| r.hold_until_ms = Some(1),
            |r| r.lock_until_ms = Some(1),
            |r| r.claimed_at_ms = Some(5),
            |r| r.claim_state = Some("LOCKED".to_owned()),
            |r| r.claim_state = None,
            |r| r.redemption_id = None,
            |r| r.redemption_id = Some("AAAAAAAAAAAAAAAAAAAAAg".to_owned()),
            |r| r.order_id = Some("o-2".to_owned()),
            |r| r.order_amount = Some("10.0".to_owned()),
            |r| r.discount = Some("1.01".to_owned()),
            |r| r.final_price = None,
            |r| r.currency = Some("USD".to_owned()),
            |r| r.redeemed_at_ms = Some(6),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut other = redeem_response();
            change(&mut other);
            assert_ne!(describe_response(&other, &mut text), expected, "change {n}: {text}");
        }
    }

    #[test]
    fn a_rejection_with_more_than_a_reason_never_equals_a_plain_rejection() {
        let mut text = String::new();
        let rejected = CouponResponse {
            status: "rejected".to_owned(),
            reason: Some("sold_out".to_owned()),
            ..CouponResponse::default()
        };
        let expected = describe_response(&rejected, &mut text);
        assert!(text.ends_with("rejected sold_out"), "{text}");
        let more = CouponResponse { lock_until_ms: Some(1), ..rejected };
        assert_ne!(describe_response(&more, &mut text), expected, "{text}");
    }

    #[test]
    fn a_code_of_another_user_is_shown_as_an_unknown_code() {
        let mut text = String::new();
        let mut shown =
            |reason| Outcome { verdict: Verdict::Rejected(reason), ..redeem_row() }.user_digest(&mut text);
        assert_eq!(shown("not_your_code"), shown("code_unknown"));
        assert_ne!(shown("not_claimed"), shown("code_unknown"));
    }

    #[test]
    fn an_unresolved_name_hides_the_coupon_except_from_a_claim() {
        let mut text = String::new();
        let mut shown = |kind, coupon| {
            Outcome { kind, coupon, verdict: Verdict::Rejected("unprocessable"), ..redeem_row() }
                .user_digest(&mut text)
        };
        assert_eq!(shown("lock", "summer"), shown("lock", ""));
        assert_ne!(shown("claim", "summer"), shown("claim", ""));
    }
}
