//! Reads from Postgres: a user's codes and requests, and the validation of a code.

use std::collections::HashSet;
use std::time::Duration;

use ingest_api::auth::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Client, now};

fn unique(name: &str) -> String {
    format!("{name}-{}", rand::random::<u64>())
}

/// Every item of a list, page by page.
async fn pages(client: &Client, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = client.get(&format!("{path}?limit={limit}{after}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let found = page.body["items"].as_array().expect("items").clone();
        assert!(found.len() <= limit);
        items.extend(found);
        cursor = page.body["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return items;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_lists_every_code_with_its_state_newest_first() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let many = json!({"limits": {"claims_per_user": null}});
    let coupon = admin.coupon_like(&many, 10).await;
    let user = unique("ann");
    let ann = Client::new(&user, Role::User, 0).await;
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(ann.claimed(&coupon).await);
    }
    let path = |n: usize, rest: &str| format!("/v1/codes/{}{rest}", codes[n]);
    ann.decided(Method::DELETE, &path(0, "/claim"), None).await;
    ann.decided(Method::POST, &path(1, "/lock"), Some(&json!({"order_id": "o-1"}))).await;
    let order = json!({"order_id": "o-2", "order_amount": "9", "currency": "USD"});
    ann.decided(Method::POST, &path(2, "/redemptions"), Some(&order)).await;
    admin.decided(Method::DELETE, &path(3, ""), None).await;

    let wallet = pages(&ann, "/v1/users/me/codes", 3).await;
    let shown: Vec<_> =
        wallet.iter().map(|item| (&item["code"], &item["state"], &item["order_id"])).collect();
    let null = Value::Null;
    let wanted = [
        (&json!(codes[4]), &json!("CLAIMED"), &null),
        (&json!(codes[3]), &json!("REVOKED"), &null),
        (&json!(codes[2]), &json!("REDEEMED"), &json!("o-2")),
        (&json!(codes[1]), &json!("LOCKED"), &json!("o-1")),
    ];
    assert_eq!(shown, wanted);
    assert!(wallet[3]["lock_until"].is_string() && wallet[0]["claimed_at"].is_string());
    assert_eq!(wallet[0]["coupon_id"], json!(coupon));

    // Another user's list: visible to a service, not to a user.
    let own = format!("/v1/users/{user}/codes");
    let shop = Client::new("shop", Role::Service, 1).await;
    assert_eq!(pages(&shop, &own, 100).await, wallet);
    assert_eq!(pages(&ann, &own, 1).await, wallet);
    let bob = Client::new("bob", Role::User, 0).await;
    assert_eq!(bob.get(&own).await.problem(), (403, "forbidden"));
    assert_eq!(admin.get(&own).await.problem(), (403, "forbidden"));
    assert_eq!(
        pages(&bob, "/v1/users/me/codes", 100).await.iter().filter(|i| i["coupon_id"] == coupon).count(),
        0
    );
    for query in ["limit=0", "limit=101", "limit=x", "cursor=x", "limit=1&limit=2"] {
        assert_eq!(ann.get(&format!("{own}?{query}")).await.problem(), (422, "invalid"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_of_a_coupon_whose_window_has_ended_are_expired_and_still_add_up() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let over = now() + 12;
    let expires_at = chrono::DateTime::from_timestamp(over, 0).expect("a time").to_rfc3339();
    let window = json!({"expires_at": expires_at, "limits": {"claims_per_user": null}});
    let coupon = admin.coupon_like(&window, 5).await;
    let ann = Client::new(&unique("ann"), Role::User, 0).await;
    let codes = [ann.claimed(&coupon).await, ann.claimed(&coupon).await, ann.claimed(&coupon).await];
    let lock = format!("/v1/codes/{}/lock", codes[0]);
    ann.decided(Method::POST, &lock, Some(&json!({}))).await;
    let redeem = format!("/v1/codes/{}/redemptions", codes[1]);
    let order = json!({"order_id": "o", "order_amount": "9", "currency": "USD"});
    let redeemed = ann.decided(Method::POST, &redeem, Some(&order)).await;
    assert_eq!(redeemed["status"], "accepted", "{redeemed}");
    while now() <= over {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let counts = admin.counts(&coupon).await;
    let wanted = json!({"generated": 5, "available": 0, "claimed": 0, "locked": 0, "redeemed": 1, "expired": 4,
        "revoked": 0});
    assert_eq!(counts, wanted);
    let states: Vec<_> =
        pages(&ann, "/v1/users/me/codes", 100).await.iter().map(|item| item["state"].clone()).collect();
    assert_eq!(states, ["EXPIRED", "REDEEMED", "EXPIRED"]);
    let valid = ann.get(&format!("/v1/codes/{}/validation", codes[2])).await;
    assert_eq!((&valid.body["valid"], &valid.body["reason"]), (&false.into(), &"code_expired".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_has_the_reasons_and_every_entry_can_be_read_by_its_id() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(5).await;
    let user = unique("ann");
    let ann = Client::new(&user, Role::User, 0).await;
    let claims = format!("/v1/coupons/{coupon}/claims?wait=20");
    let mut outcomes = vec![ann.post(&claims, &json!({})).await.body];
    let code = outcomes[0]["code"].as_str().expect("a code").to_owned();
    outcomes.push(ann.post_with_key(&claims, &json!({}), "k").await.body);
    assert_eq!(outcomes[1]["reason"], "user_limit_reached");
    let lock = format!("/v1/codes/{code}/lock");
    outcomes.push(ann.decided(Method::POST, &lock, Some(&json!({}))).await);
    let redeem = format!("/v1/codes/{code}/redemptions");
    let order = json!({"order_id": "o", "order_amount": "10", "currency": "EUR"});
    outcomes.push(ann.decided(Method::POST, &redeem, Some(&order)).await);
    outcomes.push(ann.decided(Method::POST, &redeem, Some(&order)).await);
    outcomes.push(ann.decided(Method::POST, "/v1/codes/NEVERMADE/lock", Some(&json!({}))).await);
    outcomes.reverse();

    let canonical = |item: &Value| {
        let mut item = item.clone();
        let id = item["request_id"].take();
        (id.as_str().and_then(|id| id.split('.').next()).map(str::to_owned), item)
    };
    let history = pages(&ann, "/v1/users/me/requests", 2).await;
    let shown: Vec<_> = history.iter().map(canonical).collect();
    assert_eq!(shown, outcomes.iter().map(canonical).collect::<Vec<_>>());
    for item in &history {
        let id = item["request_id"].as_str().expect("an id");
        assert_eq!(ann.outcome(id).await, *item);
    }

    let path = format!("/v1/users/{user}/requests");
    for client in [&admin, &Client::new("shop", Role::Service, 0).await] {
        assert_eq!(pages(client, &path, 100).await, history);
    }
    let bob = Client::new("bob", Role::User, 0).await;
    assert_eq!(bob.get(&path).await.problem(), (403, "forbidden"));
    assert_eq!(admin.get("/v1/users/a%0Ab/requests").await.problem(), (422, "invalid"));
    assert_eq!(admin.get(&format!("/v1/users/{}/requests", "x".repeat(257))).await.problem().0, 422);
    assert_eq!(admin.get("/v1/users/%ff/requests").await.problem(), (400, "unreadable"));
    let empty = admin.get(&format!("/v1/users/{}/requests", unique("new"))).await;
    assert_eq!(empty.body, json!({"items": [], "next_cursor": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_returns_what_a_redeem_would_and_changes_nothing() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let body = json!({"requires_lock": true, "discount": {"type": "FIXED_AMOUNT", "value": "5.00",
        "currency": "EUR", "minimum_order": "20.00"}});
    let coupon = admin.coupon_like(&body, 2).await;
    let user = unique("ann");
    let ann = Client::new(&user, Role::User, 0).await;
    let code = ann.claimed(&coupon).await;
    let path = format!("/v1/codes/{}/validation", code.to_lowercase());
    let not_locked = json!({"valid": false, "reason": "not_locked", "code": code, "coupon_id": coupon});
    assert_eq!(ann.get(&path).await.body, not_locked);
    ann.decided(Method::POST, &format!("/v1/codes/{code}/lock"), Some(&json!({}))).await;
    let before = admin.counts(&coupon).await;
    let valid = ann.get(&format!("{path}?order_amount=30&currency=EUR")).await;
    let wanted = json!({"valid": true, "code": code, "coupon_id": coupon, "order_amount": "30.00",
        "discount": "5.00", "final_price": "25.00", "currency": "EUR"});
    assert_eq!((valid.status.as_u16(), valid.body), (200, wanted.clone()));
    let small = ann.get(&format!("{path}?order_amount=19.99")).await;
    assert_eq!(small.body["reason"], "minimum_order_not_met");
    let dollars = ann.get(&format!("{path}?order_amount=30&currency=USD")).await;
    assert_eq!(dollars.body["reason"], "currency_mismatch");
    assert_eq!(admin.counts(&coupon).await, before);
    let shop = Client::new("shop", Role::Service, 1).await;
    let acted = shop.get(&format!("{path}?order_amount=30&currency=EUR&user_id={user}")).await;
    assert_eq!(acted.body, wanted);

    // Another user's code, and an unknown code.
    let bob = Client::new("bob", Role::User, 0).await;
    let [others, unknown] = [bob.get(&path).await, bob.get("/v1/codes/NEVER-MADE/validation").await];
    let key = code.replace('-', "");
    assert_eq!(others.body, json!({"valid": false, "reason": "code_unknown", "code": key}));
    assert_eq!(unknown.body, json!({"valid": false, "reason": "code_unknown", "code": "NEVERMADE"}));
    assert_eq!(others.status, unknown.status);
    let free = bob.get(&format!("/v1/codes/{}/validation", admin.code_of(&coupon).await)).await;
    assert_eq!(free.body["reason"], "not_claimed");

    for query in
        ["order_amount=-1", "order_amount=1e3", "order_amount=30&currency=eur", "currency=EUR&currency=USD"]
    {
        assert_eq!(ann.get(&format!("{path}?{query}")).await.problem(), (422, "invalid"), "{query}");
    }
    assert_eq!(ann.get("/v1/codes/A_B/validation").await.problem(), (422, "invalid"));
    assert_eq!(ann.get(&format!("{path}?user_id=bob")).await.problem(), (403, "forbidden"));
    assert_eq!(shop.get(&path).await.problem(), (422, "invalid"));
    assert_eq!(admin.get(&path).await.problem(), (403, "forbidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_cursors_gets_every_entry_once_whatever_is_added_meanwhile() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon_like(&json!({"limits": {"claims_per_user": null}}), 40).await;
    let ann = Client::new(&unique("ann"), Role::User, 0).await;
    // Concurrently, so that many have the same time.
    let all = futures::future::join_all((0..25).map(|_| ann.claimed(&coupon))).await;
    let first = ann.get("/v1/users/me/codes?limit=10").await.body;
    ann.claimed(&coupon).await;
    let mut seen: Vec<Value> = first["items"].as_array().expect("items").clone();
    let mut cursor = first["next_cursor"].as_str().map(str::to_owned);
    while let Some(after) = cursor {
        let page = ann.get(&format!("/v1/users/me/codes?limit=10&cursor={after}")).await.body;
        seen.extend(page["items"].as_array().expect("items").clone());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
    }
    let codes: HashSet<_> = seen.iter().filter_map(|item| item["code"].as_str().map(str::to_owned)).collect();
    assert_eq!((seen.len(), codes), (25, all.into_iter().collect()));
}
