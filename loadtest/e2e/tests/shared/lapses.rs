//! Holds and locks of a few seconds that lapse. The tests assert an order of events and no times.

use serde_json::{Value, json};

use e2e::coupon::rules;
use e2e::group::QUIET_PARTITION;
use e2e::outcome::result_of;
use e2e::request::SHOP;
use e2e::{Environment, Operation, Request, orders};

/// Long enough for the requests of a test while others run beside it.
fn short() -> Value {
    rules(&json!({"hold_seconds": 4, "lock_seconds": 4}))
}

async fn fault_39_a_lapsed_hold_returns_the_code_to_stock_and_another_user_gets_it(env: &Environment) {
    let coupon = env.stocked(1, json!({"hold_seconds": 1})).await;
    let code = coupon.claim("ann").await;
    coupon.until_counts([1, 0, 0, 0, 0]).await;
    coupon.expect("ann", &code, ("-", "hold_lapsed", [1, 0, 0, 0, 0])).await;
    assert_eq!(coupon.events_of(&code).await, ["hold_lapsed"]);
    for operation in [
        Operation::lock(&code),
        Operation::unlock(&code),
        Operation::return_code(&code),
        orders::redeem(&code, "order-1"),
    ] {
        assert_eq!(env.rejected("ann", operation).await, "hold_lapsed", "{operation:?}");
    }
    assert_eq!(env.rejected("bob", Operation::lock(&code)).await, "not_claimed");
    assert_eq!(coupon.claim_when_available("bob").await, code);
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "hold_lapsed");
    // The lapsed claim no longer counts: ann may claim again, and gets the code after the hold of bob has ended.
    assert_eq!(coupon.claim_when_available("ann").await, code);
}

async fn users_who_wait_for_a_sold_out_coupon_with_a_hold_get_its_codes_one_after_another(env: &Environment) {
    let coupon = env.stocked(3, json!({"hold_seconds": 1})).await;
    let users: Vec<String> = (0..6).map(|n| format!("user-{n}")).collect();
    let codes = futures::future::join_all(users.iter().map(|user| coupon.claim_when_available(user))).await;
    assert_eq!(codes.len(), 6);
    coupon.until_counts([3, 0, 0, 0, 0]).await;
    for number in 1..=3 {
        let code = coupon.code(number).await;
        let given = codes.iter().filter(|given| **given == code).count();
        assert_eq!(coupon.events_of(&code).await.len(), given, "as often as it was given");
    }
}

async fn a_lapsed_lock_leaves_the_code_claimed_and_a_redemption_that_requires_it_is_rejected(
    env: &Environment,
) {
    let coupon = env.stocked(2, rules(&json!({"lock_seconds": 1, "requires_lock": true}))).await;
    let (code, other) = (coupon.claim("ann").await, coupon.claim("bob").await);
    env.accepted("ann", Operation::lock_for(&code, "order-1")).await;
    coupon.until_counts([0, 2, 0, 0, 0]).await;
    coupon.expect("ann", &code, ("CLAIMED", "lock_lapsed", [0, 2, 0, 0, 0])).await;
    assert_eq!(coupon.events_of(&code).await, ["lock_lapsed"]);
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "lock_lapsed");
    assert_eq!(env.rejected("ann", Operation::unlock(&code)).await, "lock_lapsed");
    // Without a lock the reason is another one. The code may be locked again, for another order.
    assert_eq!(env.rejected("bob", orders::redeem(&other, "order-1")).await, "not_locked");
    assert_eq!(env.rejected("bob", Operation::unlock(&other)).await, "not_locked");
    let locked = env.decide(Request::new("ann", Operation::lock_for(&code, "order-2"))).await;
    assert_eq!(result_of(&locked), "accepted", "{locked}");
}

async fn a_lapsed_lock_does_not_prevent_a_redemption_that_requires_none(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({"lock_seconds": 1}))).await;
    let code = coupon.claim("ann").await;
    env.accepted("ann", Operation::lock_for(&code, "order-1")).await;
    coupon.until_counts([0, 1, 0, 0, 0]).await;
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    // The order of the lock no longer applies.
    env.accepted("ann", orders::redeem(&code, "order-2")).await;
    assert_eq!(coupon.counts().await, [0, 0, 0, 1, 0]);
}

async fn a_live_lock_suspends_the_hold_and_both_lapse_when_the_lock_ends(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({"hold_seconds": 3, "lock_seconds": 8}))).await;
    let (locked, held) = (coupon.claim("ann").await, coupon.claim("bob").await);
    env.decide(Request::new("ann", Operation::lock(&locked))).await;
    // A hold of the same age lapses; that of the locked code does not.
    coupon.until_counts([1, 0, 1, 0, 0]).await;
    coupon.until_counts([2, 0, 0, 0, 0]).await;
    assert_eq!(coupon.events_of(&held).await, ["hold_lapsed"]);
    coupon.expect("ann", &locked, ("-", "hold_lapsed", [2, 0, 0, 0, 0])).await;
    let mut events = coupon.events().await;
    events.retain(|event| event.code == locked);
    let mut kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["hold_lapsed", "lock_lapsed"], "{events:?}");
    assert_eq!(env.rejected("ann", orders::redeem(&locked, "order-1")).await, "hold_lapsed");
}

async fn a_locked_code_is_redeemed_although_its_hold_has_ended(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({"hold_seconds": 4, "lock_seconds": 60}))).await;
    let (locked, _) = (coupon.claim("ann").await, coupon.claim("bob").await);
    env.decide(Request::new("ann", Operation::lock(&locked))).await;
    coupon.until_counts([1, 0, 1, 0, 0]).await;
    coupon.expect("ann", &locked, ("LOCKED", "valid", [1, 0, 1, 0, 0])).await;
    env.accepted("ann", orders::redeem(&locked, "order-1")).await;
    coupon.expect("ann", &locked, ("REDEEMED", "already_redeemed", [1, 0, 0, 1, 0])).await;
}

async fn an_unlock_after_the_end_of_the_hold_returns_the_code_to_stock(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({"hold_seconds": 4, "lock_seconds": 60}))).await;
    let (locked, _) = (coupon.claim("ann").await, coupon.claim("bob").await);
    env.decide(Request::new("ann", Operation::lock(&locked))).await;
    coupon.until_counts([1, 0, 1, 0, 0]).await;
    let released = env.accepted("ann", Operation::unlock(&locked)).await;
    assert_eq!(
        (&released["claim"]["state"], &released["claim"]["hold_until"]),
        (&json!("RETURNED"), &Value::Null)
    );
    coupon.expect("ann", &locked, ("-", "hold_lapsed", [2, 0, 0, 0, 0])).await;
    assert_eq!(coupon.events_of(&locked).await, ["hold_lapsed"]);
    assert_eq!(env.rejected("ann", Operation::return_code(&locked)).await, "hold_lapsed");
}

async fn the_fresh_hold_of_a_rolled_back_redemption_lapses_like_any_other(env: &Environment) {
    let coupon = env.stocked(1, short()).await;
    let code = coupon.claim_when_available("ann").await;
    let redeemed = env.decide(Request::new("ann", orders::redeem(&code, "order-1"))).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap_or_else(|| panic!("{redeemed}"));
    // A redeemed claim does not lapse, while the hold of another coupon of the same duration does.
    let other = env.stocked(1, short()).await;
    other.claim("bob").await;
    other.until_counts([1, 0, 0, 0, 0]).await;
    assert_eq!(coupon.counts().await, [0, 0, 0, 1, 0]);
    env.accepted(SHOP, Operation::roll_back(id)).await;
    coupon.until_counts([1, 0, 0, 0, 0]).await;
    assert_eq!(coupon.events_of(&code).await, ["hold_lapsed"]);
}

async fn a_return_a_redemption_and_a_revocation_end_the_hold(env: &Environment) {
    let coupon = env.stocked(4, short()).await;
    let mut codes = Vec::new();
    for user in ["ann", "bob", "carl", "dora"] {
        codes.push(coupon.claim(user).await);
    }
    let [returned, redeemed, revoked, held] = [0, 1, 2, 3].map(|n: usize| codes[n].as_str());
    let operations = [
        ("ann", Operation::return_code(returned)),
        ("bob", orders::redeem(redeemed, "order-1")),
        ("admin", Operation::revoke(revoked)),
    ];
    let done = futures::future::join_all(
        operations.map(|(user, operation)| env.decide(Request::new(user, operation))),
    )
    .await;
    assert!(done.iter().all(|outcome| result_of(outcome) == "accepted"), "{done:?}");
    coupon.until_counts([2, 0, 0, 1, 1]).await;
    assert_eq!(coupon.events_of(held).await, ["hold_lapsed"]);
    for code in [returned, redeemed, revoked] {
        assert_eq!(coupon.events_of(code).await, Vec::<String>::new());
    }
}

async fn holds_lapse_by_ticks_where_no_request_is_appended(env: &Environment) {
    let mut coupons = Vec::new();
    for _ in 0..3 {
        // No other test has a coupon in this partition, so no other record advances its time.
        let id = env.coupon_id(|partition| partition == QUIET_PARTITION);
        coupons.push(env.stocked(3, rules(&json!({"id": id, "hold_seconds": 2, "lock_seconds": 2}))).await);
    }
    for coupon in &coupons {
        let codes = [coupon.claim("ann").await, coupon.claim("bob").await];
        env.decide(Request::new("bob", Operation::lock(&codes[1]))).await;
    }
    // From here on no record is appended.
    for coupon in &coupons {
        coupon.until_counts([3, 0, 0, 0, 0]).await;
    }
}

e2e::tests![
    fault_39_a_lapsed_hold_returns_the_code_to_stock_and_another_user_gets_it,
    users_who_wait_for_a_sold_out_coupon_with_a_hold_get_its_codes_one_after_another,
    a_lapsed_lock_leaves_the_code_claimed_and_a_redemption_that_requires_it_is_rejected,
    a_lapsed_lock_does_not_prevent_a_redemption_that_requires_none,
    a_live_lock_suspends_the_hold_and_both_lapse_when_the_lock_ends,
    a_locked_code_is_redeemed_although_its_hold_has_ended,
    an_unlock_after_the_end_of_the_hold_returns_the_code_to_stock,
    the_fresh_hold_of_a_rolled_back_redemption_lapses_like_any_other,
    a_return_a_redemption_and_a_revocation_end_the_hold,
    holds_lapse_by_ticks_where_no_request_is_appended,
];
