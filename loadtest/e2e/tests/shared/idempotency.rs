//! Idempotency-Keys of every kind of request.

use serde_json::{Value, json};

use e2e::coupon::rules;
use e2e::request::SHOP;
use e2e::{Environment, Operation, Order, Reply, Request, orders};

async fn a_request_of_any_kind_keeps_its_outcome_under_its_key(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let code = coupon.code(2).await;
    let three_times = async |user: &str, operation: Operation<'_>| -> Value {
        let request = Request::new(user, operation).key("k");
        let handle = env.record_sent(&request);
        let first = env.submit_recorded(handle, request).await;
        assert_eq!(first.json()["status"], "accepted", "{operation:?}: {}", first.body);
        for api in [1, 0] {
            let again = env.submit_recorded(handle, request.at(api)).await;
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{operation:?}: {}", again.body);
            let (mut replayed, mut outcome) = (again.json(), first.json());
            // The suffix of an id encodes its age.
            (replayed["request_id"], outcome["request_id"]) = (json!(""), json!(""));
            assert_eq!(replayed, outcome, "{operation:?}");
        }
        first.json()
    };
    // Each operation reverses the one before. A repeated request returns its outcome and changes nothing.
    three_times("ann", Operation::claim_code(&coupon.id, &code)).await;
    three_times("ann", Operation::lock(&code)).await;
    three_times("ann", Operation::unlock(&code)).await;
    let redeemed = three_times("ann", orders::redeem(&code, "order-1")).await;
    three_times(SHOP, Operation::roll_back(redeemed["redemption"]["redemption_id"].as_str().unwrap())).await;
    three_times("ann", Operation::return_code(&code)).await;
    let replayed = three_times("ann", orders::redeem(&code, "order-1")).await;
    assert_eq!(replayed["redemption"], redeemed["redemption"]);
    three_times("admin", Operation::revoke(&code)).await;
    three_times("ann", Operation::lock(&code)).await;
    assert_eq!(coupon.counts().await, [1, 0, 0, 0, 1]);
}

async fn idempotency_key_reused_rejects_another_body_under_the_same_key_but_not_another_code(
    env: &Environment,
) {
    let coupon = env.stocked(3, rules(&json!({}))).await;
    let codes = [coupon.claim("ann").await, coupon.claim("ann").await, coupon.claim("ann").await];
    let send = |operation| env.submit(Request::new("ann", operation).key("k"));
    let redeemed = send(Operation::redeem(&codes[0], Order::new("order-1", "10.00", "EUR"))).await.json();
    assert_eq!(redeemed["status"], "accepted", "{redeemed}");
    for other in [
        Operation::redeem(&codes[0], Order::new("order-2", "10.00", "EUR")),
        Operation::redeem(&codes[0], Order::new("order-1", "10.01", "EUR")),
        Operation::redeem(&codes[0], Order::new("order-1", "10.00", "USD")),
    ] {
        let rejected = send(other).await;
        assert_eq!(
            (rejected.status, &rejected.json()["code"]),
            (422, &json!("idempotency_key_reused")),
            "{other:?}"
        );
    }
    // The same body in another spelling.
    let lower = codes[0].to_lowercase();
    let same = send(Operation::redeem(&lower, Order::new("order-1", "10.0000", "EUR"))).await;
    assert_eq!(same.header("idempotent-replayed"), Some("true"), "{}", same.body);
    // The same key for another code, and for another operation on the same code, makes other requests.
    for operation in [
        Operation::redeem(&codes[1], Order::new("order-1", "10.00", "EUR")),
        Operation::lock(&codes[2]),
        Operation::unlock(&codes[2]),
    ] {
        assert_eq!(send(operation).await.json()["status"], "accepted", "{operation:?}");
    }
    // Both bodies concurrently: one is the first, and the other one is rejected, by a problem or by its outcome.
    for round in 0..5 {
        let key = format!("round {round}");
        let lock = |order: &'static str, api| {
            env.submit(Request::new("ann", Operation::lock_for(&codes[2], order)).key(&key).at(api))
        };
        let (one, other) = tokio::join!(lock("order-1", 0), lock("order-2", 1));
        let reused = |reply: &Reply| {
            let body = reply.json();
            body["reason"] == "idempotency_key_reused" || body["code"] == "idempotency_key_reused"
        };
        assert!(reused(&one) != reused(&other), "{} and {}", one.body, other.body);
        env.accepted("ann", Operation::unlock(&codes[2])).await;
    }
    assert_eq!(coupon.counts().await, [0, 1, 0, 2, 0]);
}

e2e::tests![
    a_request_of_any_kind_keeps_its_outcome_under_its_key,
    idempotency_key_reused_rejects_another_body_under_the_same_key_but_not_another_code,
];
