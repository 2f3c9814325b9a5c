//! Codes that are shared by many: redeemed without a claim, as often as the coupon allows, and never given to anybody.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::life::{ADMIN, SHOP, count, order};
use crate::support::{Act, Deed, Field, Kind, Sale};

/// One code, for so many redemptions; `null` is any number.
async fn shared(field: &Field, redemptions: Value) -> (String, String) {
    let coupon = field.stocked(1, json!({"limits": {"redemptions_per_code": redemptions}})).await;
    let code = Sale::of(field, &coupon).code(1).await;
    (coupon, code)
}

#[tokio::test]
async fn a_shared_code_is_redeemed_without_a_claim_until_its_uses_are_exhausted() {
    let field = Field::enter(Kind::Calm).await;
    let (coupon, code) = shared(&field, json!(5)).await;
    let sale = Sale::of(&field, &coupon);
    for n in 0..5 {
        let user = format!("user-{n}");
        sale.expect(&user, &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
        let redeemed = field.accepted(&user, Deed::Redeem(&code, "the same order")).await;
        assert_eq!(
            (&redeemed["claim"], &redeemed["code"]),
            (&Value::Null, &json!(code)),
            "nobody claimed it"
        );
        assert_eq!(redeemed["redemption"]["final_price"], "90.00");
        // An order is one order, whoever sends it again.
        assert_eq!(field.rejected(&user, Deed::Redeem(&code, "the same order")).await, "order_already_used");
        field
            .act(Act::of(SHOP, Deed::RollBack(redeemed["redemption"]["redemption_id"].as_str().unwrap())))
            .await;
        field.accepted(&user, Deed::Redeem(&code, &order(n))).await;
    }
    sale.expect("ann", &code, ("-", "usage_limit_reached", [0, 0, 0, 1, 0])).await;
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "one more")).await, "usage_limit_reached");
    assert_eq!(
        field.rejected(ADMIN, Deed::Revoke(&code)).await,
        "already_redeemed",
        "there is nothing left to withdraw"
    );
    field.leave().await;
}

#[tokio::test]
async fn a_shared_code_is_never_given_to_anybody() {
    let field = Field::enter(Kind::Calm).await;
    let (coupon, code) = shared(&field, json!(2)).await;
    let sale = Sale::of(&field, &coupon);
    let any = field.act(Act::of("ann", Deed::Claim(&coupon)).key("k")).await.json();
    assert_eq!(any["reason"], "sold_out", "{any}");
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &code)).await, "code_taken");
    sale.expect("ann", &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
    field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &code)).await, "code_taken");
    field.leave().await;
}

#[tokio::test]
async fn the_last_use_of_a_shared_code_is_raced_by_a_hundred_users_and_won_by_one() {
    let field = Field::enter(Kind::Calm).await;
    let (coupon, code) = shared(&field, json!(5)).await;
    let users: Vec<String> = (0..104).map(|n| format!("user-{n}")).collect();
    let redeem = async |n: usize| {
        let order = order(n);
        field.see_through(Act::of(&users[n], Deed::Redeem(&code, &order)).at(n % 2)).await
    };
    let first = join_all((0..4).map(redeem)).await;
    assert_eq!(count(&first, "accepted"), 4, "{first:?}");
    let raced = join_all((4..104).map(redeem)).await;
    assert_eq!((count(&raced, "accepted"), count(&raced, "usage_limit_reached")), (1, 99), "{raced:?}");
    assert_eq!(Sale::of(&field, &coupon).counts().await, [0, 0, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn a_shared_code_without_a_limit_is_redeemed_by_everybody() {
    let field = Field::enter(Kind::Calm).await;
    let (coupon, code) = shared(&field, Value::Null).await;
    let users: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
    let redeem = async |n: usize| {
        let order = order(n);
        field.see_through(Act::of(&users[n], Deed::Redeem(&code, &order)).at(n % 2)).await
    };
    let told = join_all((0..60).map(redeem)).await;
    assert_eq!(count(&told, "accepted"), 60, "{told:?}");
    Sale::of(&field, &coupon).expect("ann", &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
    // Two users who place one order: the code pays for it once.
    let same =
        join_all(users.iter().map(|user| field.see_through(Act::of(user, Deed::Redeem(&code, "same")))))
            .await;
    assert_eq!((count(&same, "accepted"), count(&same, "order_already_used")), (1, 59), "{same:?}");
    field.leave().await;
}

#[tokio::test]
async fn a_redemption_that_is_rolled_back_frees_one_use_of_a_shared_code() {
    let field = Field::enter(Kind::Calm).await;
    let (coupon, code) = shared(&field, json!(2)).await;
    let sale = Sale::of(&field, &coupon);
    let first = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    field.accepted("bob", Deed::Redeem(&code, "order-2")).await;
    sale.expect("carl", &code, ("-", "usage_limit_reached", [0, 0, 0, 1, 0])).await;
    let id = first["redemption"]["redemption_id"].as_str().unwrap();
    let undone = field.accepted(SHOP, Deed::RollBack(id)).await;
    assert_eq!((&undone["claim"], &undone["redemption"]), (&Value::Null, &first["redemption"]));
    sale.expect("carl", &code, ("-", "valid", [1, 0, 0, 0, 0])).await;
    assert_eq!(field.rejected(SHOP, Deed::RollBack(id)).await, "already_rolled_back");
    // One use is free: of everybody who wants it, one gets it.
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let raced = users.iter().map(|user| field.see_through(Act::of(user, Deed::Redeem(&code, user))));
    let raced = join_all(raced).await;
    assert_eq!((count(&raced, "accepted"), count(&raced, "usage_limit_reached")), (1, 19), "{raced:?}");
    field.leave().await;
}

#[tokio::test]
async fn a_shared_code_that_is_revoked_is_redeemed_no_more_and_its_redemptions_stay() {
    let field = Field::enter(Kind::Calm).await;
    let (coupon, code) = shared(&field, json!(5)).await;
    let sale = Sale::of(&field, &coupon);
    let redeemed = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    field.accepted(ADMIN, Deed::Revoke(&code)).await;
    sale.expect("bob", &code, ("-", "code_revoked", [0, 0, 0, 0, 1])).await;
    assert_eq!(field.rejected("bob", Deed::Redeem(&code, "order-2")).await, "code_revoked");
    field.accepted(SHOP, Deed::RollBack(redeemed["redemption"]["redemption_id"].as_str().unwrap())).await;
    sale.expect("bob", &code, ("-", "code_revoked", [0, 0, 0, 0, 1])).await;
    assert_eq!(field.rejected(ADMIN, Deed::Revoke(&code)).await, "code_revoked");
    field.leave().await;
}
