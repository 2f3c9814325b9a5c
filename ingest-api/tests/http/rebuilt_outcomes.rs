//! An outcome is the same from either source: its response event, or the rows, from which an instance rebuilds it that
//! has not consumed the event.

use std::time::Duration;

use ingest_api::auth::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Client, another_instance};

fn order(id: &str) -> Value {
    json!({"order_id": id, "order_amount": "50.5", "currency": "EUR"})
}

/// One request of every kind, accepted and rejected, in every form that its outcome can have.
async fn everything() -> Vec<(Client, Value)> {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let ann = Client::new("ann", Role::User, 0).await;
    let bob = Client::new("bob", Role::User, 0).await;
    let limits = json!({"claims_per_user": 9});
    let held =
        admin.coupon_like(&json!({"hold_seconds": 6, "lock_seconds": 60, "limits": limits.clone()}), 3).await;
    let plain = admin.coupon_like(&json!({"limits": limits}), 3).await;
    let shared = admin.coupon_like(&json!({"limits": {"redemptions_per_code": null}}), 1).await;
    let shared_code = admin.code_of(&shared).await;
    let mut outcomes = Vec::new();
    let mut send = async |client: &Client, method: Method, path: String, body: Option<Value>| {
        let outcome = client.decided(method, &path, body.as_ref()).await;
        outcomes.push((client.clone(), outcome.clone()));
        outcome
    };
    let text = |outcome: &Value, name: &str| outcome[name].as_str().unwrap_or_default().to_owned();

    // A hold, and a lock that ends after it: on release the code goes back to stock.
    let won = send(&ann, Method::POST, format!("/v1/coupons/{held}/claims"), Some(json!({}))).await;
    assert!(won["claim"]["hold_until"].is_string(), "{won}");
    let path = format!("/v1/codes/{}", text(&won, "code"));
    let locked = send(&ann, Method::POST, format!("{path}/lock"), Some(json!({"order_id": "o"}))).await;
    assert_eq!(locked["status"], "accepted", "{locked}");
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    let unlocked = send(&ann, Method::DELETE, format!("{path}/lock"), None).await;
    assert_eq!(unlocked["claim"]["state"], "RETURNED", "{unlocked}");
    let won = send(&ann, Method::POST, format!("/v1/coupons/{held}/claims"), Some(json!({}))).await;
    let path = format!("/v1/codes/{}", text(&won, "code"));
    let redeemed = send(&ann, Method::POST, format!("{path}/redemptions"), Some(order("held"))).await;
    let redemption = text(&redeemed["redemption"], "redemption_id");
    // A fresh hold.
    let undone = send(&admin, Method::DELETE, format!("/v1/redemptions/{redemption}"), None).await;
    assert!(undone["claim"]["hold_until"].is_string(), "{undone}");

    let won = send(&ann, Method::POST, format!("/v1/coupons/{plain}/claims"), Some(json!({}))).await;
    let path = format!("/v1/codes/{}", text(&won, "code"));
    send(&ann, Method::POST, format!("{path}/lock"), Some(json!({}))).await;
    send(&ann, Method::DELETE, format!("{path}/lock"), None).await;
    send(&ann, Method::DELETE, format!("{path}/lock"), None).await;
    send(&ann, Method::DELETE, format!("{path}/claim"), None).await;
    send(&ann, Method::DELETE, format!("{path}/claim"), None).await;
    let code = json!({"code": text(&won, "code")});
    let named = send(&ann, Method::POST, format!("/v1/coupons/{plain}/claims"), Some(code)).await;
    assert_eq!(named["status"], "accepted", "{named}");
    let code = json!({"code": text(&won, "code")});
    send(&bob, Method::POST, format!("/v1/coupons/{plain}/claims"), Some(code)).await;
    send(&bob, Method::POST, format!("{path}/redemptions"), Some(order("another"))).await;
    send(&ann, Method::POST, format!("{path}/redemptions"), Some(order("o"))).await;
    send(&admin, Method::DELETE, path.clone(), None).await;
    let free = admin.code_of(&plain).await;
    let revoked = send(&admin, Method::DELETE, format!("/v1/codes/{free}"), None).await;
    assert_eq!(revoked["claim"]["state"], "REVOKED", "{revoked}");
    let won = send(&bob, Method::POST, format!("/v1/coupons/{plain}/claims"), Some(json!({}))).await;
    send(&admin, Method::DELETE, format!("/v1/codes/{}", text(&won, "code")), None).await;
    send(&bob, Method::POST, "/v1/codes/NEVERMADE/lock".to_owned(), Some(json!({}))).await;

    let redeemed =
        send(&bob, Method::POST, format!("/v1/codes/{shared_code}/redemptions"), Some(order("o"))).await;
    assert_eq!((&redeemed["status"], &redeemed["claim"]), (&"accepted".into(), &Value::Null), "{redeemed}");
    let redemption = text(&redeemed["redemption"], "redemption_id");
    send(&admin, Method::DELETE, format!("/v1/redemptions/{redemption}"), None).await;
    send(&admin, Method::DELETE, format!("/v1/redemptions/{redemption}"), None).await;
    send(&admin, Method::DELETE, format!("/v1/redemptions/{}A", "B".repeat(21)), None).await;
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_rebuilt_from_rows_equals_its_event() {
    let outcomes = everything().await;
    // The new instance consumes responses from their end, so it has to look these outcomes up.
    let (_, base) = another_instance(&[]).await;
    for (client, outcome) in &outcomes {
        let id = outcome["request_id"].as_str().expect("an id");
        let fresh = Client { base: base.clone(), ..client.clone() };
        assert_eq!(fresh.get(&format!("/v1/requests/{id}")).await.body, *outcome);
    }
    for kind in ["claim", "lock", "unlock", "return", "redeem", "rollback", "revoke"] {
        for status in ["accepted", "rejected"] {
            let has_one = outcomes.iter().any(|(_, o)| o["kind"] == kind && o["status"] == status);
            assert!(has_one, "no {kind} was {status}");
        }
    }
}
