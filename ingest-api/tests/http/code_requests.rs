//! Requests about a code over HTTP: claim, lock, release, redeem, roll back, return, revoke.

use std::time::Duration;

use ingest_api::auth::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Client, connection};

fn euros() -> Value {
    json!({"discount": {"type": "PERCENTAGE", "value": "10.00", "currency": "EUR", "minimum_order": "20.00"}})
}

fn order(id: &str, amount: &str) -> Value {
    json!({"order_id": id, "order_amount": amount, "currency": "EUR"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_claimed_locked_redeemed_and_rolled_back() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon_like(&euros(), 2).await;
    let ann = Client::new("ann", Role::User, 0).await;
    let code = ann.claimed(&coupon).await;
    // The spelling makes no difference.
    let written = code.to_lowercase().replace('-', "%20");
    let (lock, redeem) = (format!("/v1/codes/{written}/lock"), format!("/v1/codes/{written}/redemptions"));

    let locked = ann.decided(Method::POST, &lock, Some(&json!({"order_id": "o-1"}))).await;
    assert_eq!((&locked["kind"], &locked["claim"]["state"]), (&"lock".into(), &"LOCKED".into()), "{locked}");
    assert_eq!((&locked["code"], &locked["coupon_id"]), (&json!(code), &json!(coupon)));
    assert!(locked["claim"]["lock_until"].is_string());
    assert_eq!(admin.counts(&coupon).await["locked"], 1);
    assert_eq!(ann.decided(Method::POST, &lock, Some(&json!({}))).await["reason"], "already_locked");
    let released = ann.decided(Method::DELETE, &lock, None).await;
    assert_eq!((&released["kind"], &released["claim"]["state"]), (&"unlock".into(), &"CLAIMED".into()));
    assert_eq!(ann.decided(Method::DELETE, &lock, None).await["reason"], "not_locked");

    ann.decided(Method::POST, &lock, Some(&json!({"order_id": "o-1"}))).await;
    let other = ann.decided(Method::POST, &redeem, Some(&order("o-2", "129.90"))).await;
    assert_eq!(other["reason"], "already_locked", "the lock named another order");
    let small = ann.decided(Method::POST, &redeem, Some(&order("o-1", "19.99"))).await;
    assert_eq!(small["reason"], "minimum_order_not_met");
    let redeemed = ann.decided(Method::POST, &redeem, Some(&order("o-1", "129.9"))).await;
    let redemption = redeemed["redemption"].clone();
    assert_eq!((&redeemed["kind"], &redeemed["claim"]["state"]), (&"redeem".into(), &"REDEEMED".into()));
    for (field, value) in [
        ("order_id", "o-1"),
        ("order_amount", "129.90"),
        ("discount", "12.99"),
        ("final_price", "116.91"),
        ("currency", "EUR"),
        ("code", code.as_str()),
    ] {
        assert_eq!(redemption[field], value, "{redemption}");
    }
    assert_eq!(admin.counts(&coupon).await["redeemed"], 1);
    let again = ann.decided(Method::POST, &redeem, Some(&order("o-1", "129.90"))).await;
    assert_eq!(again["reason"], "order_already_used");

    let path = format!("/v1/redemptions/{}", redemption["redemption_id"].as_str().expect("an id"));
    let shop = Client::new("shop", Role::Service, 1).await;
    let undone = shop.decided(Method::DELETE, &path, None).await;
    assert_eq!((&undone["kind"], &undone["claim"]["state"]), (&"rollback".into(), &"CLAIMED".into()));
    assert_eq!(undone["redemption"], redemption, "as it was");
    assert_eq!(admin.decided(Method::DELETE, &path, None).await["reason"], "already_rolled_back");
    assert_eq!(admin.counts(&coupon).await["claimed"], 1);

    let claim = format!("/v1/codes/{code}/claim");
    let returned = ann.decided(Method::DELETE, &claim, None).await;
    assert_eq!((&returned["kind"], &returned["claim"]["state"]), (&"return".into(), &"RETURNED".into()));
    assert_eq!(ann.decided(Method::DELETE, &claim, None).await["reason"], "not_claimed");
    assert_eq!(admin.counts(&coupon).await["available"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_about_a_code_waits_for_a_slow_database_instead_of_being_rejected() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(1).await;
    let code = Client::new("ann", Role::User, 0).await.claimed(&coupon).await;
    // The other instance has not looked the code up yet, and cannot do so for longer than its shortest timeout.
    let mut blocker = connection().await;
    let lock = "begin; lock table stampede.codes in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut blocker).await.expect("locked");
    let ann = Client::new("ann", Role::User, 1).await;
    let (path, body) = (format!("/v1/codes/{code}/lock"), json!({}));
    let (locked, ()) = tokio::join!(ann.decided(Method::POST, &path, Some(&body)), async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        sqlx::raw_sql("commit").execute(&mut blocker).await.expect("unlocked");
    });
    assert_eq!(locked["claim"]["state"], "LOCKED", "{locked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_code_is_claimed_by_one_user_and_a_revoked_one_by_none() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(2).await;
    let [ann, bob] = [Client::new("ann", Role::User, 0).await, Client::new("bob", Role::User, 1).await];
    let claims = format!("/v1/coupons/{coupon}/claims");
    let code = ann.claimed(&coupon).await;
    let body = json!({"code": format!(" {} ", code.to_lowercase())});
    assert_eq!(bob.decided(Method::POST, &claims, Some(&body)).await["reason"], "code_taken");
    ann.decided(Method::DELETE, &format!("/v1/codes/{code}/claim"), None).await;
    let named = bob.decided(Method::POST, &claims, Some(&body)).await;
    assert_eq!((&named["status"], &named["code"]), (&"accepted".into(), &json!(code)));
    // A code of another coupon is unknown to this one.
    let elsewhere = format!("/v1/coupons/{}/claims", admin.coupon(1).await);
    let unknown = ann.decided(Method::POST, &elsewhere, Some(&body)).await;
    assert_eq!((&unknown["reason"], unknown["coupon_id"].is_string()), (&"code_unknown".into(), true));

    let revoked = admin.decided(Method::DELETE, &format!("/v1/codes/{code}"), None).await;
    assert_eq!((&revoked["kind"], &revoked["claim"]["state"]), (&"revoke".into(), &"REVOKED".into()));
    // The request is the admin's own.
    let id = revoked["request_id"].as_str().expect("an id");
    assert_eq!(admin.outcome(id).await, revoked);
    assert_eq!(bob.get(&format!("/v1/requests/{id}")).await.problem().0, 404);
    let lock = format!("/v1/codes/{code}/lock");
    assert_eq!(bob.decided(Method::POST, &lock, Some(&json!({}))).await["reason"], "code_revoked");
    assert_eq!(ann.decided(Method::POST, &claims, Some(&body)).await["reason"], "code_revoked");
    let again = admin.decided(Method::DELETE, &format!("/v1/codes/{code}"), None).await;
    assert_eq!(again["reason"], "code_revoked");
    let counts = admin.counts(&coupon).await;
    assert_eq!((&counts["revoked"], &counts["available"]), (&1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_acts_for_the_user_that_it_names() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon_like(&euros(), 1).await;
    let shop = Client::new("shop", Role::Service, 0).await;
    let user = "käthe & co";
    let claims = format!("/v1/coupons/{coupon}/claims");
    let won = shop.decided(Method::POST, &claims, Some(&json!({"user_id": user}))).await;
    let code = won["code"].as_str().expect("a code");
    let on_delete = "user_id=k%C3%A4the%20%26%20co";
    let lock = format!("/v1/codes/{code}/lock");
    let locked = shop.decided(Method::POST, &lock, Some(&json!({"user_id": user}))).await;
    assert_eq!(locked["status"], "accepted", "{locked}");
    let unlocked = shop.decided(Method::DELETE, &format!("{lock}?{on_delete}"), None).await;
    assert_eq!(unlocked["status"], "accepted", "{unlocked}");
    let mut body = order("o", "50");
    body["user_id"] = user.into();
    let redeemed = shop.decided(Method::POST, &format!("/v1/codes/{code}/redemptions"), Some(&body)).await;
    let redemption = redeemed["redemption"]["redemption_id"].as_str().expect("an id");
    // The user that the service names can read the outcome too.
    let path = format!("/v1/redemptions/{redemption}?{on_delete}");
    let undone = shop.decided(Method::DELETE, &path, None).await;
    assert_eq!(undone["status"], "accepted", "{undone}");
    let kaethe = Client::new(user, Role::User, 1).await;
    assert_eq!(kaethe.outcome(undone["request_id"].as_str().expect("an id")).await, undone);
    let returned = shop.decided(Method::DELETE, &format!("/v1/codes/{code}/claim?{on_delete}"), None).await;
    assert_eq!(returned["claim"]["state"], "RETURNED", "{returned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_code_is_redeemed_by_each_user_without_a_claim() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let mut shared = euros();
    shared["limits"] = json!({"redemptions_per_code": 2, "redemptions_per_user": 1});
    let coupon = admin.coupon_like(&shared, 1).await;
    let code = admin.code_of(&coupon).await;
    let redeem = format!("/v1/codes/{code}/redemptions");
    let [ann, bob, eve] = [
        Client::new("ann", Role::User, 0).await,
        Client::new("bob", Role::User, 1).await,
        Client::new("eve", Role::User, 0).await,
    ];
    let first = ann.decided(Method::POST, &redeem, Some(&order("o-1", "20.00"))).await;
    assert_eq!((&first["status"], &first["claim"]), (&"accepted".into(), &Value::Null), "{first}");
    assert_eq!(first["redemption"]["final_price"], "18.00");
    let twice = ann.decided(Method::POST, &redeem, Some(&order("o-2", "20.00"))).await;
    assert_eq!(twice["reason"], "usage_limit_reached");
    assert_eq!(bob.decided(Method::POST, &redeem, Some(&order("o-3", "20.00"))).await["status"], "accepted");
    let late = eve.decided(Method::POST, &redeem, Some(&order("o-4", "20.00"))).await;
    assert_eq!(late["reason"], "usage_limit_reached");
    let lock = eve.decided(Method::POST, &format!("/v1/codes/{code}/lock"), Some(&json!({}))).await;
    assert_eq!(lock["reason"], "unprocessable");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_code_looks_like_an_unknown_code_on_every_route() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon_like(&euros(), 1).await;
    let code = Client::new("ann", Role::User, 0).await.claimed(&coupon).await;
    let [bob, shop] = [Client::new("bob", Role::User, 0).await, Client::new("shop", Role::Service, 0).await];
    let outcome_of = async |client: &Client, method: Method, path: String, body: Option<Value>| {
        let mut outcome = client.decided(method, &path, body.as_ref()).await;
        for field in ["request_id", "decided_at"] {
            assert!(outcome[field].take().is_string());
        }
        outcome
    };
    for (method, name, body) in [
        (Method::POST, "lock", Some(json!({}))),
        (Method::DELETE, "lock", None),
        (Method::DELETE, "claim", None),
        (Method::POST, "redemptions", Some(order("o", "50.00"))),
    ] {
        let others = outcome_of(&bob, method.clone(), format!("/v1/codes/{code}/{name}"), body.clone()).await;
        let unknown =
            outcome_of(&bob, method.clone(), format!("/v1/codes/NEVERMADE/{name}"), body.clone()).await;
        assert_eq!(others, unknown, "{method} {name}");
        assert_eq!((&others["reason"], &others["coupon_id"]), (&"code_unknown".into(), &Value::Null));
        // A service that acts for bob gets the same outcome.
        let (path, body) = match body {
            Some(mut body) => {
                body["user_id"] = "bob".into();
                (format!("/v1/codes/{code}/{name}"), Some(body))
            }
            None => (format!("/v1/codes/{code}/{name}?user_id=bob"), None),
        };
        assert_eq!(outcome_of(&shop, method, path, body).await, others);
    }
    let revoked = outcome_of(&admin, Method::DELETE, "/v1/codes/NEVERMADE".to_owned(), None).await;
    assert_eq!((&revoked["reason"], &revoked["coupon_id"]), (&"code_unknown".into(), &Value::Null));
    let path = format!("/v1/redemptions/{}", "A".repeat(22));
    let undone = outcome_of(&admin, Method::DELETE, path, None).await;
    assert_eq!((&undone["reason"], &undone["coupon_id"]), (&"redemption_unknown".into(), &Value::Null));
}
