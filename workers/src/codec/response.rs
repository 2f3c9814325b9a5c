//! The response event of a decision. A first publication, a duplicate and a republication after a takeover all go
//! through this one function, so they carry the same outcome.

use coupon_core::batch::{Changed, Decision, Redemption, Verdict};
use coupon_core::ids::{Millis, Partition};
use coupon_core::words::{ClaimState, Reason};
use schemas::{CouponResponse, status};
use std::fmt::{Display, Write as _};

/// The response event of a decision.
#[must_use]
pub fn response_of(decision: &Decision, partition: Partition) -> CouponResponse {
    let mut response = CouponResponse::default();
    fill(&mut response, decision, partition);
    response
}

/// Overwrites a response event with that of a decision and reuses its strings: this runs once per request.
pub fn fill(response: &mut CouponResponse, decision: &Decision, partition: Partition) {
    response.request_id.clear();
    write!(response.request_id, "{}", decision.request.id).unwrap_or_default();
    set(&mut response.kind, decision.request.kind.as_str());
    set(&mut response.coupon_id, &decision.request.coupon_id);
    set(&mut response.user_id, &decision.request.user);
    response.decided_at_ms = decision.decided.0;
    response.partition = partition.0;
    response.offset = decision.offset.0;
    let fields = match &decision.verdict {
        Verdict::Claimed { number, code, hold_until } => VerdictFields {
            code: Some(code),
            number: Some(number.0),
            state: Some(ClaimState::Claimed),
            claimed: Some(decision.decided),
            hold_until: *hold_until,
            ..VerdictFields::default()
        },
        Verdict::Changed(changed) => VerdictFields::of(changed),
        Verdict::Rejected(reason) => VerdictFields { reason: Some(*reason), ..VerdictFields::default() },
    };
    set(&mut response.status, if fields.reason.is_none() { status::ACCEPTED } else { status::REJECTED });
    fields.write(response);
}

/// The fields of a response that depend on the verdict. All are written each time, so that no value of the previous
/// response is left.
#[derive(Default)]
struct VerdictFields<'a> {
    reason: Option<Reason>,
    code: Option<&'a str>,
    number: Option<i64>,
    state: Option<ClaimState>,
    claimed: Option<Millis>,
    hold_until: Option<Millis>,
    lock_until: Option<Millis>,
    order: Option<&'a str>,
    redemption: Option<&'a Redemption>,
}

impl<'a> VerdictFields<'a> {
    fn of(changed: &'a Changed) -> Self {
        let redemption = changed.redemption.as_ref();
        Self {
            reason: None,
            code: Some(&changed.code),
            number: Some(changed.number.0),
            state: changed.state,
            claimed: changed.claimed,
            hold_until: changed.hold_until,
            lock_until: changed.lock_until,
            order: changed.order.as_deref().or(redemption.map(|redemption| &*redemption.order)),
            redemption,
        }
    }

    fn write(&self, response: &mut CouponResponse) {
        let millis = |time: Option<Millis>| time.map(|time| time.0);
        put(&mut response.reason, self.reason.map(Reason::as_str));
        put(&mut response.code, self.code);
        response.code_number = self.number;
        put(&mut response.claim_state, self.state.map(ClaimState::as_str));
        response.claimed_at_ms = millis(self.claimed);
        response.hold_until_ms = millis(self.hold_until);
        response.lock_until_ms = millis(self.lock_until);
        put(&mut response.order_id, self.order);
        let redemption = self.redemption;
        show(&mut response.redemption_id, redemption.map(|redemption| &redemption.id));
        show(&mut response.order_amount, redemption.map(|redemption| &redemption.amount));
        show(&mut response.discount, redemption.map(|redemption| &redemption.discount));
        show(&mut response.final_price, redemption.map(|redemption| &redemption.final_price));
        put(&mut response.currency, redemption.map(|redemption| &*redemption.currency));
        response.redeemed_at_ms = millis(redemption.map(|redemption| redemption.redeemed));
    }
}

fn put(field: &mut Option<String>, text: Option<&str>) {
    match text {
        Some(text) => set(field.get_or_insert_default(), text),
        None => *field = None,
    }
}

fn show(field: &mut Option<String>, value: Option<&impl Display>) {
    match value {
        Some(value) => {
            let field = field.get_or_insert_default();
            field.clear();
            write!(field, "{value}").unwrap_or_default();
        }
        None => *field = None,
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
    use coupon_core::record::Request;
    use coupon_core::words::{Kind, Reason};

    fn decision(verdict: Verdict) -> Decision {
        Decision {
            request: Request {
                id: RequestId { identity: 7, body: 0 },
                kind: Kind::Claim,
                coupon_id: "summer".into(),
                user: "ann".into(),
                code: None,
                details: None,
            },
            coupon: Some(CouponNo(1)),
            offset: Offset(12),
            decided: Millis(1_000),
            verdict,
        }
    }

    fn changed() -> Changed {
        Changed {
            number: CodeNumber(3),
            code: "ABC".into(),
            state: None,
            claimed: Some(Millis(900)),
            hold_until: None,
            lock_until: None,
            order: None,
            redemption: None,
        }
    }

    fn locked() -> Decision {
        decision(Verdict::Changed(Box::new(Changed {
            state: Some(ClaimState::Locked),
            hold_until: Some(Millis(5_000)),
            lock_until: Some(Millis(2_000)),
            order: Some("order-1".into()),
            ..changed()
        })))
    }

    fn redeemed() -> Decision {
        let amount = |text: &str| text.parse().unwrap();
        decision(Verdict::Changed(Box::new(Changed {
            state: Some(ClaimState::Redeemed),
            redemption: Some(Redemption {
                id: RequestId { identity: 7, body: 0 },
                order: "order-2".into(),
                amount: amount("129.90"),
                discount: amount("12.99"),
                final_price: amount("116.91"),
                currency: "EUR".into(),
                redeemed: Millis(1_000),
            }),
            ..changed()
        })))
    }

    #[test]
    fn the_response_of_a_lock_has_its_order_and_its_deadlines() {
        let response = response_of(&locked(), Partition(4));
        assert_eq!((response.status.as_str(), response.reason), ("accepted", None));
        assert_eq!(response.claim_state.as_deref(), Some("LOCKED"));
        assert_eq!((response.hold_until_ms, response.lock_until_ms), (Some(5_000), Some(2_000)));
        assert_eq!((response.order_id.as_deref(), response.redemption_id), (Some("order-1"), None));
    }

    #[test]
    fn the_response_of_a_redemption_has_its_exact_amounts_and_its_id() {
        let response = response_of(&redeemed(), Partition(4));
        let amounts =
            [&response.order_amount, &response.discount, &response.final_price].map(Option::as_deref);
        assert_eq!(amounts, [Some("129.90"), Some("12.99"), Some("116.91")]);
        assert_eq!(response.redemption_id, Some(response.request_id));
        assert_eq!(
            (response.order_id.as_deref(), response.currency.as_deref()),
            (Some("order-2"), Some("EUR"))
        );
        assert_eq!((response.redeemed_at_ms, response.claimed_at_ms), (Some(1_000), Some(900)));
        assert_eq!(response.claim_state.as_deref(), Some("REDEEMED"));
    }

    #[test]
    fn the_response_of_a_shared_code_has_no_claim() {
        let Decision { verdict: Verdict::Changed(mut changed), .. } = redeemed() else { unreachable!() };
        (changed.state, changed.claimed) = (None, None);
        let response = response_of(&decision(Verdict::Changed(changed)), Partition(4));
        assert_eq!((response.claim_state, response.claimed_at_ms), (None, None));
        assert_eq!(response.code.as_deref(), Some("ABC"));
    }

    #[test]
    fn a_reused_response_keeps_no_value_of_the_previous_one() {
        let hold_until = None;
        let claimed = decision(Verdict::Claimed { number: CodeNumber(3), code: "ABC".into(), hold_until });
        let rejected = decision(Verdict::Rejected(Reason::SoldOut));
        let all = [&claimed, &rejected, &locked(), &rejected, &redeemed(), &claimed, &redeemed(), &locked()];
        let mut response = CouponResponse::default();
        for decision in all.into_iter().chain([&claimed]) {
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
