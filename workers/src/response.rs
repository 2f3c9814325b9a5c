//! From a decision to what its user is told. A repetition, a re-emission after a takeover and the first telling go
//! through this one function, so they carry the same outcome.

use coupon_core::batch::{Decision, Verdict};
use coupon_core::ids::Partition;
use coupon_core::vocabulary::ClaimState;
use schemas::{CouponResponse, status};
use std::fmt::Write as _;

/// The response event of a decision.
#[must_use]
pub fn response_of(decision: &Decision, partition: Partition) -> CouponResponse {
    let mut response = CouponResponse::default();
    fill(&mut response, decision, partition);
    response
}

/// Writes the response event of a decision over another one, using its strings again: this runs once a request.
pub fn fill(response: &mut CouponResponse, decision: &Decision, partition: Partition) {
    response.request_id.clear();
    write!(response.request_id, "{}", decision.id).unwrap_or_default();
    set(&mut response.kind, decision.kind.as_str());
    set(&mut response.coupon_id, &decision.coupon_id);
    set(&mut response.user_id, &decision.user);
    response.decided_at_ms = decision.decided.0;
    response.partition = partition.0;
    response.offset = decision.offset.0;
    match &decision.verdict {
        Verdict::Claimed { number, code } => {
            set(&mut response.status, status::ACCEPTED);
            response.reason = None;
            set(response.code.get_or_insert_default(), code);
            response.code_number = Some(number.0);
            set(response.claim_state.get_or_insert_default(), ClaimState::Claimed.as_str());
            response.claimed_at_ms = Some(decision.decided.0);
        }
        Verdict::Rejected(reason) => {
            set(&mut response.status, status::REJECTED);
            set(response.reason.get_or_insert_default(), reason.as_str());
            response.code = None;
            response.code_number = None;
            response.claim_state = None;
            response.claimed_at_ms = None;
        }
    }
}

fn set(field: &mut String, text: &str) {
    field.clear();
    field.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::ids::{CodeNumber, CouponNo, Millis, Offset, RequestId};
    use coupon_core::vocabulary::{Kind, Reason};

    fn decision(verdict: Verdict) -> Decision {
        Decision {
            id: RequestId { identity: 7, body: 0 },
            kind: Kind::Claim,
            coupon_id: "summer".into(),
            coupon: Some(CouponNo(1)),
            user: "ann".into(),
            offset: Offset(12),
            decided: Millis(1_000),
            verdict,
        }
    }

    #[test]
    fn a_response_says_what_was_decided_whatever_the_one_before_it_said() {
        let claimed = decision(Verdict::Claimed { number: CodeNumber(3), code: "ABC".into() });
        let rejected = decision(Verdict::Rejected(Reason::SoldOut));
        let mut response = CouponResponse::default();
        for decision in [&claimed, &rejected, &claimed] {
            fill(&mut response, decision, Partition(4));
            assert_eq!(response, response_of(decision, Partition(4)));
        }
        assert_eq!(response.status, "accepted");
        assert_eq!(response.code.as_deref(), Some("ABC"));
        assert_eq!(response.claimed_at_ms, Some(1_000));
        let response = response_of(&rejected, Partition(4));
        assert_eq!((response.status.as_str(), response.reason.as_deref()), ("rejected", Some("sold_out")));
        assert_eq!((response.code, response.offset, response.partition), (None, 12, 4));
    }
}
