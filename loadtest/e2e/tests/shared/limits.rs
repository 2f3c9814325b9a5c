//! Limits of redemptions and of claims, each wanted by more than may have it, all at once.

use futures::future::join_all;
use serde_json::json;

use crate::support::life::{SHOP, count, order, word};
use crate::support::{Act, Deed, Field, Kind, Sale};

#[tokio::test]
async fn usage_limit_reached_is_told_to_a_user_with_as_many_redemptions_as_allowed() {
    let field = Field::enter(Kind::Calm).await;
    let limits = json!({"limits": {"claims_per_user": 10, "redemptions_per_user": 2}});
    let coupon = field.stocked(20, limits).await;
    let sale = Sale::of(&field, &coupon);
    let codes = join_all((0..8).map(|_| sale.claim("ann"))).await;
    let others = join_all((0..2).map(|_| sale.claim("bob"))).await;
    let redeem = async |user: &'static str, n: usize, code: &str| {
        field.see_through(Act::of(user, Deed::Redeem(code, &order(n))).at(n % 2)).await
    };
    let told = join_all(codes.iter().enumerate().map(|(n, code)| redeem("ann", n, code))).await;
    assert_eq!((count(&told, "accepted"), count(&told, "usage_limit_reached")), (2, 6), "{told:?}");
    // A limit of each user, not of all.
    let told_bob = join_all(others.iter().enumerate().map(|(n, code)| redeem("bob", n, code))).await;
    assert_eq!(count(&told_bob, "accepted"), 2, "{told_bob:?}");
    let left =
        told.iter().zip(&codes).find(|(told, _)| word(told) != "accepted").map(|(_, code)| code).unwrap();
    assert_eq!(sale.validation("ann", left).await, "usage_limit_reached");
    // One that is undone counts no longer.
    let undone = told.iter().find_map(|told| told["redemption"]["redemption_id"].as_str()).unwrap();
    field.accepted(SHOP, Deed::RollBack(undone)).await;
    assert_eq!(sale.validation("ann", left).await, "valid");
    field.accepted("ann", Deed::Redeem(left, "the last")).await;
    assert_eq!(sale.counts().await, [10, 6, 0, 4, 0]);
    field.leave().await;
}

#[tokio::test]
async fn usage_limit_reached_is_told_to_everybody_once_the_coupon_was_redeemed_as_often_as_allowed() {
    let field = Field::enter(Kind::Calm).await;
    let limits = json!({"limits": {"claims_per_user": 1, "redemptions_total": 7}});
    let coupon = field.stocked(40, limits).await;
    let sale = Sale::of(&field, &coupon);
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let codes = join_all(users.iter().map(|user| sale.claim(user))).await;
    let redeem = async |n: usize| {
        field.see_through(Act::of(&users[n], Deed::Redeem(&codes[n], "order")).at(n % 2)).await
    };
    let told = join_all((0..30).map(redeem)).await;
    assert_eq!((count(&told, "accepted"), count(&told, "usage_limit_reached")), (7, 23), "{told:?}");
    let undone = told.iter().find_map(|told| told["redemption"]["redemption_id"].as_str()).unwrap();
    field.accepted(SHOP, Deed::RollBack(undone)).await;
    let again = join_all((0..30).map(async |n| {
        let order = order(n);
        field.see_through(Act::of(&users[n], Deed::Redeem(&codes[n], &order)).at(n % 2)).await
    }));
    let again = again.await;
    assert_eq!((count(&again, "accepted"), count(&again, "already_redeemed")), (1, 6), "{again:?}");
    assert_eq!(sale.counts().await, [10, 23, 0, 7, 0]);
    field.leave().await;
}

#[tokio::test]
async fn a_limit_in_total_holds_across_codes_that_are_shared() {
    let field = Field::enter(Kind::Calm).await;
    let limits =
        json!({"limits": {"redemptions_per_code": 4, "redemptions_total": 6, "redemptions_per_user": 2}});
    let coupon = field.stocked(2, limits).await;
    let sale = Sale::of(&field, &coupon);
    let codes = [sale.code(1).await, sale.code(2).await];
    // Four users, five times each, by turns with one code and the other: nobody more than twice, six in all.
    let users = ["ann", "bob", "carl", "dora"];
    let redeem = async |n: usize| {
        let order = order(n);
        let act = Act::of(users[n % 4], Deed::Redeem(&codes[n / 4 % 2], &order)).at(n % 2);
        (n % 4, word(&field.see_through(act).await).to_owned())
    };
    let told = join_all((0..20).map(redeem)).await;
    let accepted = |user: usize| told.iter().filter(|(n, word)| *n == user && word == "accepted").count();
    assert!((0..4).all(|user| accepted(user) <= 2), "{told:?}");
    assert_eq!((0..4).map(accepted).sum::<usize>(), 6, "{told:?}");
    field.leave().await;
}

#[tokio::test]
async fn a_user_who_gives_codes_back_and_claims_at_once_never_has_more_than_allowed() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(30, json!({"limits": {"claims_per_user": 3}})).await;
    let sale = Sale::of(&field, &coupon);
    // Twenty hands of one user, each claims and gives back what it got, five times.
    let hand = async |n: usize| {
        for _ in 0..5 {
            let outcome = field.see_through(Act::of("ann", Deed::Claim(&coupon)).at(n % 2)).await;
            if let Some(code) = outcome["code"].as_str() {
                let returned = field.see_through(Act::of("ann", Deed::Return(code)).at(n % 2)).await;
                assert_eq!(word(&returned), "accepted", "{returned}");
            } else {
                assert_eq!(word(&outcome), "user_limit_reached", "{outcome}");
            }
        }
    };
    join_all((0..20).map(hand)).await;
    assert_eq!(sale.counts().await, [30, 0, 0, 0, 0]);
    let last = join_all((0..5).map(|_| field.see_through(Act::of("ann", Deed::Claim(&coupon))))).await;
    assert_eq!((count(&last, "accepted"), count(&last, "user_limit_reached")), (3, 2), "{last:?}");
    field.leave().await;
}
