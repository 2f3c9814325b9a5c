//! Times to live that run out: holds and locks of a second or two, on a stack that nobody hurts. Nothing here says when
//! something happens, only what comes after what.

use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

use crate::support::field::SETTLES_WITHIN;
use crate::support::life::{SHOP, word};
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};

/// Long enough for the requests of a test, and not much longer.
fn short() -> Value {
    rules(&json!({"hold_seconds": 2, "lock_seconds": 2}))
}

/// Asks for any code until this user has one.
async fn claim_until_won(sale: &Sale<'_>, user: &str) -> String {
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let outcome = sale.field.see_through(Act::of(user, Deed::Claim(sale.coupon))).await;
        if word(&outcome) == "accepted" {
            return outcome["code"].as_str().unwrap().to_owned();
        }
        assert_eq!(word(&outcome), "sold_out", "{user}: {outcome}");
        assert!(Instant::now() < until, "{user} gets none");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_hold_that_lapses_puts_the_code_back_into_stock_and_somebody_else_gets_it() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, json!({"hold_seconds": 1})).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    sale.until([1, 0, 0, 0, 0]).await;
    sale.expect("ann", &code, ("-", "hold_lapsed", [1, 0, 0, 0, 0])).await;
    assert_eq!(sale.lapses(&code).await, ["hold_lapsed"]);
    for deed in [Deed::Lock(&code), Deed::Unlock(&code), Deed::Return(&code), Deed::Redeem(&code, "order-1")]
    {
        assert_eq!(field.rejected("ann", deed).await, "hold_lapsed", "{deed:?}");
    }
    assert_eq!(field.rejected("bob", Deed::Lock(&code)).await, "not_claimed");
    assert_eq!(claim_until_won(&sale, "bob").await, code);
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "hold_lapsed");
    // It counts no longer: she may have another one, and gets this one once bob's hold is over as well.
    assert_eq!(claim_until_won(&sale, "ann").await, code);
    field.leave().await;
}

#[tokio::test]
async fn a_sold_out_coupon_with_a_hold_serves_everybody_who_waits_one_after_another() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, json!({"hold_seconds": 1})).await;
    let sale = Sale::of(&field, &coupon);
    let users: Vec<String> = (0..6).map(|n| format!("user-{n}")).collect();
    let codes = futures::future::join_all(users.iter().map(|user| claim_until_won(&sale, user))).await;
    assert_eq!(codes.len(), 6);
    sale.until([3, 0, 0, 0, 0]).await;
    for number in 1..=3 {
        let code = sale.code(number).await;
        let given = codes.iter().filter(|given| **given == code).count();
        assert_eq!(sale.lapses(&code).await.len(), given, "as often as it was given");
    }
    field.leave().await;
}

#[tokio::test]
async fn a_lock_that_lapses_leaves_the_code_claimed_and_a_redeem_that_needs_it_is_too_late() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({"lock_seconds": 1, "requires_lock": true}))).await;
    let sale = Sale::of(&field, &coupon);
    let (code, other) = (sale.claim("ann").await, sale.claim("bob").await);
    field.accepted("ann", Deed::LockFor(&code, "order-1")).await;
    sale.until([0, 2, 0, 0, 0]).await;
    sale.expect("ann", &code, ("CLAIMED", "lock_lapsed", [0, 2, 0, 0, 0])).await;
    assert_eq!(sale.lapses(&code).await, ["lock_lapsed"]);
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "lock_lapsed");
    assert_eq!(field.rejected("ann", Deed::Unlock(&code)).await, "lock_lapsed");
    // Without any lock it is another word; and a lock may be taken again, for another order.
    assert_eq!(field.rejected("bob", Deed::Redeem(&other, "order-1")).await, "not_locked");
    assert_eq!(field.rejected("bob", Deed::Unlock(&other)).await, "not_locked");
    let locked = field.see_through(Act::of("ann", Deed::LockFor(&code, "order-2"))).await;
    assert_eq!(word(&locked), "accepted", "{locked}");
    field.leave().await;
}

#[tokio::test]
async fn a_lock_that_lapses_is_no_hindrance_where_none_is_required() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({"lock_seconds": 1}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    field.accepted("ann", Deed::LockFor(&code, "order-1")).await;
    sale.until([0, 1, 0, 0, 0]).await;
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    // Its order is forgotten with it.
    field.accepted("ann", Deed::Redeem(&code, "order-2")).await;
    assert_eq!(sale.counts().await, [0, 0, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn a_live_lock_suspends_the_hold_and_both_lapse_at_once_when_it_ends() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({"hold_seconds": 2, "lock_seconds": 4}))).await;
    let sale = Sale::of(&field, &coupon);
    let (locked, held) = (sale.claim("ann").await, sale.claim("bob").await);
    field.see_through(Act::of("ann", Deed::Lock(&locked))).await;
    // A hold of the same age lapses; the locked one stays.
    sale.until([1, 0, 1, 0, 0]).await;
    sale.until([2, 0, 0, 0, 0]).await;
    assert_eq!(sale.lapses(&held).await, ["hold_lapsed"]);
    sale.expect("ann", &locked, ("-", "hold_lapsed", [2, 0, 0, 0, 0])).await;
    let mut events = sale.events().await;
    events.retain(|event| event.code == locked);
    let mut kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["hold_lapsed", "lock_lapsed"], "{events:?}");
    assert_eq!(field.rejected("ann", Deed::Redeem(&locked, "order-1")).await, "hold_lapsed");
    field.leave().await;
}

#[tokio::test]
async fn a_lock_is_redeemed_in_time_although_the_hold_is_over() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({"hold_seconds": 2, "lock_seconds": 60}))).await;
    let sale = Sale::of(&field, &coupon);
    let (locked, _) = (sale.claim("ann").await, sale.claim("bob").await);
    field.see_through(Act::of("ann", Deed::Lock(&locked))).await;
    sale.until([1, 0, 1, 0, 0]).await;
    sale.expect("ann", &locked, ("LOCKED", "valid", [1, 0, 1, 0, 0])).await;
    field.accepted("ann", Deed::Redeem(&locked, "order-1")).await;
    sale.expect("ann", &locked, ("REDEEMED", "already_redeemed", [1, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_release_after_the_end_of_the_hold_puts_the_code_back_into_stock() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({"hold_seconds": 2, "lock_seconds": 60}))).await;
    let sale = Sale::of(&field, &coupon);
    let (locked, _) = (sale.claim("ann").await, sale.claim("bob").await);
    field.see_through(Act::of("ann", Deed::Lock(&locked))).await;
    sale.until([1, 0, 1, 0, 0]).await;
    let released = field.accepted("ann", Deed::Unlock(&locked)).await;
    assert_eq!(
        (&released["claim"]["state"], &released["claim"]["hold_until"]),
        (&json!("RETURNED"), &Value::Null)
    );
    sale.expect("ann", &locked, ("-", "hold_lapsed", [2, 0, 0, 0, 0])).await;
    assert_eq!(sale.lapses(&locked).await, ["hold_lapsed"]);
    assert_eq!(field.rejected("ann", Deed::Return(&locked)).await, "hold_lapsed");
    field.leave().await;
}

#[tokio::test]
async fn the_fresh_hold_of_a_rolled_back_redemption_lapses_like_any_other() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, short()).await;
    let sale = Sale::of(&field, &coupon);
    let code = claim_until_won(&sale, "ann").await;
    let redeemed = field.see_through(Act::of("ann", Deed::Redeem(&code, "order-1"))).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap_or_else(|| panic!("{redeemed}"));
    // What is redeemed does not lapse, however old: another coupon's hold of the same length does meanwhile.
    let other = field.stocked(1, short()).await;
    let clock = Sale::of(&field, &other);
    clock.claim("bob").await;
    clock.until([1, 0, 0, 0, 0]).await;
    assert_eq!(sale.counts().await, [0, 0, 0, 1, 0]);
    field.accepted(SHOP, Deed::RollBack(id)).await;
    sale.until([1, 0, 0, 0, 0]).await;
    assert_eq!(sale.lapses(&code).await, ["hold_lapsed"]);
    field.leave().await;
}

#[tokio::test]
async fn whatever_ends_a_claim_ends_its_hold_too() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(4, short()).await;
    let sale = Sale::of(&field, &coupon);
    let mut codes = Vec::new();
    for user in ["ann", "bob", "carl", "dora"] {
        codes.push(sale.claim(user).await);
    }
    let [returned, redeemed, revoked, held] = [0, 1, 2, 3].map(|n: usize| codes[n].as_str());
    let deeds = [
        ("ann", Deed::Return(returned)),
        ("bob", Deed::Redeem(redeemed, "order-1")),
        ("admin", Deed::Revoke(revoked)),
    ];
    let done =
        futures::future::join_all(deeds.map(|(user, deed)| field.see_through(Act::of(user, deed)))).await;
    assert!(done.iter().all(|outcome| word(outcome) == "accepted"), "{done:?}");
    sale.until([2, 0, 0, 1, 1]).await;
    assert_eq!(sale.lapses(held).await, ["hold_lapsed"]);
    for code in [returned, redeemed, revoked] {
        assert_eq!(sale.lapses(code).await, Vec::<String>::new());
    }
    field.leave().await;
}

#[tokio::test]
async fn coupons_that_no_request_mentions_lapse_by_ticks_alone() {
    let field = Field::enter(Kind::Calm).await;
    let mut coupons = Vec::new();
    for _ in 0..6 {
        coupons.push(field.stocked(3, rules(&json!({"hold_seconds": 2, "lock_seconds": 2}))).await);
    }
    for coupon in &coupons {
        let sale = Sale::of(&field, coupon);
        let codes = [sale.claim("ann").await, sale.claim("bob").await];
        field.see_through(Act::of("bob", Deed::Lock(&codes[1]))).await;
    }
    // From here on nobody asks for anything that makes a record.
    for coupon in &coupons {
        Sale::of(&field, coupon).until([3, 0, 0, 0, 0]).await;
    }
    field.leave().await;
}
