//! Why a request about a code is rejected: one test for each reason that belongs to the life of a code, and the order
//! in which the reasons are looked for. What has to do with money is in `money.rs`, with limits in `life_limits.rs`,
//! with deadlines in `lapses.rs`.

use serde_json::json;

use crate::support::life::{ADMIN, SHOP};
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};

/// Everything that a user can do with a code of their own.
fn deeds(code: &str) -> [Deed<'_>; 4] {
    [Deed::Lock(code), Deed::Unlock(code), Deed::Return(code), Deed::Redeem(code, "order-1")]
}

#[tokio::test]
async fn code_unknown_is_told_of_a_code_that_nobody_made() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    for unknown in ["NEVERMADE", "never made 2", "23456789"] {
        for deed in deeds(unknown) {
            assert_eq!(field.rejected("ann", deed).await, "code_unknown", "{deed:?}");
        }
        assert_eq!(field.rejected(ADMIN, Deed::Revoke(unknown)).await, "code_unknown");
        assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, unknown)).await, "code_unknown");
        assert_eq!(Sale::of(&field, &coupon).validation("ann", unknown).await, "code_unknown");
    }
    assert_eq!(Sale::of(&field, &coupon).counts().await, [1, 0, 0, 0, 0]);
    field.leave().await;
}

#[tokio::test]
async fn fault_38_another_users_code_is_answered_like_a_code_that_nobody_knows() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let (claimed, locked, redeemed) =
        (sale.claim("ann").await, sale.claim("ann").await, sale.claim("ann").await);
    field.accepted("ann", Deed::Lock(&locked)).await;
    field.accepted("ann", Deed::Redeem(&redeemed, "order-1")).await;
    for code in [&claimed, &locked, &redeemed] {
        for (deed, unknown) in deeds(code).into_iter().zip(deeds("NEVERMADE")) {
            let outcome = |deed| field.act(Act::of("eve", deed));
            let (theirs, nobodys) = (outcome(deed).await, outcome(unknown).await);
            // All but what names the request: status, headers, every field of the body.
            let blank = |reply: &crate::support::Reply| {
                let mut body = reply.json();
                body["request_id"] = json!("");
                body["decided_at"] = json!("");
                let mut headers: Vec<&str> =
                    reply.headers.keys().map(reqwest::header::HeaderName::as_str).collect();
                headers.sort_unstable();
                (reply.status, body, format!("{headers:?}"))
            };
            assert_eq!(blank(&theirs), blank(&nobodys), "{deed:?}");
            assert_eq!(theirs.json()["reason"], "code_unknown");
            assert_eq!(field.rejected("eve", deed).await, "code_unknown", "and so in every list");
        }
        let path = |code: &str| format!("/v1/codes/{code}/validation");
        let token = field.token("eve");
        let (mut theirs, mut nobodys) = (
            field.get(0, &path(code), &token).await.json(),
            field.get(0, &path("NEVERMADE"), &token).await.json(),
        );
        (theirs["code"], nobodys["code"]) = (json!(""), json!(""));
        assert_eq!(theirs, nobodys);
    }
    assert_eq!(sale.counts().await, [0, 1, 1, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn fault_39_not_claimed_is_told_before_a_claim_and_after_the_code_was_given_back() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.code(2).await;
    for deed in deeds(&code) {
        assert_eq!(field.rejected("ann", deed).await, "not_claimed", "{deed:?}");
    }
    field.accepted("ann", Deed::ClaimNamed(&coupon, &code)).await;
    field.accepted("ann", Deed::Return(&code)).await;
    for deed in deeds(&code) {
        assert_eq!(field.rejected("ann", deed).await, "not_claimed", "{deed:?}");
    }
    assert_eq!(sale.counts().await, [2, 0, 0, 0, 0]);
    field.leave().await;
}

#[tokio::test]
async fn fault_39_already_redeemed_is_told_of_everything_after_a_redemption() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    for deed in [Deed::Lock(&code), Deed::Unlock(&code), Deed::Return(&code), Deed::Redeem(&code, "order-2")]
    {
        assert_eq!(field.rejected("ann", deed).await, "already_redeemed", "{deed:?}");
    }
    assert_eq!(field.rejected(ADMIN, Deed::Revoke(&code)).await, "already_redeemed");
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn order_already_used_is_told_of_the_same_order_with_the_same_code() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let (code, other) = (sale.claim("ann").await, sale.claim("ann").await);
    field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "order_already_used");
    // Of another amount it is the same order; with another code it is another redemption.
    let dearer = Deed::Pay(&code, "order-1", ["999.00", "EUR"]);
    assert_eq!(field.rejected("ann", dearer).await, "order_already_used");
    field.accepted("ann", Deed::Redeem(&other, "order-1")).await;
    assert_eq!(sale.counts().await, [0, 0, 0, 2, 0]);
    field.leave().await;
}

#[tokio::test]
async fn already_locked_is_told_of_a_second_lock_and_of_giving_a_locked_code_back() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    field.accepted("ann", Deed::LockFor(&code, "order-1")).await;
    for deed in [
        Deed::Lock(&code),
        Deed::LockFor(&code, "order-1"),
        Deed::LockFor(&code, "order-2"),
        Deed::Return(&code),
    ] {
        assert_eq!(field.rejected("ann", deed).await, "already_locked", "{deed:?}");
    }
    sale.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn not_locked_is_told_of_a_release_without_a_lock_and_of_a_redeem_that_needs_one() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({"requires_lock": true}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    assert_eq!(field.rejected("ann", Deed::Unlock(&code)).await, "not_locked");
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "not_locked");
    field.accepted("ann", Deed::Lock(&code)).await;
    field.accepted("ann", Deed::Unlock(&code)).await;
    // A lock that was released is none, and no lapsed one.
    assert_eq!(field.rejected("ann", Deed::Unlock(&code)).await, "not_locked");
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "not_locked");
    sale.expect("ann", &code, ("CLAIMED", "not_locked", [0, 1, 0, 0, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn code_revoked_is_told_to_whoever_asks_for_a_code_that_was_withdrawn() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let (own, free) = (sale.claim("ann").await, sale.code(3).await);
    for code in [&own, &free] {
        field.accepted(ADMIN, Deed::Revoke(code)).await;
        for deed in deeds(code) {
            assert_eq!(field.rejected("ann", deed).await, "code_revoked", "{deed:?}");
        }
        assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, code)).await, "code_revoked");
        assert_eq!(field.rejected(ADMIN, Deed::Revoke(code)).await, "code_revoked");
    }
    // A claim that was withdrawn is still somebody's: to others there is no such code.
    assert_eq!(field.rejected("bob", Deed::Redeem(&own, "order-1")).await, "code_unknown");
    assert_eq!(field.rejected("bob", Deed::Redeem(&free, "order-1")).await, "code_revoked");
    assert_eq!(sale.counts().await, [1, 0, 0, 0, 2]);
    field.leave().await;
}

#[tokio::test]
async fn paused_ended_and_not_started_are_told_of_claims_locks_and_redeems_and_code_expired_of_what_is_held()
{
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let (code, locked) = (sale.claim("ann").await, sale.claim("ann").await);
    field.accepted("ann", Deed::Lock(&locked)).await;
    let free = sale.code(3).await;
    let far = "4102444800000";
    for (set, reason, of_held) in [
        ("status = 'paused'".to_owned(), "paused", "paused"),
        ("status = 'ended'".to_owned(), "ended", "ended"),
        (format!("status = 'active', starts_at_ms = {far}"), "not_started", "not_started"),
        ("starts_at_ms = null, expires_at_ms = 1000".to_owned(), "expired", "code_expired"),
    ] {
        field.redefine(&coupon, &set).await;
        let asks =
            [Deed::Claim(&coupon), Deed::ClaimNamed(&coupon, &free), Deed::ClaimNamed(&coupon, "NEVERMADE")];
        for deed in asks {
            assert_eq!(field.rejected("ann", deed).await, reason, "{deed:?}");
        }
        for deed in [Deed::Lock(&code), Deed::Redeem(&code, "order-1"), Deed::Redeem(&locked, "order-1")] {
            assert_eq!(field.rejected("ann", deed).await, of_held, "{deed:?}");
        }
        assert_eq!(sale.validation("ann", &code).await, of_held);
        assert_eq!(sale.validation("ann", &locked).await, of_held);
        // Who asks comes first.
        assert_eq!(field.rejected("bob", Deed::Redeem(&code, "order-1")).await, "code_unknown");
    }
    // Nobody has to keep what they cannot use: a release and a return are not of the window.
    let expired = field.counts(&coupon).await;
    assert_eq!((expired["expired"].as_u64(), expired["generated"].as_u64()), (Some(3), Some(3)));
    assert_eq!(sale.in_wallet("ann", &code).await["state"], "EXPIRED");
    field.accepted("ann", Deed::Unlock(&locked)).await;
    field.accepted("ann", Deed::Return(&locked)).await;
    field.redefine(&coupon, "expires_at_ms = null").await;
    field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(sale.counts().await, [2, 0, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn code_expired_is_told_when_the_window_ends_while_the_code_is_held() {
    let field = Field::enter(Kind::Calm).await;
    let ends = chrono::Utc::now() + chrono::Duration::seconds(3);
    let coupon = field.stocked(2, rules(&json!({"expires_at": ends.to_rfc3339()}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let until = tokio::time::Instant::now() + crate::support::field::SETTLES_WITHIN;
    while sale.validation("ann", &code).await != "code_expired" {
        assert!(tokio::time::Instant::now() < until, "it stays valid");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(field.rejected("ann", Deed::Lock(&code)).await, "code_expired");
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "code_expired");
    assert_eq!(field.rejected("bob", Deed::ClaimNamed(&coupon, &sale.code(2).await)).await, "expired");
    assert_eq!(sale.in_wallet("ann", &code).await["state"], "EXPIRED");
    field.leave().await;
}

#[tokio::test]
async fn redemption_unknown_is_told_of_an_id_that_redeemed_nothing() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let redeemed = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    // Well formed, and nobody's; a claim's; a rejected redeem's.
    let claimed = field.accepted("bob", Deed::Claim(&coupon)).await;
    let refused = field.act(Act::of("ann", Deed::Redeem(&code, "order-2"))).await.json();
    let of_request = |outcome: &serde_json::Value| {
        outcome["request_id"].as_str().unwrap().split('.').next().unwrap().to_owned()
    };
    for forged in ["AAAAAAAAAAAAAAAAAAAAAQ".to_owned(), of_request(&claimed), of_request(&refused)] {
        assert_eq!(field.rejected(SHOP, Deed::RollBack(&forged)).await, "redemption_unknown", "{forged}");
    }
    // No id at all: refused at the door.
    for garbage in [
        "x",
        "%00",
        "order-1",
        &"A".repeat(5_000),
        &redeemed["request_id"].as_str().unwrap().replace('.', ""),
    ] {
        let reply = field.act(Act::of(SHOP, Deed::RollBack(garbage))).await;
        assert!(matches!(reply.status, 404 | 422), "{garbage}: {} {}", reply.status, reply.body);
    }
    assert_eq!(sale.counts().await, [0, 1, 0, 1, 0]);
    field.accepted(SHOP, Deed::RollBack(id)).await;
    assert_eq!(field.rejected(SHOP, Deed::RollBack(id)).await, "already_rolled_back");
    field.leave().await;
}

#[tokio::test]
async fn unprocessable_is_told_of_locks_releases_and_returns_of_a_shared_code() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, json!({"limits": {"redemptions_per_code": 2}})).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.code(1).await;
    for deed in [Deed::Lock(&code), Deed::Unlock(&code), Deed::Return(&code)] {
        assert_eq!(field.rejected("ann", deed).await, "unprocessable", "{deed:?}");
    }
    field.leave().await;
}

#[tokio::test]
async fn the_reasons_are_looked_for_in_their_order() {
    let field = Field::enter(Kind::Calm).await;
    // Everything is wrong with this redeem but what was put right one after another.
    let limits = json!({"claims_per_user": 100, "redemptions_total": 1});
    let discount =
        json!({"type": "FIXED_AMOUNT", "value": "5.00", "currency": "EUR", "minimum_order": "50.00"});
    let over = json!({"requires_lock": true, "limits": limits, "discount": discount});
    let coupon = field.stocked(3, rules(&over)).await;
    let sale = Sale::of(&field, &coupon);
    let (code, used) = (sale.claim("ann").await, sale.claim("bob").await);
    field.accepted("bob", Deed::Lock(&used)).await;
    field.accepted("bob", Deed::Redeem(&used, "order-1")).await;
    field.redefine(&coupon, "status = 'paused'").await;

    let cheap_and_foreign = Deed::Pay(&code, "order-1", ["1.00", "USD"]);
    assert_eq!(field.rejected("eve", cheap_and_foreign).await, "code_unknown");
    assert_eq!(field.rejected("ann", cheap_and_foreign).await, "paused");
    field.redefine(&coupon, "status = 'active'").await;
    assert_eq!(field.rejected("ann", cheap_and_foreign).await, "not_locked");
    field.accepted("ann", Deed::LockFor(&code, "order-2")).await;
    assert_eq!(field.rejected("ann", cheap_and_foreign).await, "already_locked");
    assert_eq!(
        field.rejected("ann", Deed::Pay(&code, "order-2", ["1.00", "USD"])).await,
        "currency_mismatch"
    );
    assert_eq!(
        field.rejected("ann", Deed::Pay(&code, "order-2", ["1.00", "EUR"])).await,
        "minimum_order_not_met"
    );
    assert_eq!(
        field.rejected("ann", Deed::Pay(&code, "order-2", ["50.00", "EUR"])).await,
        "usage_limit_reached"
    );
    // Of what is redeemed: its order, before that it is; withdrawn comes before the window.
    assert_eq!(
        field.rejected("bob", Deed::Pay(&used, "order-1", ["1.00", "USD"])).await,
        "order_already_used"
    );
    assert_eq!(field.rejected("bob", Deed::Pay(&used, "order-2", ["1.00", "USD"])).await, "already_redeemed");
    field.accepted(ADMIN, Deed::Revoke(&code)).await;
    field.redefine(&coupon, "status = 'ended'").await;
    assert_eq!(field.rejected("ann", cheap_and_foreign).await, "code_revoked");
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &code)).await, "ended");
    field.redefine(&coupon, "status = 'active'").await;
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &code)).await, "code_revoked");
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &used)).await, "code_taken");
    assert_eq!(sale.counts().await, [1, 0, 0, 1, 1]);
    field.leave().await;
}
