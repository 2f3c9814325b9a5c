//! Limits of redemptions and claims, with more concurrent requests than each limit allows.

use futures::future::join_all;
use serde_json::json;

use e2e::outcome::{count, order, result_of};
use e2e::request::SHOP;
use e2e::{Environment, Operation, Request, orders};

async fn usage_limit_reached_rejects_more_redemptions_than_a_user_is_allowed(env: &Environment) {
    let limits = json!({"limits": {"claims_per_user": 10, "redemptions_per_user": 2}});
    let coupon = env.stocked(20, limits).await;
    let codes = join_all((0..8).map(|_| coupon.claim("ann"))).await;
    let others = join_all((0..2).map(|_| coupon.claim("bob"))).await;
    let redeem = async |user: &'static str, n: usize, code: &str| {
        env.decide(Request::new(user, orders::redeem(code, &order(n))).at(n % 2)).await
    };
    let outcomes = join_all(codes.iter().enumerate().map(|(n, code)| redeem("ann", n, code))).await;
    assert_eq!(
        (count(&outcomes, "accepted"), count(&outcomes, "usage_limit_reached")),
        (2, 6),
        "{outcomes:?}"
    );
    // The limit applies to each user.
    let outcomes_of_bob = join_all(others.iter().enumerate().map(|(n, code)| redeem("bob", n, code))).await;
    assert_eq!(count(&outcomes_of_bob, "accepted"), 2, "{outcomes_of_bob:?}");
    let left = outcomes
        .iter()
        .zip(&codes)
        .find(|(outcomes, _)| result_of(outcomes) != "accepted")
        .map(|(_, code)| code)
        .unwrap();
    assert_eq!(coupon.validation("ann", left).await, "usage_limit_reached");
    // A redemption that is rolled back no longer counts.
    let redemption =
        outcomes.iter().find_map(|outcomes| outcomes["redemption"]["redemption_id"].as_str()).unwrap();
    env.accepted(SHOP, Operation::roll_back(redemption)).await;
    assert_eq!(coupon.validation("ann", left).await, "valid");
    env.accepted("ann", orders::redeem(left, "the last")).await;
    assert_eq!(coupon.counts().await, [10, 6, 0, 4, 0]);
}

async fn usage_limit_reached_rejects_more_redemptions_than_the_coupon_allows(env: &Environment) {
    let limits = json!({"limits": {"claims_per_user": 1, "redemptions_total": 7}});
    let coupon = env.stocked(40, limits).await;
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let codes = join_all(users.iter().map(|user| coupon.claim(user))).await;
    let redeem = async |n: usize| {
        env.decide(Request::new(&users[n], orders::redeem(&codes[n], "order")).at(n % 2)).await
    };
    let outcomes = join_all((0..30).map(redeem)).await;
    assert_eq!(
        (count(&outcomes, "accepted"), count(&outcomes, "usage_limit_reached")),
        (7, 23),
        "{outcomes:?}"
    );
    let redemption =
        outcomes.iter().find_map(|outcomes| outcomes["redemption"]["redemption_id"].as_str()).unwrap();
    env.accepted(SHOP, Operation::roll_back(redemption)).await;
    let again = join_all((0..30).map(async |n| {
        let order = order(n);
        env.decide(Request::new(&users[n], orders::redeem(&codes[n], &order)).at(n % 2)).await
    }));
    let again = again.await;
    assert_eq!((count(&again, "accepted"), count(&again, "already_redeemed")), (1, 6), "{again:?}");
    assert_eq!(coupon.counts().await, [10, 23, 0, 7, 0]);
}

async fn the_limit_of_all_redemptions_holds_across_several_shared_codes(env: &Environment) {
    let limits =
        json!({"limits": {"redemptions_per_code": 4, "redemptions_total": 6, "redemptions_per_user": 2}});
    let coupon = env.stocked(2, limits).await;
    let codes = [coupon.code(1).await, coupon.code(2).await];
    // Four users, five redemptions each, alternately of both codes: two accepted for each user, six in all.
    let users = ["ann", "bob", "carl", "dora"];
    let redeem = async |n: usize| {
        let order = order(n);
        let request = Request::new(users[n % 4], orders::redeem(&codes[n / 4 % 2], &order)).at(n % 2);
        (n % 4, result_of(&env.decide(request).await).to_owned())
    };
    let outcomes = join_all((0..20).map(redeem)).await;
    let accepted = |user: usize| outcomes.iter().filter(|(n, word)| *n == user && word == "accepted").count();
    assert!((0..4).all(|user| accepted(user) <= 2), "{outcomes:?}");
    assert_eq!((0..4).map(accepted).sum::<usize>(), 6, "{outcomes:?}");
}

async fn a_user_who_returns_and_claims_codes_concurrently_never_exceeds_the_limit(env: &Environment) {
    let coupon = env.stocked(30, json!({"limits": {"claims_per_user": 3}})).await;
    // Twenty tasks of one user; each claims a code and returns it, five times.
    let task = async |n: usize| {
        for _ in 0..5 {
            let outcome = env.decide(Request::new("ann", Operation::claim(&coupon.id)).at(n % 2)).await;
            if let Some(code) = outcome["code"].as_str() {
                let returned = env.decide(Request::new("ann", Operation::return_code(code)).at(n % 2)).await;
                assert_eq!(result_of(&returned), "accepted", "{returned}");
            } else {
                assert_eq!(result_of(&outcome), "user_limit_reached", "{outcome}");
            }
        }
    };
    join_all((0..20).map(task)).await;
    assert_eq!(coupon.counts().await, [30, 0, 0, 0, 0]);
    let last = join_all((0..5).map(|_| env.decide(Request::new("ann", Operation::claim(&coupon.id))))).await;
    assert_eq!((count(&last, "accepted"), count(&last, "user_limit_reached")), (3, 2), "{last:?}");
}

e2e::tests![
    usage_limit_reached_rejects_more_redemptions_than_a_user_is_allowed,
    usage_limit_reached_rejects_more_redemptions_than_the_coupon_allows,
    the_limit_of_all_redemptions_holds_across_several_shared_codes,
    a_user_who_returns_and_claims_codes_concurrently_never_exceeds_the_limit,
];
