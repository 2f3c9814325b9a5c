//! Reasons of rejection, one test for each, and the order in which they are checked. Reasons that concern money are in
//! `money.rs`, limits in `limits.rs`, deadlines in `lapses.rs`.

use serde_json::{Value, json};

use e2e::coupon::{operations_of_a_user, rules};
use e2e::group::TAKEOVER_PARTITION;
use e2e::request::{ADMIN, SHOP};
use e2e::{Coupon, Environment, Operation, Order, Reply, Request, orders};

/// A coupon in the partition that no other test uses, because redefining it causes takeovers.
async fn stocked_for_takeovers(env: &Environment, codes: u64, mut fields: Value) -> Coupon<'_> {
    fields["id"] = json!(env.coupon_id(|partition| partition == TAKEOVER_PARTITION));
    env.stocked(codes, fields).await
}

async fn code_unknown_rejects_a_code_that_does_not_exist(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    for unknown in ["NEVERMADE", "never made 2", "23456789"] {
        for operation in operations_of_a_user(unknown) {
            assert_eq!(env.rejected("ann", operation).await, "code_unknown", "{operation:?}");
        }
        assert_eq!(env.rejected(ADMIN, Operation::revoke(unknown)).await, "code_unknown");
        assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, unknown)).await, "code_unknown");
        assert_eq!(coupon.validation("ann", unknown).await, "code_unknown");
    }
    assert_eq!(coupon.counts().await, [1, 0, 0, 0, 0]);
}

async fn fault_38_the_code_of_another_user_is_indistinguishable_from_an_unknown_code(env: &Environment) {
    let coupon = env.stocked(3, rules(&json!({}))).await;
    let (claimed, locked, redeemed) =
        (coupon.claim("ann").await, coupon.claim("ann").await, coupon.claim("ann").await);
    env.accepted("ann", Operation::lock(&locked)).await;
    env.accepted("ann", orders::redeem(&redeemed, "order-1")).await;
    for code in [&claimed, &locked, &redeemed] {
        for (operation, unknown) in
            operations_of_a_user(code).into_iter().zip(operations_of_a_user("NEVERMADE"))
        {
            let outcome = |operation| env.submit(Request::new("eve", operation));
            let (of_another_user, unknown_code) = (outcome(operation).await, outcome(unknown).await);
            // Everything except id and time: status, headers, every field of the body.
            let blank = |reply: &Reply| {
                let mut body = reply.json();
                body["request_id"] = json!("");
                body["decided_at"] = json!("");
                let mut headers: Vec<&str> =
                    reply.headers.keys().map(e2e::header::HeaderName::as_str).collect();
                headers.sort_unstable();
                (reply.status, body, format!("{headers:?}"))
            };
            assert_eq!(blank(&of_another_user), blank(&unknown_code), "{operation:?}");
            assert_eq!(of_another_user.json()["reason"], "code_unknown");
            assert_eq!(env.rejected("eve", operation).await, "code_unknown", "as every list shows it");
        }
        let path = |code: &str| format!("/v1/codes/{code}/validation");
        let token = env.token("eve");
        let (mut of_another_user, mut unknown_code) = (
            env.get(0, &path(code), &token).await.json(),
            env.get(0, &path("NEVERMADE"), &token).await.json(),
        );
        (of_another_user["code"], unknown_code["code"]) = (json!(""), json!(""));
        assert_eq!(of_another_user, unknown_code);
    }
    assert_eq!(coupon.counts().await, [0, 1, 1, 1, 0]);
}

async fn fault_39_not_claimed_rejects_requests_before_the_claim_and_after_the_return(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let code = coupon.code(2).await;
    for operation in operations_of_a_user(&code) {
        assert_eq!(env.rejected("ann", operation).await, "not_claimed", "{operation:?}");
    }
    env.accepted("ann", Operation::claim_code(&coupon.id, &code)).await;
    env.accepted("ann", Operation::return_code(&code)).await;
    for operation in operations_of_a_user(&code) {
        assert_eq!(env.rejected("ann", operation).await, "not_claimed", "{operation:?}");
    }
    assert_eq!(coupon.counts().await, [2, 0, 0, 0, 0]);
}

async fn fault_39_already_redeemed_rejects_every_request_after_the_redemption(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    env.accepted("ann", orders::redeem(&code, "order-1")).await;
    for operation in [
        Operation::lock(&code),
        Operation::unlock(&code),
        Operation::return_code(&code),
        orders::redeem(&code, "order-2"),
    ] {
        assert_eq!(env.rejected("ann", operation).await, "already_redeemed", "{operation:?}");
    }
    assert_eq!(env.rejected(ADMIN, Operation::revoke(&code)).await, "already_redeemed");
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
}

async fn order_already_used_rejects_the_same_order_with_the_same_code(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let (code, other) = (coupon.claim("ann").await, coupon.claim("ann").await);
    env.accepted("ann", orders::redeem(&code, "order-1")).await;
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "order_already_used");
    // With another amount it is the same order; with another code it is another redemption.
    let dearer = Operation::redeem(&code, Order::new("order-1", "999.00", "EUR"));
    assert_eq!(env.rejected("ann", dearer).await, "order_already_used");
    env.accepted("ann", orders::redeem(&other, "order-1")).await;
    assert_eq!(coupon.counts().await, [0, 0, 0, 2, 0]);
}

async fn already_locked_rejects_a_second_lock_and_the_return_of_a_locked_code(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    env.accepted("ann", Operation::lock_for(&code, "order-1")).await;
    for operation in [
        Operation::lock(&code),
        Operation::lock_for(&code, "order-1"),
        Operation::lock_for(&code, "order-2"),
        Operation::return_code(&code),
    ] {
        assert_eq!(env.rejected("ann", operation).await, "already_locked", "{operation:?}");
    }
    coupon.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
}

async fn not_locked_rejects_an_unlock_without_a_lock_and_a_redemption_that_requires_one(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({"requires_lock": true}))).await;
    let code = coupon.claim("ann").await;
    assert_eq!(env.rejected("ann", Operation::unlock(&code)).await, "not_locked");
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "not_locked");
    env.accepted("ann", Operation::lock(&code)).await;
    env.accepted("ann", Operation::unlock(&code)).await;
    // A released lock is not a lapsed one.
    assert_eq!(env.rejected("ann", Operation::unlock(&code)).await, "not_locked");
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "not_locked");
    coupon.expect("ann", &code, ("CLAIMED", "not_locked", [0, 1, 0, 0, 0])).await;
}

async fn code_revoked_rejects_every_request_for_a_revoked_code(env: &Environment) {
    let coupon = env.stocked(3, rules(&json!({}))).await;
    let (own, free) = (coupon.claim("ann").await, coupon.code(3).await);
    for code in [&own, &free] {
        env.accepted(ADMIN, Operation::revoke(code)).await;
        for operation in operations_of_a_user(code) {
            assert_eq!(env.rejected("ann", operation).await, "code_revoked", "{operation:?}");
        }
        assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, code)).await, "code_revoked");
        assert_eq!(env.rejected(ADMIN, Operation::revoke(code)).await, "code_revoked");
    }
    // A revoked claim still belongs to its user: for other users the code does not exist.
    assert_eq!(env.rejected("bob", orders::redeem(&own, "order-1")).await, "code_unknown");
    assert_eq!(env.rejected("bob", orders::redeem(&free, "order-1")).await, "code_revoked");
    assert_eq!(coupon.counts().await, [1, 0, 0, 0, 2]);
}

async fn paused_ended_not_started_and_expired_reject_claims_locks_and_redemptions(env: &Environment) {
    let coupon = stocked_for_takeovers(env, 3, rules(&json!({}))).await;
    let (code, locked) = (coupon.claim("ann").await, coupon.claim("ann").await);
    env.accepted("ann", Operation::lock(&locked)).await;
    let free = coupon.code(3).await;
    let far_future = "4102444800000";
    for (set, reason, reason_for_held) in [
        ("status = 'paused'".to_owned(), "paused", "paused"),
        ("status = 'ended'".to_owned(), "ended", "ended"),
        (format!("status = 'active', starts_at_ms = {far_future}"), "not_started", "not_started"),
        ("starts_at_ms = null, expires_at_ms = 1000".to_owned(), "expired", "code_expired"),
    ] {
        env.redefine(&coupon.id, &set).await;
        let claims = [
            Operation::claim(&coupon.id),
            Operation::claim_code(&coupon.id, &free),
            Operation::claim_code(&coupon.id, "NEVERMADE"),
        ];
        for operation in claims {
            assert_eq!(env.rejected("ann", operation).await, reason, "{operation:?}");
        }
        for operation in
            [Operation::lock(&code), orders::redeem(&code, "order-1"), orders::redeem(&locked, "order-1")]
        {
            assert_eq!(env.rejected("ann", operation).await, reason_for_held, "{operation:?}");
        }
        assert_eq!(coupon.validation("ann", &code).await, reason_for_held);
        assert_eq!(coupon.validation("ann", &locked).await, reason_for_held);
        // The check of the user comes first.
        assert_eq!(env.rejected("bob", orders::redeem(&code, "order-1")).await, "code_unknown");
    }
    // Unlock and return do not depend on the window.
    let expired = env.counts(&coupon.id).await;
    assert_eq!((expired["expired"].as_u64(), expired["generated"].as_u64()), (Some(3), Some(3)));
    assert_eq!(coupon.in_wallet("ann", &code).await["state"], "EXPIRED");
    env.accepted("ann", Operation::unlock(&locked)).await;
    env.accepted("ann", Operation::return_code(&locked)).await;
    env.redefine(&coupon.id, "expires_at_ms = null").await;
    env.accepted("ann", orders::redeem(&code, "order-1")).await;
    assert_eq!(coupon.counts().await, [2, 0, 0, 1, 0]);
}

async fn code_expired_rejects_requests_when_the_window_ends_during_the_hold(env: &Environment) {
    let ends = chrono::Utc::now() + chrono::Duration::seconds(6);
    let coupon = env.stocked(2, rules(&json!({"expires_at": ends.to_rfc3339()}))).await;
    let code = coupon.claim("ann").await;
    coupon.until_validation("ann", &code, "code_expired").await;
    assert_eq!(env.rejected("ann", Operation::lock(&code)).await, "code_expired");
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "code_expired");
    assert_eq!(
        env.rejected("bob", Operation::claim_code(&coupon.id, &coupon.code(2).await)).await,
        "expired"
    );
    assert_eq!(coupon.in_wallet("ann", &code).await["state"], "EXPIRED");
}

async fn redemption_unknown_rejects_an_id_that_belongs_to_no_redemption(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let redeemed = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    // Well formed and unknown; the id of a claim; the id of a rejected redemption.
    let claimed = env.accepted("bob", Operation::claim(&coupon.id)).await;
    let rejected = env.submit(Request::new("ann", orders::redeem(&code, "order-2"))).await.json();
    let of_request = |outcome: &serde_json::Value| {
        outcome["request_id"].as_str().unwrap().split('.').next().unwrap().to_owned()
    };
    for id_of_another_kind in
        ["AAAAAAAAAAAAAAAAAAAAAQ".to_owned(), of_request(&claimed), of_request(&rejected)]
    {
        assert_eq!(
            env.rejected(SHOP, Operation::roll_back(&id_of_another_kind)).await,
            "redemption_unknown",
            "{id_of_another_kind}"
        );
    }
    // Not an id: rejected by the API.
    for not_an_id in [
        "x",
        "%00",
        "order-1",
        &"A".repeat(5_000),
        &redeemed["request_id"].as_str().unwrap().replace('.', ""),
    ] {
        let reply = env.submit(Request::new(SHOP, Operation::roll_back(not_an_id))).await;
        assert!(matches!(reply.status, 404 | 422), "{not_an_id}: {} {}", reply.status, reply.body);
    }
    assert_eq!(coupon.counts().await, [0, 1, 0, 1, 0]);
    env.accepted(SHOP, Operation::roll_back(id)).await;
    assert_eq!(env.rejected(SHOP, Operation::roll_back(id)).await, "already_rolled_back");
}

async fn unprocessable_rejects_locks_unlocks_and_returns_of_a_shared_code(env: &Environment) {
    let coupon = env.stocked(1, json!({"limits": {"redemptions_per_code": 2}})).await;
    let code = coupon.code(1).await;
    for operation in [Operation::lock(&code), Operation::unlock(&code), Operation::return_code(&code)] {
        assert_eq!(env.rejected("ann", operation).await, "unprocessable", "{operation:?}");
    }
}

async fn reasons_are_checked_in_their_documented_order(env: &Environment) {
    // Everything is wrong with this redemption. One fault after another is repaired.
    let limits = json!({"claims_per_user": 100, "redemptions_total": 1});
    let discount =
        json!({"type": "FIXED_AMOUNT", "value": "5.00", "currency": "EUR", "minimum_order": "50.00"});
    let over = json!({"requires_lock": true, "limits": limits, "discount": discount});
    let coupon = stocked_for_takeovers(env, 3, rules(&over)).await;
    let (code, used) = (coupon.claim("ann").await, coupon.claim("bob").await);
    env.accepted("bob", Operation::lock(&used)).await;
    env.accepted("bob", orders::redeem(&used, "order-1")).await;
    env.redefine(&coupon.id, "status = 'paused'").await;

    let cheap_in_dollars = Operation::redeem(&code, Order::new("order-1", "1.00", "USD"));
    assert_eq!(env.rejected("eve", cheap_in_dollars).await, "code_unknown");
    assert_eq!(env.rejected("ann", cheap_in_dollars).await, "paused");
    env.redefine(&coupon.id, "status = 'active'").await;
    assert_eq!(env.rejected("ann", cheap_in_dollars).await, "not_locked");
    env.accepted("ann", Operation::lock_for(&code, "order-2")).await;
    assert_eq!(env.rejected("ann", cheap_in_dollars).await, "already_locked");
    assert_eq!(
        env.rejected("ann", Operation::redeem(&code, Order::new("order-2", "1.00", "USD"))).await,
        "currency_mismatch"
    );
    assert_eq!(
        env.rejected("ann", Operation::redeem(&code, Order::new("order-2", "1.00", "EUR"))).await,
        "minimum_order_not_met"
    );
    assert_eq!(
        env.rejected("ann", Operation::redeem(&code, Order::new("order-2", "50.00", "EUR"))).await,
        "usage_limit_reached"
    );
    // For a redeemed code the order is checked first. A revocation is checked before the window.
    assert_eq!(
        env.rejected("bob", Operation::redeem(&used, Order::new("order-1", "1.00", "USD"))).await,
        "order_already_used"
    );
    assert_eq!(
        env.rejected("bob", Operation::redeem(&used, Order::new("order-2", "1.00", "USD"))).await,
        "already_redeemed"
    );
    env.accepted(ADMIN, Operation::revoke(&code)).await;
    env.redefine(&coupon.id, "status = 'ended'").await;
    assert_eq!(env.rejected("ann", cheap_in_dollars).await, "code_revoked");
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &code)).await, "ended");
    env.redefine(&coupon.id, "status = 'active'").await;
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &code)).await, "code_revoked");
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &used)).await, "code_taken");
    assert_eq!(coupon.counts().await, [1, 0, 0, 1, 1]);
}

e2e::tests![
    code_unknown_rejects_a_code_that_does_not_exist,
    fault_38_the_code_of_another_user_is_indistinguishable_from_an_unknown_code,
    fault_39_not_claimed_rejects_requests_before_the_claim_and_after_the_return,
    fault_39_already_redeemed_rejects_every_request_after_the_redemption,
    order_already_used_rejects_the_same_order_with_the_same_code,
    already_locked_rejects_a_second_lock_and_the_return_of_a_locked_code,
    not_locked_rejects_an_unlock_without_a_lock_and_a_redemption_that_requires_one,
    code_revoked_rejects_every_request_for_a_revoked_code,
    paused_ended_not_started_and_expired_reject_claims_locks_and_redemptions,
    code_expired_rejects_requests_when_the_window_ends_during_the_hold,
    redemption_unknown_rejects_an_id_that_belongs_to_no_redemption,
    unprocessable_rejects_locks_unlocks_and_returns_of_a_shared_code,
    reasons_are_checked_in_their_documented_order,
];
