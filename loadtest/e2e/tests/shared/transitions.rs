//! The life of a code, one test for each transition of its table: what the answer says, and what everybody reads of
//! the code afterwards. Times to live that run out are in `lapses.rs`, reasons in `life_reasons.rs`.

use serde_json::{Value, json};

use crate::support::life::{ADMIN, SHOP};
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};

/// The coupon has holds and locks that no test outlives.
fn long() -> Value {
    rules(&json!({"hold_seconds": 600, "lock_seconds": 300}))
}

fn time(value: &Value) -> chrono::DateTime<chrono::FixedOffset> {
    chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap_or_default()).unwrap()
}

/// Seconds from one time to another.
fn seconds(from: &Value, to: &Value) -> i64 {
    (time(to) - time(from)).num_seconds()
}

#[tokio::test]
async fn a_claim_of_any_code_takes_it_from_stock_to_its_user() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, long()).await;
    let sale = Sale::of(&field, &coupon);
    let claimed = field.accepted("ann", Deed::Claim(&coupon)).await;
    let code = claimed["code"].as_str().unwrap();
    assert_eq!((&claimed["claim"]["state"], &claimed["claim"]["code"]), (&json!("CLAIMED"), &json!(code)));
    assert_eq!(claimed["claim"]["coupon_id"], *coupon);
    assert_eq!(seconds(&claimed["claim"]["claimed_at"], &claimed["claim"]["hold_until"]), 600);
    assert_eq!((&claimed["claim"]["lock_until"], &claimed["redemption"]), (&Value::Null, &Value::Null));
    sale.expect("ann", code, ("CLAIMED", "valid", [1, 1, 0, 0, 0])).await;
    let item = sale.in_wallet("ann", code).await;
    assert_eq!((&item["coupon_id"], &item["hold_until"]), (&json!(coupon), &claimed["claim"]["hold_until"]));
    sale.expect("bob", code, ("-", "code_unknown", [1, 1, 0, 0, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_claim_of_a_named_code_takes_exactly_that_one_however_it_is_written() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(5, long()).await;
    let sale = Sale::of(&field, &coupon);
    let wanted = sale.code(4).await;
    sale.expect("ann", &wanted, ("-", "not_claimed", [5, 0, 0, 0, 0])).await;
    let written = wanted.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
    let claimed = field.accepted("ann", Deed::ClaimNamed(&coupon, &written)).await;
    assert_eq!((&claimed["code"], &claimed["claim"]["state"]), (&json!(wanted), &json!("CLAIMED")));
    sale.expect("ann", &wanted, ("CLAIMED", "valid", [4, 1, 0, 0, 0])).await;
    // The others go to the others.
    for user in ["bob", "carl", "dora", "eve"] {
        assert_ne!(sale.claim(user).await, wanted);
    }
    assert_eq!(sale.counts().await, [0, 5, 0, 0, 0]);
    field.leave().await;
}

#[tokio::test]
async fn a_lock_without_an_order_takes_a_claimed_code_to_locked_and_any_order_may_redeem_it() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let locked = field.accepted("ann", Deed::Lock(&code)).await;
    assert_eq!((&locked["claim"]["state"], &locked["code"]), (&json!("LOCKED"), &json!(code)));
    assert_eq!(seconds(&locked["decided_at"], &locked["claim"]["lock_until"]), 300);
    assert_eq!(seconds(&locked["claim"]["claimed_at"], &locked["claim"]["hold_until"]), 600, "as it was");
    sale.expect("ann", &code, ("LOCKED", "valid", [1, 0, 1, 0, 0])).await;
    assert_eq!(sale.in_wallet("ann", &code).await["lock_until"], locked["claim"]["lock_until"]);
    sale.expect("bob", &code, ("-", "code_unknown", [1, 0, 1, 0, 0])).await;
    field.accepted("ann", Deed::Redeem(&code, "any order")).await;
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [1, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_lock_with_an_order_is_for_that_order_alone() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    field.accepted("ann", Deed::LockFor(&code, "order-1")).await;
    let item = sale.in_wallet("ann", &code).await;
    assert_eq!((&item["state"], &item["order_id"]), (&json!("LOCKED"), &json!("order-1")));
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-2")).await, "already_locked");
    sale.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    let redeemed = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(redeemed["redemption"]["order_id"], "order-1");
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_release_takes_a_locked_code_to_claimed_and_it_may_be_locked_again() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let locked = field.accepted("ann", Deed::LockFor(&code, "order-1")).await;
    let released = field.accepted("ann", Deed::Unlock(&code)).await;
    assert_eq!(
        (&released["claim"]["state"], &released["claim"]["lock_until"]),
        (&json!("CLAIMED"), &Value::Null)
    );
    assert_eq!(released["claim"]["hold_until"], locked["claim"]["hold_until"]);
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    assert_eq!(sale.in_wallet("ann", &code).await["order_id"], Value::Null);
    // For another order, now that the first lock is gone.
    field.accepted("ann", Deed::LockFor(&code, "order-2")).await;
    field.accepted("ann", Deed::Redeem(&code, "order-2")).await;
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_code_that_is_given_back_is_stock_again_and_counts_no_longer_for_its_user() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, json!({"hold_seconds": 600})).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let returned = field.accepted("ann", Deed::Return(&code)).await;
    assert_eq!((&returned["claim"]["state"], &returned["code"]), (&json!("RETURNED"), &json!(code)));
    assert_eq!(returned["claim"]["hold_until"], Value::Null);
    sale.expect("ann", &code, ("-", "not_claimed", [1, 0, 0, 0, 0])).await;
    // She may have one, and has none: the same code again, then it goes to somebody else.
    assert_eq!(sale.claim("ann").await, code);
    field.accepted("ann", Deed::Return(&code)).await;
    assert_eq!(sale.claim("bob").await, code);
    sale.expect("bob", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    sale.expect("ann", &code, ("-", "code_unknown", [0, 1, 0, 0, 0])).await;
    let kinds: Vec<String> = sale.events().await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "restocked").count(), 3, "{kinds:?}");
    field.leave().await;
}

#[tokio::test]
async fn a_claimed_code_is_redeemed_by_its_user_where_no_lock_is_required() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let redeemed = field.accepted("ann", Deed::Pay(&code, "order-1", ["129.90", "EUR"])).await;
    let redemption = &redeemed["redemption"];
    for (name, wanted) in [
        ("code", &*code),
        ("order_id", "order-1"),
        ("order_amount", "129.90"),
        ("discount", "12.99"),
        ("final_price", "116.91"),
        ("currency", "EUR"),
    ] {
        assert_eq!(redemption[name], wanted, "{name} of {redeemed}");
    }
    assert_eq!(redemption["redeemed_at"], redeemed["decided_at"]);
    let own_id = redeemed["request_id"].as_str().unwrap().split('.').next();
    assert_eq!(redemption["redemption_id"].as_str(), own_id, "known by the request that made it");
    assert_eq!(
        (&redeemed["claim"]["state"], &redeemed["claim"]["hold_until"]),
        (&json!("REDEEMED"), &Value::Null)
    );
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [1, 0, 0, 1, 0])).await;
    let item = sale.in_wallet("ann", &code).await;
    assert_eq!((&item["order_id"], &item["hold_until"]), (&json!("order-1"), &Value::Null));
    field.leave().await;
}

#[tokio::test]
async fn a_locked_code_is_redeemed_by_its_user_where_a_lock_is_required() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({"requires_lock": true, "lock_seconds": 300}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    sale.expect("ann", &code, ("CLAIMED", "not_locked", [0, 1, 0, 0, 0])).await;
    field.accepted("ann", Deed::Lock(&code)).await;
    sale.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    let redeemed = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(
        (&redeemed["claim"]["state"], &redeemed["claim"]["lock_until"]),
        (&json!("REDEEMED"), &Value::Null)
    );
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_redemption_is_rolled_back_once_and_its_user_has_the_code_again_with_a_fresh_hold() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    field.accepted("ann", Deed::LockFor(&code, "order-1")).await;
    let redeemed = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    let undone = field.accepted(SHOP, Deed::RollBack(id)).await;
    assert_eq!((&undone["claim"]["state"], &undone["code"]), (&json!("CLAIMED"), &json!(code)));
    assert_eq!(undone["redemption"], redeemed["redemption"], "the whole redemption, as it was");
    assert_eq!(seconds(&undone["decided_at"], &undone["claim"]["hold_until"]), 600, "a fresh hold");
    assert_eq!(undone["claim"]["lock_until"], Value::Null);
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    let item = sale.in_wallet("ann", &code).await;
    assert_eq!((&item["hold_until"], &item["order_id"]), (&undone["claim"]["hold_until"], &Value::Null));

    assert_eq!(field.rejected(SHOP, Deed::RollBack(id)).await, "already_rolled_back");
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    // The order that was cancelled may be paid with it again; what was undone stays undone.
    let again = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    assert_ne!(again["redemption"]["redemption_id"], redeemed["redemption"]["redemption_id"]);
    assert_eq!(field.rejected(SHOP, Deed::RollBack(id)).await, "already_rolled_back");
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn an_available_code_that_is_revoked_leaves_the_stock_for_good() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, long()).await;
    let sale = Sale::of(&field, &coupon);
    let (first, last) = (sale.code(1).await, sale.code(3).await);
    // One that is next in line, one that is not.
    for (code, left) in [(&first, 2), (&last, 1)] {
        let revoked = field.accepted(ADMIN, Deed::Revoke(code)).await;
        assert_eq!((&revoked["claim"]["state"], &revoked["code"]), (&json!("REVOKED"), &json!(code)));
        assert_eq!(revoked["claim"]["claimed_at"], Value::Null, "nobody had it");
        sale.expect("ann", code, ("-", "code_revoked", [left, 0, 0, 0, 3 - left])).await;
    }
    assert_eq!(field.rejected("ann", Deed::ClaimNamed(&coupon, &last)).await, "code_revoked");
    assert_eq!(sale.claim("ann").await, sale.code(2).await);
    let key = Act::of("bob", Deed::Claim(&coupon)).key("k");
    assert_eq!(field.act(key).await.json()["reason"], "sold_out");
    assert_eq!(sale.counts().await, [0, 1, 0, 0, 2]);
    field.leave().await;
}

#[tokio::test]
async fn a_claimed_code_that_is_revoked_is_its_users_no_more_and_nobody_elses() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let revoked = field.accepted(ADMIN, Deed::Revoke(&code)).await;
    assert_eq!(
        (&revoked["claim"]["state"], &revoked["claim"]["hold_until"]),
        (&json!("REVOKED"), &Value::Null)
    );
    sale.expect("ann", &code, ("REVOKED", "code_revoked", [1, 0, 0, 0, 1])).await;
    assert_eq!(field.rejected("ann", Deed::Redeem(&code, "order-1")).await, "code_revoked");
    assert_eq!(field.rejected("bob", Deed::ClaimNamed(&coupon, &code)).await, "code_revoked");
    assert_ne!(sale.claim("bob").await, code);
    field.leave().await;
}

#[tokio::test]
async fn a_locked_code_that_is_revoked_is_its_users_no_more_and_its_lock_never_lapses() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({"hold_seconds": 2, "lock_seconds": 2}))).await;
    let sale = Sale::of(&field, &coupon);
    let (revoked, other) = (sale.claim("ann").await, sale.claim("bob").await);
    field.accepted("ann", Deed::LockFor(&revoked, "order-1")).await;
    let outcome = field.accepted(ADMIN, Deed::Revoke(&revoked)).await;
    assert_eq!(
        (&outcome["claim"]["state"], &outcome["claim"]["lock_until"]),
        (&json!("REVOKED"), &Value::Null)
    );
    assert_eq!(sale.in_wallet("ann", &revoked).await["state"], "REVOKED");
    assert_eq!(sale.validation("ann", &revoked).await, "code_revoked");
    assert_eq!(field.rejected("ann", Deed::Redeem(&revoked, "order-1")).await, "code_revoked");
    // Another lock of the same age lapses, and it with its hold.
    field.see_through(Act::of("bob", Deed::Lock(&other))).await;
    sale.until([1, 0, 0, 0, 1]).await;
    assert_eq!(sale.lapses(&revoked).await, Vec::<String>::new());
    field.leave().await;
}

#[tokio::test]
async fn a_service_does_everything_for_the_user_that_it_names_and_a_user_for_nobody_else() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, long()).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let shop = field.tokens.issue(SHOP, "service").unwrap();
    let send = async |method: reqwest::Method, path: String, body: Option<Value>, token: &str| {
        let request = field.http.request(method, field.url(1, &path)).bearer_auth(token);
        let request = if let Some(body) = &body { request.json(body) } else { request };
        field.send(request).await.unwrap()
    };
    let lock = format!("/v1/codes/{code}/lock?wait=10");
    let locked = send(reqwest::Method::POST, lock.clone(), Some(json!({"user_id": "ann"})), &shop).await;
    assert_eq!(locked.json()["claim"]["state"], "LOCKED", "{}", locked.body);
    sale.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    let unlocked = send(reqwest::Method::DELETE, format!("{lock}&user_id=ann"), None, &shop).await;
    assert_eq!(unlocked.json()["claim"]["state"], "CLAIMED", "{}", unlocked.body);
    let paying = json!({"order_id": "o", "order_amount": "1.00", "currency": "EUR", "user_id": "ann"});
    let redeem = format!("/v1/codes/{code}/redemptions?wait=10");
    let redeemed = send(reqwest::Method::POST, redeem.clone(), Some(paying.clone()), &shop).await;
    assert_eq!(redeemed.json()["claim"]["state"], "REDEEMED", "{}", redeemed.body);
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    // What it did for her is among her requests, and in her wallet as the shop sees it.
    let wallet = field.get(0, "/v1/users/ann/codes", &shop).await.json();
    assert_eq!(wallet["items"][0]["state"], "REDEEMED", "{wallet}");

    let bob = field.token("bob");
    let give_back = format!("/v1/codes/{code}/claim?user_id=ann");
    let id = redeemed.json()["redemption"]["redemption_id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        (reqwest::Method::POST, lock.clone(), Some(json!({"user_id": "ann"}))),
        (reqwest::Method::DELETE, format!("{lock}&user_id=ann"), None),
        (reqwest::Method::POST, redeem, Some(paying)),
        (reqwest::Method::DELETE, give_back, None),
        (reqwest::Method::DELETE, format!("/v1/redemptions/{id}"), None),
        (reqwest::Method::DELETE, format!("/v1/codes/{code}"), None),
        (reqwest::Method::GET, "/v1/users/ann/codes".to_owned(), None),
        (reqwest::Method::GET, "/v1/users/ann/requests".to_owned(), None),
    ] {
        let refused = send(method.clone(), path.clone(), body, &bob).await;
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.body);
    }
    sale.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    field.leave().await;
}
