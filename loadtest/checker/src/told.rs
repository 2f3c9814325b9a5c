//! The outcome of one request, as a row, a response event, or an answer to a client says it: written as one line of
//! text, so that two tellings are the same if, and only if, their texts are.

use coupon_core::ids::RequestId;
use schemas::{CouponResponse, status};
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_64;

/// Rejections of requests about a code or a redemption that name no coupon to their user.
const SHOWN_WITHOUT_COUPON: [&str; 4] =
    ["code_unknown", "redemption_unknown", "idempotency_key_reused", "unprocessable"];

/// Everything that an outcome says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome<'a> {
    pub(super) kind: &'a str,
    pub(super) coupon: &'a str,
    pub(super) user: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) decided_ms: i64,
    pub(super) verdict: Verdict<'a>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
pub(super) enum Verdict<'a> {
    /// It was granted, and left the code like this.
    Accepted(Accepted<'a>),
    /// Rejected for this reason.
    Rejected(&'a str),
}

/// A code as an accepted request left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted<'a> {
    pub(super) code: &'a str,
    pub(super) number: i64,
    /// The word for the state of its claim.
    pub(super) state: Option<&'a str>,
    pub(super) claimed_ms: Option<i64>,
    pub(super) hold_until_ms: Option<i64>,
    pub(super) lock_until_ms: Option<i64>,
    pub(super) order: Option<&'a str>,
    pub(super) paid: Option<Paid<'a>>,
}

/// A redemption; its order is that of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paid<'a> {
    pub(super) id: RequestId,
    pub(super) amount: &'a str,
    pub(super) discount: &'a str,
    pub(super) final_price: &'a str,
    pub(super) currency: &'a str,
    pub(super) redeemed_ms: i64,
}

impl Outcome<'_> {
    /// Writes the line over what is in `text`, and answers its digest.
    pub(super) fn write(&self, text: &mut String) -> u64 {
        text.clear();
        let Self { kind, coupon, user, partition, offset, decided_ms, verdict } = self;
        write!(text, "{kind} of {coupon} by {user:?} at {partition}@{offset}, decided {decided_ms}: ")
            .unwrap_or_default();
        match verdict {
            Verdict::Accepted(accepted) => {
                write!(text, "accepted {} (number {})", accepted.code, accepted.number).unwrap_or_default();
                accepted.terms(text);
                accepted.payment(text);
            }
            Verdict::Rejected(reason) => write!(text, "rejected {reason}").unwrap_or_default(),
        }
        xxh3_64(text.as_bytes())
    }

    /// Digest of what the user sees of it, which a row and an answer of the API have in common; `text` is overwritten.
    ///
    /// That a code is somebody else's is shown as if there were no such code. What is shown of a claim that was
    /// withdrawn is left out: there may have been none.
    pub(super) fn shown(&self, text: &mut String) -> u64 {
        text.clear();
        let Self { kind, coupon, decided_ms, .. } = self;
        let written = match &self.verdict {
            Verdict::Rejected(reason) => {
                let reason = if *reason == "not_your_code" { "code_unknown" } else { *reason };
                // Where a name leads nowhere, or to somebody else, nobody is told to which coupon it leads.
                let untold = *kind != "claim" && SHOWN_WITHOUT_COUPON.contains(&reason);
                let coupon = if untold { "" } else { *coupon };
                write!(text, "{kind}\0{coupon}\0{decided_ms}\0rejected {reason}")
            }
            Verdict::Accepted(accepted) => {
                write!(text, "{kind}\0{coupon}\0{decided_ms}\0accepted {}", accepted.code)
            }
        };
        written.unwrap_or_default();
        if let Verdict::Accepted(accepted) = &self.verdict {
            if *kind != "revoke" {
                accepted.terms(text);
            }
            if accepted.paid.is_some() {
                accepted.payment(text);
            }
        }
        xxh3_64(text.as_bytes())
    }
}

impl Accepted<'_> {
    fn terms(&self, text: &mut String) {
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

    fn payment(&self, text: &mut String) {
        if let Some(order) = self.order {
            write!(text, ", order {order:?}").unwrap_or_default();
        }
        if let Some(Paid { id, amount, discount, final_price, currency, redeemed_ms }) = self.paid {
            write!(
                text,
                ", redemption {id}: {amount:?} less {discount:?} is {final_price:?} {currency:?}, at {redeemed_ms}"
            )
            .unwrap_or_default();
        }
    }
}

/// Writes what a response event says over what is in `text`, and answers its digest. What no outcome says like this
/// is written whole, so that it cannot be the same as a row.
pub(super) fn write_response(response: &CouponResponse, text: &mut String) -> u64 {
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
    outcome.write(text)
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
            paid: paid_of(response)?,
        })),
        (status::REJECTED, Some(reason)) => {
            let says_more = [&response.code, &response.claim_state, &response.order_id]
                .into_iter()
                .chain(redemption_of(response))
                .any(Option::is_some);
            let times = [response.claimed_at_ms, response.hold_until_ms, response.lock_until_ms];
            let has_times = times.iter().chain([&response.redeemed_at_ms, &response.code_number]);
            (!says_more && has_times.copied().all(|time| time.is_none())).then_some(Verdict::Rejected(reason))
        }
        _ => None,
    }
}

fn redemption_of(response: &CouponResponse) -> [&Option<String>; 5] {
    let CouponResponse { redemption_id, order_amount, discount, final_price, currency, .. } = response;
    [redemption_id, order_amount, discount, final_price, currency]
}

/// All of a redemption, or nothing; `None` where there is something in between.
fn paid_of(response: &CouponResponse) -> Option<Option<Paid<'_>>> {
    match (redemption_of(response).map(Option::as_deref), response.redeemed_at_ms) {
        ([None, None, None, None, None], None) => Some(None),
        ([Some(id), Some(amount), Some(discount), Some(final_price), Some(currency)], Some(redeemed_ms)) => {
            let id = RequestId::parse(id).ok()?;
            Some(Some(Paid { id, amount, discount, final_price, currency, redeemed_ms }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

    fn redeemed() -> CouponResponse {
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

    fn as_a_row() -> Outcome<'static> {
        let accepted = Accepted {
            code: "ABC",
            number: 3,
            state: Some("REDEEMED"),
            claimed_ms: Some(4),
            hold_until_ms: None,
            lock_until_ms: None,
            order: Some("o-1"),
            paid: Some(Paid {
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
    fn any_field_that_differs_makes_another_outcome() {
        let mut text = String::new();
        let expected = as_a_row().write(&mut text);
        assert_eq!(write_response(&redeemed(), &mut text), expected, "{text}");
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
            let mut other = redeemed();
            change(&mut other);
            assert_ne!(write_response(&other, &mut text), expected, "change {n}: {text}");
        }
    }

    #[test]
    fn a_rejection_that_says_more_than_its_reason_is_none() {
        let mut text = String::new();
        let rejected = CouponResponse {
            status: "rejected".to_owned(),
            reason: Some("sold_out".to_owned()),
            ..CouponResponse::default()
        };
        let expected = write_response(&rejected, &mut text);
        assert!(text.ends_with("rejected sold_out"), "{text}");
        let more = CouponResponse { lock_until_ms: Some(1), ..rejected };
        assert_ne!(write_response(&more, &mut text), expected, "{text}");
    }

    #[test]
    fn a_strangers_code_is_shown_as_none_at_all() {
        let mut text = String::new();
        let mut shown =
            |reason| Outcome { verdict: Verdict::Rejected(reason), ..as_a_row() }.shown(&mut text);
        assert_eq!(shown("not_your_code"), shown("code_unknown"));
        assert_ne!(shown("not_claimed"), shown("code_unknown"));
    }

    #[test]
    fn where_a_name_leads_nowhere_no_coupon_is_shown_but_to_a_claim() {
        let mut text = String::new();
        let mut shown = |kind, coupon| {
            Outcome { kind, coupon, verdict: Verdict::Rejected("unprocessable"), ..as_a_row() }
                .shown(&mut text)
        };
        assert_eq!(shown("lock", "summer"), shown("lock", ""));
        assert_ne!(shown("claim", "summer"), shown("claim", ""));
    }
}
