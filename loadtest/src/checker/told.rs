//! The outcome of one request, as a row, a response event, or an answer to a client says it: written as one line of
//! text, so that two tellings are the same if, and only if, their texts are.

use schemas::{CouponResponse, status};
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_64;

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
pub(super) enum Verdict<'a> {
    /// The user has this code; its number, and when it was claimed.
    Claimed { code: &'a str, number: i64, claimed_ms: i64 },
    /// Rejected for this reason.
    Rejected(&'a str),
}

impl Outcome<'_> {
    /// Writes the line over what is in `text`, and answers its digest.
    pub(super) fn write(&self, text: &mut String) -> u64 {
        text.clear();
        let Self { kind, coupon, user, partition, offset, decided_ms, verdict } = self;
        let written = match verdict {
            Verdict::Claimed { code, number, claimed_ms } => write!(
                text,
                "{kind} of {coupon} by {user:?} at {partition}@{offset}, decided {decided_ms}: accepted {code} (number {number}, claimed {claimed_ms})"
            ),
            Verdict::Rejected(reason) => write!(
                text,
                "{kind} of {coupon} by {user:?} at {partition}@{offset}, decided {decided_ms}: rejected {reason}"
            ),
        };
        written.unwrap_or_default();
        xxh3_64(text.as_bytes())
    }
}

/// The part of an outcome that its user sees: a digest that an answer of the API and a row have in common.
pub(super) fn shown_digest(kind: &str, coupon: &str, verdict: Shown<'_>, decided_ms: i64) -> u64 {
    let (accepted, word) = match verdict {
        Shown::Accepted(code) => (1, code),
        Shown::Rejected(reason) => (0, reason),
    };
    xxh3_64(format!("{kind}\0{coupon}\0{accepted}{word}\0{decided_ms}").as_bytes())
}

/// What a user is shown of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown<'a> {
    /// The code.
    Accepted(&'a str),
    /// The reason.
    Rejected(&'a str),
}

/// Writes what a response event says over what is in `text`, and answers its digest. A field that no outcome of
/// this version has is written too, so that it cannot be the same as a row.
pub(super) fn write_response(response: &CouponResponse, text: &mut String) -> u64 {
    let accepted = response.status == status::ACCEPTED && response.reason.is_none();
    let verdict = match (&response.code, response.code_number, response.claimed_at_ms, &response.reason) {
        (Some(code), Some(number), Some(claimed_ms), None) if accepted => {
            Verdict::Claimed { code, number, claimed_ms }
        }
        (None, None, None, Some(reason)) if response.status == status::REJECTED => Verdict::Rejected(reason),
        _ => {
            text.clear();
            write!(text, "{response:?}").unwrap_or_default();
            return xxh3_64(text.as_bytes());
        }
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
    let digest = outcome.write(text);
    let surplus = [&response.redemption_id, &response.order_id, &response.order_amount, &response.discount]
        .into_iter()
        .chain([&response.final_price, &response.currency])
        .any(Option::is_some)
        || [response.hold_until_ms, response.lock_until_ms, response.redeemed_at_ms]
            .iter()
            .any(Option::is_some)
        || response.claim_state.as_deref() != accepted.then_some("CLAIMED");
    if !surplus {
        return digest;
    }
    write!(text, ", and more than a claim has: {response:?}").unwrap_or_default();
    xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed() -> CouponResponse {
        CouponResponse {
            request_id: "id".to_owned(),
            kind: "claim".to_owned(),
            coupon_id: "spring".to_owned(),
            user_id: "ann".to_owned(),
            status: "accepted".to_owned(),
            decided_at_ms: 5,
            partition: 2,
            offset: 17,
            code: Some("ABC".to_owned()),
            code_number: Some(3),
            claim_state: Some("CLAIMED".to_owned()),
            claimed_at_ms: Some(5),
            ..CouponResponse::default()
        }
    }

    #[test]
    fn any_field_that_differs_makes_another_outcome() {
        let mut text = String::new();
        let row = Outcome {
            kind: "claim",
            coupon: "spring",
            user: "ann",
            partition: 2,
            offset: 17,
            decided_ms: 5,
            verdict: Verdict::Claimed { code: "ABC", number: 3, claimed_ms: 5 },
        };
        let expected = row.write(&mut text);
        assert_eq!(write_response(&claimed(), &mut text), expected, "{text}");
        let changes: [fn(&mut CouponResponse); 9] = [
            |r| r.code = Some("ABD".to_owned()),
            |r| r.code_number = None,
            |r| r.reason = Some("sold_out".to_owned()),
            |r| r.status = "rejected".to_owned(),
            |r| r.offset += 1,
            |r| r.user_id = "bob".to_owned(),
            |r| r.hold_until_ms = Some(1),
            |r| r.claim_state = Some("LOCKED".to_owned()),
            |r| r.discount = Some("1".to_owned()),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut other = claimed();
            change(&mut other);
            assert_ne!(write_response(&other, &mut text), expected, "change {n}: {text}");
        }
    }
}
