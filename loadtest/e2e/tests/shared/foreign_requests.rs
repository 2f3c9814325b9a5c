//! Requests that a foreign producer writes to the log: decided like any other, or dead letters.

use schemas::CouponRequest;
use serde_json::json;

use e2e::Environment;
use e2e::coupon::rules;
use e2e::foreign_producer::ForeignProducer;
use e2e::kafka::Record;
use e2e::request::SHOP;

async fn a_sequence_of_transitions_of_one_code_is_decided_in_the_order_of_the_log(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({"requires_lock": true}))).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let code = coupon.code(1).await;
    let request_of = |kind: &str, user: &str| producer.request(kind, user, Some(&code));
    let redeem = |user: &str, order: &str| CouponRequest {
        order_id: Some(order.to_owned()),
        order_amount: Some("10.00".to_owned()),
        currency: Some("EUR".to_owned()),
        ..request_of("redeem", user)
    };
    let paid = redeem("bob", "order-1");
    let roll_back =
        CouponRequest { redemption_id: Some(paid.request_id.clone()), ..request_of("rollback", SHOP) };
    let sequence = [
        (redeem("ann", "order-1"), "not_claimed"),
        (request_of("claim", "ann"), "accepted"),
        (request_of("claim", "bob"), "code_taken"),
        (redeem("ann", "order-1"), "not_locked"),
        (request_of("lock", "ann"), "accepted"),
        (request_of("return", "ann"), "already_locked"),
        (request_of("unlock", "ann"), "accepted"),
        (request_of("return", "ann"), "accepted"),
        (request_of("lock", "ann"), "not_claimed"),
        (request_of("claim", "bob"), "accepted"),
        (request_of("lock", "ann"), "not_your_code"),
        (request_of("lock", "bob"), "accepted"),
        (paid, "accepted"),
        (roll_back.clone(), "accepted"),
        (
            CouponRequest { request_id: request_of("rollback", SHOP).request_id, ..roll_back },
            "already_rolled_back",
        ),
        (request_of("revoke", "admin"), "accepted"),
        (request_of("claim", "ann"), "code_revoked"),
        (request_of("revoke", "admin"), "code_revoked"),
    ];
    // As fast as possible, so that several are decided in one batch: then one row holds their result.
    let appended = sequence.iter().map(|(request, _)| producer.record(request));
    let appended: Vec<Record> = appended.collect();
    for record in &appended {
        producer.produce(record).await;
    }
    producer.until_decided().await;
    for (n, (request, wanted)) in sequence.iter().enumerate() {
        let found = producer.result(request).await;
        assert_eq!(found.as_deref(), Some(*wanted), "request {n}, a {}", request.kind);
    }
    assert_eq!(coupon.counts().await, [0, 0, 0, 0, 1]);
}

async fn fault_15_invalid_requests_of_a_foreign_producer_are_rejected_or_become_dead_letters(
    env: &Environment,
) {
    let coupon = env.stocked(3, rules(&json!({}))).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let (code, free) = (coupon.claim("ann").await, coupon.code(3).await);
    let redeem = |change: fn(&mut CouponRequest)| {
        let mut request = CouponRequest {
            order_id: Some("order-1".to_owned()),
            order_amount: Some("10.00".to_owned()),
            currency: Some("EUR".to_owned()),
            ..producer.request("redeem", "ann", Some(&code))
        };
        change(&mut request);
        request
    };
    let rollback = |redemption: Option<&str>| CouponRequest {
        redemption_id: redemption.map(str::to_owned),
        ..producer.request("rollback", SHOP, None)
    };
    let requests = [
        (redeem(|request| request.order_amount = None), "unprocessable"),
        (redeem(|request| request.order_id = None), "unprocessable"),
        (redeem(|request| request.currency = None), "unprocessable"),
        (redeem(|request| request.order_amount = Some("-10.00".to_owned())), "unprocessable"),
        (redeem(|request| request.order_amount = Some("NaN".to_owned())), "unprocessable"),
        (redeem(|request| request.order_amount = Some("1e9".to_owned())), "unprocessable"),
        (redeem(|request| request.order_amount = Some("10.001".to_owned())), "unprocessable"),
        (redeem(|request| request.order_amount = Some("9".repeat(5_000))), "unprocessable"),
        (redeem(|request| request.currency = Some("eur".to_owned())), "unprocessable"),
        (redeem(|request| request.currency = Some("JPY".to_owned())), "accepted"), // 10.00 is ten yen
        (redeem(|request| request.code = None), "code_unknown"),
        (redeem(|request| request.code = Some("no code at all!".to_owned())), "code_unknown"),
        (rollback(None), "redemption_unknown"),
        (rollback(Some("garbage")), "redemption_unknown"),
        (rollback(Some("AAAAAAAAAAAAAAAAAAAAAQ")), "redemption_unknown"),
        (producer.request("lock", "bob", None), "code_unknown"),
        (producer.request("lock", "bob", Some(&code)), "not_your_code"),
        (producer.request("revoke", "bob", None), "code_unknown"),
        (producer.request("return", "bob", Some(&free)), "not_claimed"),
    ];
    for (request, _) in &requests {
        producer.send(request).await;
    }
    producer.until_decided().await;
    for (n, (request, wanted)) in requests.iter().enumerate() {
        let found = producer.result(request).await;
        assert_eq!(found.as_deref(), Some(*wanted), "request {n}: {}", request.kind);
    }
    // Longer than the field allows, or with control characters.
    let invalid = [
        redeem(|request| request.order_id = Some("x".repeat(129))),
        redeem(|request| request.order_id = Some("a\0b".to_owned())),
        redeem(|request| request.currency = Some("E\nR".to_owned())),
    ];
    let mut positions = Vec::new();
    for request in &invalid {
        positions.push(producer.send(request).await);
    }
    // A lock in a partition that is not its own.
    let lock = producer.request("lock", "ann", Some(&code));
    let misplaced = Record { partition: producer.other_partition(), ..producer.record(&lock) };
    positions.push(producer.produce(&misplaced).await);
    let letters = env.dead_letters(&positions).await;
    assert!(positions.iter().all(|position| letters.contains_key(position)), "{positions:?} in {letters:?}");
    assert_eq!(producer.result(&lock).await, None);
    assert_eq!(coupon.counts().await, [2, 0, 0, 1, 0]);
}

async fn fault_15_a_request_of_any_kind_that_is_appended_again_keeps_its_first_outcome(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let code = coupon.claim("ann").await;
    let redeem = CouponRequest {
        order_id: Some("order-1".to_owned()),
        order_amount: Some("10.00".to_owned()),
        currency: Some("EUR".to_owned()),
        ..producer.request("redeem", "ann", Some(&code))
    };
    let roll_back = CouponRequest {
        redemption_id: Some(redeem.request_id.clone()),
        ..producer.request("rollback", SHOP, None)
    };
    let [lock, unlock, return_code] =
        ["lock", "unlock", "return"].map(|kind| producer.request(kind, "ann", Some(&code)));
    let revoke = producer.request("revoke", "admin", Some(&code));
    let sequence = [&lock, &unlock, &redeem, &roll_back, &return_code, &revoke];
    for request in sequence {
        // Twice in a row, so that both may be in one batch; all of them once more afterwards.
        producer.send(request).await;
        producer.send(request).await;
    }
    for request in sequence {
        producer.send(request).await;
        // The same id for another user: it is decided already.
        producer.send(&CouponRequest { user_id: env.user("eve"), ..request.clone() }).await;
    }
    producer.until_decided().await;
    for request in sequence {
        assert_eq!(producer.result(request).await.as_deref(), Some("accepted"), "{}", request.kind);
    }
    assert_eq!(coupon.counts().await, [1, 0, 0, 0, 1]);
}

e2e::tests![
    a_sequence_of_transitions_of_one_code_is_decided_in_the_order_of_the_log,
    fault_15_invalid_requests_of_a_foreign_producer_are_rejected_or_become_dead_letters,
    fault_15_a_request_of_any_kind_that_is_appended_again_keeps_its_first_outcome,
];
