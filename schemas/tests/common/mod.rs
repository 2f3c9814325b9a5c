//! Random messages, for the property tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use schemas::{CouponEvent, CouponRequest, CouponResponse};

/// Ordinary text, and arbitrary text.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9_-]{0,40}",
        1 => vec(any::<char>(), 0..200).prop_map(|chars| chars.into_iter().collect()),
    ]
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn number() -> impl Strategy<Value = Option<i64>> {
    option::of(any::<i64>())
}

pub(crate) fn requests() -> impl Strategy<Value = CouponRequest> {
    let required = (text(), text(), text(), text(), any::<i64>());
    let optional = (maybe(), maybe(), maybe(), maybe(), maybe(), number(), maybe(), maybe());
    (required, optional).prop_map(|(r, o)| CouponRequest {
        request_id: r.0,
        kind: r.1,
        coupon_id: r.2,
        user_id: r.3,
        minted_at_ms: r.4,
        code: o.0,
        order_id: o.1,
        order_amount: o.2,
        currency: o.3,
        redemption_id: o.4,
        load_id: o.5,
        definition: o.6,
        caller: o.7,
    })
}

pub(crate) fn responses() -> impl Strategy<Value = CouponResponse> {
    let required = (text(), text(), text(), text(), text(), any::<i64>(), any::<i32>(), any::<i64>());
    let claim = (maybe(), maybe(), number(), maybe(), number(), number(), number());
    let redemption = (maybe(), maybe(), maybe(), maybe(), maybe(), maybe(), number());
    (required, claim, redemption).prop_map(|(r, c, d)| CouponResponse {
        request_id: r.0,
        kind: r.1,
        coupon_id: r.2,
        user_id: r.3,
        status: r.4,
        decided_at_ms: r.5,
        partition: r.6,
        offset: r.7,
        reason: c.0,
        code: c.1,
        code_number: c.2,
        claim_state: c.3,
        claimed_at_ms: c.4,
        hold_until_ms: c.5,
        lock_until_ms: c.6,
        redemption_id: d.0,
        order_id: d.1,
        order_amount: d.2,
        discount: d.3,
        final_price: d.4,
        currency: d.5,
        redeemed_at_ms: d.6,
    })
}

pub(crate) fn events() -> impl Strategy<Value = CouponEvent> {
    let required = (text(), text(), any::<i64>(), any::<i32>(), any::<i64>());
    (required, (maybe(), maybe(), number())).prop_map(|(r, o)| CouponEvent {
        kind: r.0,
        coupon_id: r.1,
        at_ms: r.2,
        partition: r.3,
        offset: r.4,
        code: o.0,
        user_id: o.1,
        available: o.2,
    })
}
