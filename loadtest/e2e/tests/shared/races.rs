//! Many requests for one code at the same time: exactly one is accepted.

use futures::future::join_all;
use serde_json::json;

use e2e::coupon::rules;
use e2e::outcome::{count, order, result_of};
use e2e::request::SHOP;
use e2e::{Environment, Operation, Request, orders};

async fn of_a_hundred_users_who_lock_one_code_concurrently_only_its_holder_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("user-37").await;
    let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
    let locks = users
        .iter()
        .enumerate()
        .map(|(n, user)| env.decide(Request::new(user, Operation::lock(&code)).at(n % 2)));
    let outcomes = join_all(locks).await;
    assert_eq!((count(&outcomes, "accepted"), count(&outcomes, "code_unknown")), (1, 99), "{outcomes:?}");
    assert_eq!(result_of(&outcomes[37]), "accepted");
    coupon.expect("user-37", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
}

async fn of_a_hundred_concurrent_locks_of_one_user_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let lock = async |n: usize| {
        let order = order(n);
        env.decide(Request::new("ann", Operation::lock_for(&code, &order)).at(n % 2)).await
    };
    let outcomes = join_all((0..100).map(lock)).await;
    assert_eq!((count(&outcomes, "accepted"), count(&outcomes, "already_locked")), (1, 99), "{outcomes:?}");
    // The order of the accepted lock may redeem the code.
    let order = order(outcomes.iter().position(|outcome| result_of(outcome) == "accepted").unwrap());
    env.accepted("ann", orders::redeem(&code, &order)).await;
}

async fn of_a_hundred_concurrent_redemptions_of_one_code_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let redeem = async |n: usize| {
        // Half of them with the same order.
        let order = order(if n.is_multiple_of(2) { 0 } else { n });
        env.decide(Request::new("ann", orders::redeem(&code, &order)).at(n % 2)).await
    };
    let outcomes = join_all((0..100).map(redeem)).await;
    assert_eq!(count(&outcomes, "accepted"), 1, "{outcomes:?}");
    assert_eq!(
        count(&outcomes, "already_redeemed") + count(&outcomes, "order_already_used"),
        99,
        "{outcomes:?}"
    );
    assert_eq!(coupon.counts().await, [0, 0, 0, 1, 0]);
}

async fn of_thirty_concurrent_roll_backs_of_one_redemption_one_is_accepted(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let redeemed = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    let outcomes =
        join_all((0..30).map(|n| env.decide(Request::new(SHOP, Operation::roll_back(id)).at(n % 2)))).await;
    assert_eq!(
        (count(&outcomes, "accepted"), count(&outcomes, "already_rolled_back")),
        (1, 29),
        "{outcomes:?}"
    );
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
}

e2e::tests![
    of_a_hundred_users_who_lock_one_code_concurrently_only_its_holder_is_accepted,
    of_a_hundred_concurrent_locks_of_one_user_one_is_accepted,
    of_a_hundred_concurrent_redemptions_of_one_code_one_is_accepted,
    of_thirty_concurrent_roll_backs_of_one_redemption_one_is_accepted,
];
