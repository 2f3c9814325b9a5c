//! Codes that many users share: redeemed without a claim, as often as the coupon allows, and never given to a claim.

use futures::future::join_all;
use serde_json::{Value, json};

use e2e::outcome::{count, order};
use e2e::request::{ADMIN, SHOP};
use e2e::{Coupon, Environment, Operation, Request, orders};

/// A coupon with one code that can be redeemed so many times; null: without limit.
async fn shared(env: &Environment, redemptions: Value) -> (Coupon<'_>, String) {
    let coupon = env.stocked(1, json!({"limits": {"redemptions_per_code": redemptions}})).await;
    let code = coupon.code(1).await;
    (coupon, code)
}

async fn a_shared_code_is_redeemed_without_a_claim_until_its_uses_are_exhausted(env: &Environment) {
    let (coupon, code) = shared(env, json!(5)).await;
    for n in 0..5 {
        let user = format!("user-{n}");
        coupon.expect(&user, &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
        let redeemed = env.accepted(&user, orders::redeem(&code, "the same order")).await;
        assert_eq!(
            (&redeemed["claim"], &redeemed["code"]),
            (&Value::Null, &json!(code)),
            "there is no claim"
        );
        assert_eq!(redeemed["redemption"]["final_price"], "90.00");
        // A repeated order is the same order.
        assert_eq!(env.rejected(&user, orders::redeem(&code, "the same order")).await, "order_already_used");
        let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
        env.accepted(SHOP, Operation::roll_back(id)).await;
        env.accepted(&user, orders::redeem(&code, &order(n))).await;
    }
    coupon.expect("ann", &code, ("-", "usage_limit_reached", [0, 0, 0, 1, 0])).await;
    assert_eq!(env.rejected("ann", orders::redeem(&code, "one more")).await, "usage_limit_reached");
    assert_eq!(
        env.rejected(ADMIN, Operation::revoke(&code)).await,
        "already_redeemed",
        "no use is left to revoke"
    );
}

async fn a_shared_code_is_never_given_to_a_claim(env: &Environment) {
    let (coupon, code) = shared(env, json!(2)).await;
    let any = env.submit(Request::new("ann", Operation::claim(&coupon.id)).key("k")).await.json();
    assert_eq!(any["reason"], "sold_out", "{any}");
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &code)).await, "code_taken");
    coupon.expect("ann", &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
    env.accepted("ann", orders::redeem(&code, "order-1")).await;
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &code)).await, "code_taken");
}

async fn of_a_hundred_concurrent_redemptions_of_the_last_use_of_a_shared_code_one_is_accepted(
    env: &Environment,
) {
    let (coupon, code) = shared(env, json!(5)).await;
    let users: Vec<String> = (0..104).map(|n| format!("user-{n}")).collect();
    let redeem = async |n: usize| {
        let order = order(n);
        env.decide(Request::new(&users[n], orders::redeem(&code, &order)).at(n % 2)).await
    };
    let first = join_all((0..4).map(redeem)).await;
    assert_eq!(count(&first, "accepted"), 4, "{first:?}");
    let redemptions = join_all((4..104).map(redeem)).await;
    assert_eq!(
        (count(&redemptions, "accepted"), count(&redemptions, "usage_limit_reached")),
        (1, 99),
        "{redemptions:?}"
    );
    assert_eq!(coupon.counts().await, [0, 0, 0, 1, 0]);
}

async fn a_shared_code_without_a_limit_is_redeemed_by_every_user(env: &Environment) {
    let (coupon, code) = shared(env, Value::Null).await;
    let users: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
    let redeem = async |n: usize| {
        let order = order(n);
        env.decide(Request::new(&users[n], orders::redeem(&code, &order)).at(n % 2)).await
    };
    let outcomes = join_all((0..60).map(redeem)).await;
    assert_eq!(count(&outcomes, "accepted"), 60, "{outcomes:?}");
    coupon.expect("ann", &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
    // The same order of several users redeems the code once.
    let same =
        join_all(users.iter().map(|user| env.decide(Request::new(user, orders::redeem(&code, "same")))))
            .await;
    assert_eq!((count(&same, "accepted"), count(&same, "order_already_used")), (1, 59), "{same:?}");
}

async fn a_redemption_that_is_rolled_back_frees_one_use_of_a_shared_code(env: &Environment) {
    let (coupon, code) = shared(env, json!(2)).await;
    let first = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    env.accepted("bob", orders::redeem(&code, "order-2")).await;
    coupon.expect("carl", &code, ("-", "usage_limit_reached", [0, 0, 0, 1, 0])).await;
    let id = first["redemption"]["redemption_id"].as_str().unwrap();
    let rolled_back = env.accepted(SHOP, Operation::roll_back(id)).await;
    assert_eq!((&rolled_back["claim"], &rolled_back["redemption"]), (&Value::Null, &first["redemption"]));
    coupon.expect("carl", &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
    assert_eq!(env.rejected(SHOP, Operation::roll_back(id)).await, "already_rolled_back");
    // One use is free: one of the concurrent redemptions is accepted.
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let redemptions = users.iter().map(|user| env.decide(Request::new(user, orders::redeem(&code, user))));
    let redemptions = join_all(redemptions).await;
    assert_eq!(
        (count(&redemptions, "accepted"), count(&redemptions, "usage_limit_reached")),
        (1, 19),
        "{redemptions:?}"
    );
}

async fn a_revoked_shared_code_is_not_redeemed_again_and_its_redemptions_stay(env: &Environment) {
    let (coupon, code) = shared(env, json!(5)).await;
    let redeemed = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    env.accepted(ADMIN, Operation::revoke(&code)).await;
    coupon.expect("bob", &code, ("-", "code_revoked", [0, 0, 0, 0, 1])).await;
    assert_eq!(env.rejected("bob", orders::redeem(&code, "order-2")).await, "code_revoked");
    env.accepted(SHOP, Operation::roll_back(redeemed["redemption"]["redemption_id"].as_str().unwrap())).await;
    coupon.expect("bob", &code, ("-", "code_revoked", [0, 0, 0, 0, 1])).await;
    assert_eq!(env.rejected(ADMIN, Operation::revoke(&code)).await, "code_revoked");
}

e2e::tests![
    a_shared_code_is_redeemed_without_a_claim_until_its_uses_are_exhausted,
    a_shared_code_is_never_given_to_a_claim,
    of_a_hundred_concurrent_redemptions_of_the_last_use_of_a_shared_code_one_is_accepted,
    a_shared_code_without_a_limit_is_redeemed_by_every_user,
    a_redemption_that_is_rolled_back_frees_one_use_of_a_shared_code,
    a_revoked_shared_code_is_not_redeemed_again_and_its_redemptions_stay,
];
