//! Transitions of a claim, one test for each: what the response contains, and what every endpoint shows afterwards.
//! Lapses are in `lapses.rs`, rejections in `rejections.rs`.

use serde_json::{Value, json};

use e2e::coupon::rules;
use e2e::request::{ADMIN, SHOP};
use e2e::{Environment, HttpRequest, Method, Operation, Order, Request, orders};

/// Holds and locks that last longer than a test.
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

async fn a_claim_takes_a_code_from_stock_to_the_wallet(env: &Environment) {
    let coupon = env.stocked(2, long()).await;
    let claimed = env.accepted("ann", Operation::claim(&coupon.id)).await;
    let code = claimed["code"].as_str().unwrap();
    assert_eq!((&claimed["claim"]["state"], &claimed["claim"]["code"]), (&json!("CLAIMED"), &json!(code)));
    assert_eq!(claimed["claim"]["coupon_id"], *coupon.id);
    assert_eq!(seconds(&claimed["claim"]["claimed_at"], &claimed["claim"]["hold_until"]), 600);
    assert_eq!((&claimed["claim"]["lock_until"], &claimed["redemption"]), (&Value::Null, &Value::Null));
    coupon.expect("ann", code, ("CLAIMED", "valid", [1, 1, 0, 0, 0])).await;
    let item = coupon.in_wallet("ann", code).await;
    assert_eq!(
        (&item["coupon_id"], &item["hold_until"]),
        (&json!(coupon.id), &claimed["claim"]["hold_until"])
    );
    coupon.expect("bob", code, ("-", "code_unknown", [1, 1, 0, 0, 0])).await;
}

async fn a_claim_of_a_named_code_takes_that_code_in_any_spelling(env: &Environment) {
    let coupon = env.stocked(5, long()).await;
    let wanted = coupon.code(4).await;
    coupon.expect("ann", &wanted, ("-", "not_claimed", [5, 0, 0, 0, 0])).await;
    let spelled = wanted.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
    let claimed = env.accepted("ann", Operation::claim_code(&coupon.id, &spelled)).await;
    assert_eq!((&claimed["code"], &claimed["claim"]["state"]), (&json!(wanted), &json!("CLAIMED")));
    coupon.expect("ann", &wanted, ("CLAIMED", "valid", [4, 1, 0, 0, 0])).await;
    // Other claims get the other codes.
    for user in ["bob", "carl", "dora", "eve"] {
        assert_ne!(coupon.claim(user).await, wanted);
    }
    assert_eq!(coupon.counts().await, [0, 5, 0, 0, 0]);
}

async fn a_lock_without_an_order_lets_any_order_redeem_the_code(env: &Environment) {
    let coupon = env.stocked(2, long()).await;
    let code = coupon.claim("ann").await;
    let locked = env.accepted("ann", Operation::lock(&code)).await;
    assert_eq!((&locked["claim"]["state"], &locked["code"]), (&json!("LOCKED"), &json!(code)));
    assert_eq!(seconds(&locked["decided_at"], &locked["claim"]["lock_until"]), 300);
    assert_eq!(seconds(&locked["claim"]["claimed_at"], &locked["claim"]["hold_until"]), 600, "as it was");
    coupon.expect("ann", &code, ("LOCKED", "valid", [1, 0, 1, 0, 0])).await;
    assert_eq!(coupon.in_wallet("ann", &code).await["lock_until"], locked["claim"]["lock_until"]);
    coupon.expect("bob", &code, ("-", "code_unknown", [1, 0, 1, 0, 0])).await;
    env.accepted("ann", orders::redeem(&code, "any order")).await;
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [1, 0, 0, 1, 0])).await;
}

async fn a_lock_with_an_order_lets_only_that_order_redeem_the_code(env: &Environment) {
    let coupon = env.stocked(1, long()).await;
    let code = coupon.claim("ann").await;
    env.accepted("ann", Operation::lock_for(&code, "order-1")).await;
    let item = coupon.in_wallet("ann", &code).await;
    assert_eq!((&item["state"], &item["order_id"]), (&json!("LOCKED"), &json!("order-1")));
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-2")).await, "already_locked");
    coupon.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    let redeemed = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    assert_eq!(redeemed["redemption"]["order_id"], "order-1");
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
}

async fn an_unlock_takes_a_locked_code_to_claimed_and_it_may_be_locked_again(env: &Environment) {
    let coupon = env.stocked(1, long()).await;
    let code = coupon.claim("ann").await;
    let locked = env.accepted("ann", Operation::lock_for(&code, "order-1")).await;
    let released = env.accepted("ann", Operation::unlock(&code)).await;
    assert_eq!(
        (&released["claim"]["state"], &released["claim"]["lock_until"]),
        (&json!("CLAIMED"), &Value::Null)
    );
    assert_eq!(released["claim"]["hold_until"], locked["claim"]["hold_until"]);
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    assert_eq!(coupon.in_wallet("ann", &code).await["order_id"], Value::Null);
    // For another order, after the first lock was released.
    env.accepted("ann", Operation::lock_for(&code, "order-2")).await;
    env.accepted("ann", orders::redeem(&code, "order-2")).await;
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
}

async fn a_returned_code_is_stock_again_and_no_longer_counts_for_its_user(env: &Environment) {
    let coupon = env.stocked(1, json!({"hold_seconds": 600})).await;
    let code = coupon.claim("ann").await;
    let returned = env.accepted("ann", Operation::return_code(&code)).await;
    assert_eq!((&returned["claim"]["state"], &returned["code"]), (&json!("RETURNED"), &json!(code)));
    assert_eq!(returned["claim"]["hold_until"], Value::Null);
    coupon.expect("ann", &code, ("-", "not_claimed", [1, 0, 0, 0, 0])).await;
    // Ann may have one code and has none: she gets the same code again. Then another user gets it.
    assert_eq!(coupon.claim("ann").await, code);
    env.accepted("ann", Operation::return_code(&code)).await;
    assert_eq!(coupon.claim("bob").await, code);
    coupon.expect("bob", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    coupon.expect("ann", &code, ("-", "code_unknown", [0, 1, 0, 0, 0])).await;
    let kinds: Vec<String> = coupon.events().await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "restocked").count(), 3, "{kinds:?}");
}

async fn a_claimed_code_is_redeemed_where_no_lock_is_required(env: &Environment) {
    let coupon = env.stocked(2, long()).await;
    let code = coupon.claim("ann").await;
    let redeemed =
        env.accepted("ann", Operation::redeem(&code, Order::new("order-1", "129.90", "EUR"))).await;
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
    assert_eq!(redemption["redemption_id"].as_str(), own_id, "the id of the request that made it");
    assert_eq!(
        (&redeemed["claim"]["state"], &redeemed["claim"]["hold_until"]),
        (&json!("REDEEMED"), &Value::Null)
    );
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [1, 0, 0, 1, 0])).await;
    let item = coupon.in_wallet("ann", &code).await;
    assert_eq!((&item["order_id"], &item["hold_until"]), (&json!("order-1"), &Value::Null));
}

async fn a_locked_code_is_redeemed_where_a_lock_is_required(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({"requires_lock": true, "lock_seconds": 300}))).await;
    let code = coupon.claim("ann").await;
    coupon.expect("ann", &code, ("CLAIMED", "not_locked", [0, 1, 0, 0, 0])).await;
    env.accepted("ann", Operation::lock(&code)).await;
    coupon.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    let redeemed = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    assert_eq!(
        (&redeemed["claim"]["state"], &redeemed["claim"]["lock_until"]),
        (&json!("REDEEMED"), &Value::Null)
    );
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
}

async fn a_redemption_is_rolled_back_once_and_its_user_has_the_code_again_with_a_new_hold(env: &Environment) {
    let coupon = env.stocked(1, long()).await;
    let code = coupon.claim("ann").await;
    env.accepted("ann", Operation::lock_for(&code, "order-1")).await;
    let redeemed = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    let rolled_back = env.accepted(SHOP, Operation::roll_back(id)).await;
    assert_eq!((&rolled_back["claim"]["state"], &rolled_back["code"]), (&json!("CLAIMED"), &json!(code)));
    assert_eq!(rolled_back["redemption"], redeemed["redemption"], "the whole redemption, as it was");
    assert_eq!(seconds(&rolled_back["decided_at"], &rolled_back["claim"]["hold_until"]), 600, "a new hold");
    assert_eq!(rolled_back["claim"]["lock_until"], Value::Null);
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    let item = coupon.in_wallet("ann", &code).await;
    assert_eq!((&item["hold_until"], &item["order_id"]), (&rolled_back["claim"]["hold_until"], &Value::Null));

    assert_eq!(env.rejected(SHOP, Operation::roll_back(id)).await, "already_rolled_back");
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    // The cancelled order may be redeemed again. The redemption that was rolled back stays so.
    let again = env.accepted("ann", orders::redeem(&code, "order-1")).await;
    assert_ne!(again["redemption"]["redemption_id"], redeemed["redemption"]["redemption_id"]);
    assert_eq!(env.rejected(SHOP, Operation::roll_back(id)).await, "already_rolled_back");
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
}

async fn a_revoked_available_code_leaves_the_stock(env: &Environment) {
    let coupon = env.stocked(3, long()).await;
    let (first, last) = (coupon.code(1).await, coupon.code(3).await);
    // The next code to be given, and another one.
    for (code, left) in [(&first, 2), (&last, 1)] {
        let revoked = env.accepted(ADMIN, Operation::revoke(code)).await;
        assert_eq!((&revoked["claim"]["state"], &revoked["code"]), (&json!("REVOKED"), &json!(code)));
        assert_eq!(revoked["claim"]["claimed_at"], Value::Null, "it was never claimed");
        coupon.expect("ann", code, ("-", "code_revoked", [left, 0, 0, 0, 3 - left])).await;
    }
    assert_eq!(env.rejected("ann", Operation::claim_code(&coupon.id, &last)).await, "code_revoked");
    assert_eq!(coupon.claim("ann").await, coupon.code(2).await);
    let key = Request::new("bob", Operation::claim(&coupon.id)).key("k");
    assert_eq!(env.submit(key).await.json()["reason"], "sold_out");
    assert_eq!(coupon.counts().await, [0, 1, 0, 0, 2]);
}

async fn a_revoked_claimed_code_cannot_be_used_by_its_user_or_claimed_by_another(env: &Environment) {
    let coupon = env.stocked(2, long()).await;
    let code = coupon.claim("ann").await;
    let revoked = env.accepted(ADMIN, Operation::revoke(&code)).await;
    assert_eq!(
        (&revoked["claim"]["state"], &revoked["claim"]["hold_until"]),
        (&json!("REVOKED"), &Value::Null)
    );
    coupon.expect("ann", &code, ("REVOKED", "code_revoked", [1, 0, 0, 0, 1])).await;
    assert_eq!(env.rejected("ann", orders::redeem(&code, "order-1")).await, "code_revoked");
    assert_eq!(env.rejected("bob", Operation::claim_code(&coupon.id, &code)).await, "code_revoked");
    assert_ne!(coupon.claim("bob").await, code);
}

async fn a_revoked_locked_code_cannot_be_used_and_its_lock_never_lapses(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({"hold_seconds": 4, "lock_seconds": 4}))).await;
    let (revoked, other) = (coupon.claim("ann").await, coupon.claim("bob").await);
    env.accepted("ann", Operation::lock_for(&revoked, "order-1")).await;
    let outcome = env.accepted(ADMIN, Operation::revoke(&revoked)).await;
    assert_eq!(
        (&outcome["claim"]["state"], &outcome["claim"]["lock_until"]),
        (&json!("REVOKED"), &Value::Null)
    );
    assert_eq!(coupon.in_wallet("ann", &revoked).await["state"], "REVOKED");
    assert_eq!(coupon.validation("ann", &revoked).await, "code_revoked");
    assert_eq!(env.rejected("ann", orders::redeem(&revoked, "order-1")).await, "code_revoked");
    // Another lock of the same age lapses, and the hold with it.
    env.decide(Request::new("bob", Operation::lock(&other))).await;
    coupon.until_counts([1, 0, 0, 0, 1]).await;
    assert_eq!(coupon.events_of(&revoked).await, Vec::<String>::new());
}

async fn a_service_acts_for_the_user_it_names_and_a_user_only_for_itself(env: &Environment) {
    let coupon = env.stocked(1, long()).await;
    let code = coupon.claim("ann").await;
    let shop = env.tokens.issue(&env.user(SHOP), "service").unwrap();
    let ann = env.user("ann");
    let send = async |method: Method, path: String, body: Option<Value>, token: &str| {
        let body = body.map(|body| body.to_string().into());
        let request = HttpRequest { body, ..HttpRequest::new(method, path).token(token) };
        env.send_http(1, &request).await.unwrap()
    };
    let lock = format!("/v1/codes/{code}/lock?wait=10");
    let locked = send(Method::POST, lock.clone(), Some(json!({"user_id": ann})), &shop).await;
    assert_eq!(locked.json()["claim"]["state"], "LOCKED", "{}", locked.body);
    coupon.expect("ann", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    let unlocked = send(Method::DELETE, format!("{lock}&user_id={ann}"), None, &shop).await;
    assert_eq!(unlocked.json()["claim"]["state"], "CLAIMED", "{}", unlocked.body);
    let order = json!({"order_id": "o", "order_amount": "1.00", "currency": "EUR", "user_id": ann});
    let redeem = format!("/v1/codes/{code}/redemptions?wait=10");
    let redeemed = send(Method::POST, redeem.clone(), Some(order.clone()), &shop).await;
    assert_eq!(redeemed.json()["claim"]["state"], "REDEEMED", "{}", redeemed.body);
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
    // The wallet of the user, as the service sees it.
    let wallet = env.get(0, &format!("/v1/users/{ann}/codes"), &shop).await.json();
    assert_eq!(wallet["items"][0]["state"], "REDEEMED", "{wallet}");

    let bob = env.token("bob");
    let return_path = format!("/v1/codes/{code}/claim?user_id={ann}");
    let id = redeemed.json()["redemption"]["redemption_id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        (Method::POST, lock.clone(), Some(json!({"user_id": ann}))),
        (Method::DELETE, format!("{lock}&user_id={ann}"), None),
        (Method::POST, redeem, Some(order)),
        (Method::DELETE, return_path, None),
        (Method::DELETE, format!("/v1/redemptions/{id}"), None),
        (Method::DELETE, format!("/v1/codes/{code}"), None),
        (Method::GET, format!("/v1/users/{ann}/codes"), None),
        (Method::GET, format!("/v1/users/{ann}/requests"), None),
    ] {
        let rejected = send(method.clone(), path.clone(), body, &bob).await;
        assert_eq!(rejected.status, 403, "{method} {path}: {}", rejected.body);
    }
    coupon.expect("ann", &code, ("REDEEMED", "already_redeemed", [0, 0, 0, 1, 0])).await;
}

e2e::tests![
    a_claim_takes_a_code_from_stock_to_the_wallet,
    a_claim_of_a_named_code_takes_that_code_in_any_spelling,
    a_lock_without_an_order_lets_any_order_redeem_the_code,
    a_lock_with_an_order_lets_only_that_order_redeem_the_code,
    an_unlock_takes_a_locked_code_to_claimed_and_it_may_be_locked_again,
    a_returned_code_is_stock_again_and_no_longer_counts_for_its_user,
    a_claimed_code_is_redeemed_where_no_lock_is_required,
    a_locked_code_is_redeemed_where_a_lock_is_required,
    a_redemption_is_rolled_back_once_and_its_user_has_the_code_again_with_a_new_hold,
    a_revoked_available_code_leaves_the_stock,
    a_revoked_claimed_code_cannot_be_used_by_its_user_or_claimed_by_another,
    a_revoked_locked_code_cannot_be_used_and_its_lock_never_lapses,
    a_service_acts_for_the_user_it_names_and_a_user_only_for_itself,
];
