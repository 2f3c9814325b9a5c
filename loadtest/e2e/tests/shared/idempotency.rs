//! Idempotency-Keys of every kind of request.

use serde_json::{Value, json};

use e2e::coupon::rules;
use e2e::request::SHOP;
use e2e::{Deed, Environment, Reply, Request};

async fn a_request_of_any_kind_keeps_its_outcome_under_its_key(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let code = coupon.code(2).await;
    let thrice = async |user: &str, deed: Deed<'_>| -> Value {
        let request = Request::new(user, deed).key("k");
        let handle = env.record_sent(&request);
        let first = env.send_once(handle, request).await.unwrap();
        assert_eq!(first.json()["status"], "accepted", "{deed:?}: {}", first.body);
        for api in [1, 0] {
            let again = env.send_once(handle, request.at(api)).await.unwrap();
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{deed:?}: {}", again.body);
            let (mut replayed, mut outcome) = (again.json(), first.json());
            // The suffix tells an id's age.
            (replayed["request_id"], outcome["request_id"]) = (json!(""), json!(""));
            assert_eq!(replayed, outcome, "{deed:?}");
        }
        first.json()
    };
    // One after another undoes what the one before did; then the first is asked for once more, and nothing happens.
    thrice("ann", Deed::ClaimNamed(&coupon.id, &code)).await;
    thrice("ann", Deed::Lock(&code)).await;
    thrice("ann", Deed::Unlock(&code)).await;
    let redeemed = thrice("ann", Deed::Redeem(&code, "order-1")).await;
    thrice(SHOP, Deed::RollBack(redeemed["redemption"]["redemption_id"].as_str().unwrap())).await;
    thrice("ann", Deed::Return(&code)).await;
    let replayed = thrice("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(replayed["redemption"], redeemed["redemption"]);
    thrice("admin", Deed::Revoke(&code)).await;
    thrice("ann", Deed::Lock(&code)).await;
    assert_eq!(coupon.counts().await, [1, 0, 0, 0, 1]);
}

async fn idempotency_key_reused_rejects_another_body_under_the_same_key_but_not_another_code(
    env: &Environment,
) {
    let coupon = env.stocked(3, rules(&json!({}))).await;
    let codes = [coupon.claim("ann").await, coupon.claim("ann").await, coupon.claim("ann").await];
    let act = |deed| env.send(Request::new("ann", deed).key("k"));
    let redeemed = act(Deed::Pay(&codes[0], "order-1", ["10.00", "EUR"])).await.json();
    assert_eq!(redeemed["status"], "accepted", "{redeemed}");
    for other in [
        Deed::Pay(&codes[0], "order-2", ["10.00", "EUR"]),
        Deed::Pay(&codes[0], "order-1", ["10.01", "EUR"]),
        Deed::Pay(&codes[0], "order-1", ["10.00", "USD"]),
    ] {
        let refused = act(other).await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (422, &json!("idempotency_key_reused")),
            "{other:?}"
        );
    }
    // The same body, however it is written.
    let lower = codes[0].to_lowercase();
    let same = act(Deed::Pay(&lower, "order-1", ["10.0000", "EUR"])).await;
    assert_eq!(same.header("idempotent-replayed"), Some("true"), "{}", same.body);
    // The same key for another code, and for another deed with the same code, are requests of their own.
    for deed in
        [Deed::Pay(&codes[1], "order-1", ["10.00", "EUR"]), Deed::Lock(&codes[2]), Deed::Unlock(&codes[2])]
    {
        assert_eq!(act(deed).await.json()["status"], "accepted", "{deed:?}");
    }
    // Both bodies at once: one is the first, the other one hears so, as a problem or as an outcome.
    for round in 0..5 {
        let key = format!("round {round}");
        let lock = |order: &'static str, api| {
            env.send(Request::new("ann", Deed::LockFor(&codes[2], order)).key(&key).at(api))
        };
        let (one, other) = tokio::join!(lock("order-1", 0), lock("order-2", 1));
        let reused = |reply: &Reply| {
            let body = reply.json();
            body["reason"] == "idempotency_key_reused" || body["code"] == "idempotency_key_reused"
        };
        assert!(reused(&one) != reused(&other), "{} and {}", one.body, other.body);
        env.accepted("ann", Deed::Unlock(&codes[2])).await;
    }
    assert_eq!(coupon.counts().await, [0, 1, 0, 2, 0]);
}

e2e::tests![
    a_request_of_any_kind_keeps_its_outcome_under_its_key,
    idempotency_key_reused_rejects_another_body_under_the_same_key_but_not_another_code,
];
