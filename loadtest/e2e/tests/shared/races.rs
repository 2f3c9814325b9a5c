//! Many requests for one code at the same time: exactly one is accepted.

use futures::future::join_all;
use serde_json::json;

use e2e::coupon::rules;
use e2e::outcome::{count, order, result_of};
use e2e::request::SHOP;
use e2e::{Deed, Environment, Request};

async fn of_a_hundred_users_who_lock_one_code_concurrently_only_its_holder_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("user-37").await;
    let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
    let asks =
        users.iter().enumerate().map(|(n, user)| env.decide(Request::new(user, Deed::Lock(&code)).at(n % 2)));
    let told = join_all(asks).await;
    assert_eq!((count(&told, "accepted"), count(&told, "code_unknown")), (1, 99), "{told:?}");
    assert_eq!(result_of(&told[37]), "accepted");
    coupon.expect("user-37", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
}

async fn of_a_hundred_concurrent_locks_of_one_user_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let lock = async |n: usize| {
        let order = order(n);
        env.decide(Request::new("ann", Deed::LockFor(&code, &order)).at(n % 2)).await
    };
    let told = join_all((0..100).map(lock)).await;
    assert_eq!((count(&told, "accepted"), count(&told, "already_locked")), (1, 99), "{told:?}");
    // Whose order got it, may pay with it.
    let order = order(told.iter().position(|outcome| result_of(outcome) == "accepted").unwrap());
    env.accepted("ann", Deed::Redeem(&code, &order)).await;
}

async fn of_a_hundred_concurrent_redemptions_of_one_code_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let redeem = async |n: usize| {
        // Half of them for one and the same order.
        let order = order(if n.is_multiple_of(2) { 0 } else { n });
        env.decide(Request::new("ann", Deed::Redeem(&code, &order)).at(n % 2)).await
    };
    let told = join_all((0..100).map(redeem)).await;
    assert_eq!(count(&told, "accepted"), 1, "{told:?}");
    assert_eq!(count(&told, "already_redeemed") + count(&told, "order_already_used"), 99, "{told:?}");
    assert_eq!(coupon.counts().await, [0, 0, 0, 1, 0]);
}

async fn of_thirty_concurrent_roll_backs_of_one_redemption_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let redeemed = env.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    let told = join_all((0..30).map(|n| env.decide(Request::new(SHOP, Deed::RollBack(id)).at(n % 2)))).await;
    assert_eq!((count(&told, "accepted"), count(&told, "already_rolled_back")), (1, 29), "{told:?}");
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
}

e2e::tests![
    of_a_hundred_users_who_lock_one_code_concurrently_only_its_holder_is_accepted,
    of_a_hundred_concurrent_locks_of_one_user_one_is_accepted,
    of_a_hundred_concurrent_redemptions_of_one_code_one_is_accepted,
    of_thirty_concurrent_roll_backs_of_one_redemption_one_is_accepted,
];
