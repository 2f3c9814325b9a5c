//! What clients and foreign producers do wrong, or all at once: races for one code, keys used again, records that no
//! API of ours would write.

use futures::future::join_all;
use schemas::CouponRequest;
use schemas::topics::DEAD_LETTERS;
use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::support::foreigner::{Foreigner, PARTITIONS};
use crate::support::life::{SHOP, count, order, word};
use crate::support::log::{Planted, header, records};
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};

#[tokio::test]
async fn a_hundred_users_who_lock_one_code_at_once_are_its_owner_and_ninety_nine_strangers() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("user-37").await;
    let users: Vec<String> = (0..100).map(|n| format!("user-{n}")).collect();
    let asks = users
        .iter()
        .enumerate()
        .map(|(n, user)| field.see_through(Act::of(user, Deed::Lock(&code)).at(n % 2)));
    let told = join_all(asks).await;
    assert_eq!((count(&told, "accepted"), count(&told, "code_unknown")), (1, 99), "{told:?}");
    assert_eq!(word(&told[37]), "accepted");
    sale.expect("user-37", &code, ("LOCKED", "valid", [0, 0, 1, 0, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn a_hundred_locks_of_one_user_at_once_are_one_lock() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let lock = async |n: usize| {
        let order = order(n);
        field.see_through(Act::of("ann", Deed::LockFor(&code, &order)).at(n % 2)).await
    };
    let told = join_all((0..100).map(lock)).await;
    assert_eq!((count(&told, "accepted"), count(&told, "already_locked")), (1, 99), "{told:?}");
    // Whose order got it, may pay with it.
    let order = order(told.iter().position(|outcome| word(outcome) == "accepted").unwrap());
    field.accepted("ann", Deed::Redeem(&code, &order)).await;
    field.leave().await;
}

#[tokio::test]
async fn a_hundred_orders_that_redeem_one_code_at_once_are_one_redemption() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let redeem = async |n: usize| {
        // Half of them for one and the same order.
        let order = order(if n.is_multiple_of(2) { 0 } else { n });
        field.see_through(Act::of("ann", Deed::Redeem(&code, &order)).at(n % 2)).await
    };
    let told = join_all((0..100).map(redeem)).await;
    assert_eq!(count(&told, "accepted"), 1, "{told:?}");
    assert_eq!(count(&told, "already_redeemed") + count(&told, "order_already_used"), 99, "{told:?}");
    assert_eq!(sale.counts().await, [0, 0, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn a_redemption_that_many_roll_back_at_once_is_rolled_back_once() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let redeemed = field.accepted("ann", Deed::Redeem(&code, "order-1")).await;
    let id = redeemed["redemption"]["redemption_id"].as_str().unwrap();
    let told =
        join_all((0..30).map(|n| field.see_through(Act::of(SHOP, Deed::RollBack(id)).at(n % 2)))).await;
    assert_eq!((count(&told, "accepted"), count(&told, "already_rolled_back")), (1, 29), "{told:?}");
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn every_kind_of_request_is_one_request_under_one_key_and_is_answered_the_same_for_ever() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.code(2).await;
    let thrice = async |user: &str, deed: Deed<'_>| -> Value {
        let asked = field.history.sent(user, "one of each kind", Some("k"));
        let act = Act::of(user, deed).key("k");
        let first = field.act_once(asked, act).await.unwrap();
        assert_eq!(first.json()["status"], "accepted", "{deed:?}: {}", first.body);
        for api in [1, 0] {
            let again = field.act_once(asked, act.at(api)).await.unwrap();
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{deed:?}: {}", again.body);
            let (mut replayed, mut outcome) = (again.json(), first.json());
            // The suffix tells an id's age.
            (replayed["request_id"], outcome["request_id"]) = (json!(""), json!(""));
            assert_eq!(replayed, outcome, "{deed:?}");
        }
        first.json()
    };
    // One after another undoes what the one before did; then the first is asked for once more, and nothing happens.
    thrice("ann", Deed::ClaimNamed(&coupon, &code)).await;
    thrice("ann", Deed::Lock(&code)).await;
    thrice("ann", Deed::Unlock(&code)).await;
    let redeemed = thrice("ann", Deed::Redeem(&code, "order-1")).await;
    thrice(SHOP, Deed::RollBack(redeemed["redemption"]["redemption_id"].as_str().unwrap())).await;
    thrice("ann", Deed::Return(&code)).await;
    let replayed = thrice("ann", Deed::Redeem(&code, "order-1")).await;
    assert_eq!(replayed["redemption"], redeemed["redemption"]);
    thrice("admin", Deed::Revoke(&code)).await;
    thrice("ann", Deed::Lock(&code)).await;
    assert_eq!(sale.counts().await, [1, 0, 0, 0, 1]);
    field.leave().await;
}

#[tokio::test]
async fn idempotency_key_reused_is_told_of_another_body_under_the_same_key_and_another_code_is_another_request()
 {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let codes = [sale.claim("ann").await, sale.claim("ann").await, sale.claim("ann").await];
    let act = |deed| field.act(Act::of("ann", deed).key("k"));
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
            field.act(Act::of("ann", Deed::LockFor(&codes[2], order)).key(&key).at(api))
        };
        let (one, other) = tokio::join!(lock("order-1", 0), lock("order-2", 1));
        let reused = |reply: &crate::support::Reply| reply.body.contains("idempotency_key_reused");
        assert!(reused(&one) != reused(&other), "{} and {}", one.body, other.body);
        field.accepted("ann", Deed::Unlock(&codes[2])).await;
    }
    assert_eq!(sale.counts().await, [0, 1, 0, 2, 0]);
    field.leave().await;
}

#[tokio::test]
async fn a_whole_life_sent_at_once_is_decided_in_the_order_of_the_log() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({"requires_lock": true}))).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.code(1).await;
    let ask = |kind: &str, user: &str| foreigner.request(kind, user, Some(&code));
    let redeem = |user: &str, order: &str| CouponRequest {
        order_id: Some(order.to_owned()),
        order_amount: Some("10.00".to_owned()),
        currency: Some("EUR".to_owned()),
        ..ask("redeem", user)
    };
    let paid = redeem("bob", "order-1");
    let undo = CouponRequest { redemption_id: Some(paid.request_id.clone()), ..ask("rollback", SHOP) };
    let life = [
        (redeem("ann", "order-1"), "not_claimed"),
        (ask("claim", "ann"), "accepted"),
        (ask("claim", "bob"), "code_taken"),
        (redeem("ann", "order-1"), "not_locked"),
        (ask("lock", "ann"), "accepted"),
        (ask("return", "ann"), "already_locked"),
        (ask("unlock", "ann"), "accepted"),
        (ask("return", "ann"), "accepted"),
        (ask("lock", "ann"), "not_claimed"),
        (ask("claim", "bob"), "accepted"),
        (ask("lock", "ann"), "not_your_code"),
        (ask("lock", "bob"), "accepted"),
        (paid, "accepted"),
        (undo.clone(), "accepted"),
        (CouponRequest { request_id: ask("rollback", SHOP).request_id, ..undo }, "already_rolled_back"),
        (ask("revoke", "admin"), "accepted"),
        (ask("claim", "ann"), "code_revoked"),
        (ask("revoke", "admin"), "code_revoked"),
    ];
    // All in the log before the first is decided, as far as one can: what becomes of a code in one batch is one row.
    let appended = life.iter().map(|(request, _)| foreigner.record(request));
    let appended: Vec<Planted> = appended.collect();
    for record in &appended {
        foreigner.produce(record).await;
    }
    foreigner.heard(&field).await;
    for (n, (request, wanted)) in life.iter().enumerate() {
        let found = foreigner.outcome(&field, request).await;
        assert_eq!(found.as_deref(), Some(*wanted), "request {n}, a {}", request.kind);
    }
    assert_eq!(sale.counts().await, [0, 0, 0, 0, 1]);
    field.leave().await;
}

#[tokio::test]
async fn fault_15_records_of_a_foreign_producer_are_outcomes_or_dead_letters_and_change_no_code() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(3, rules(&json!({}))).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let sale = Sale::of(&field, &coupon);
    let (code, free) = (sale.claim("ann").await, sale.code(3).await);
    let redeem = |change: fn(&mut CouponRequest)| {
        let mut request = CouponRequest {
            order_id: Some("order-1".to_owned()),
            order_amount: Some("10.00".to_owned()),
            currency: Some("EUR".to_owned()),
            ..foreigner.request("redeem", "ann", Some(&code))
        };
        change(&mut request);
        request
    };
    let rollback = |redemption: Option<&str>| CouponRequest {
        redemption_id: redemption.map(str::to_owned),
        ..foreigner.request("rollback", SHOP, None)
    };
    let asked = [
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
        (foreigner.request("lock", "bob", None), "code_unknown"),
        (foreigner.request("lock", "bob", Some(&code)), "not_your_code"),
        (foreigner.request("revoke", "bob", None), "code_unknown"),
        (foreigner.request("return", "bob", Some(&free)), "not_claimed"),
    ];
    for (request, _) in &asked {
        foreigner.send(request).await;
    }
    foreigner.heard(&field).await;
    for (n, (request, wanted)) in asked.iter().enumerate() {
        let found = foreigner.outcome(&field, request).await;
        assert_eq!(found.as_deref(), Some(*wanted), "request {n}: {}", request.kind);
    }
    // Too long for its field, or with control characters: nobody's request.
    let refused = [
        redeem(|request| request.order_id = Some("x".repeat(129))),
        redeem(|request| request.order_id = Some("a\0b".to_owned())),
        redeem(|request| request.currency = Some("E\nR".to_owned())),
    ];
    let mut places = BTreeSet::new();
    for request in &refused {
        places.insert(foreigner.produce(&foreigner.record(request)).await);
    }
    // A lock in the partition of somebody else, and a tick with a code.
    let elsewhere = (foreigner.partition + 1) % PARTITIONS;
    let lock = foreigner.request("lock", "ann", Some(&code));
    let misplaced = Planted { partition: elsewhere, ..foreigner.record(&lock) };
    places.insert(foreigner.produce(&misplaced).await);
    foreigner.heard(&field).await;
    field.checked().await;
    let letters = records(&field.stack.endpoints().kafka, DEAD_LETTERS).await;
    let place = |letter| {
        let number = |name| header(letter, name).unwrap_or_default().parse::<i64>().unwrap_or(-1);
        (i32::try_from(number("partition")).unwrap_or(-1), number("offset"))
    };
    let found: BTreeSet<(i32, i64)> = letters.iter().map(place).collect();
    assert!(places.is_subset(&found), "{places:?} among {found:?}");
    assert_eq!(foreigner.outcome(&field, &lock).await, None);
    assert_eq!(sale.counts().await, [2, 0, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn fault_15_whatever_is_appended_a_second_time_is_answered_with_its_first_outcome() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let redeem = CouponRequest {
        order_id: Some("order-1".to_owned()),
        order_amount: Some("10.00".to_owned()),
        currency: Some("EUR".to_owned()),
        ..foreigner.request("redeem", "ann", Some(&code))
    };
    let undo = CouponRequest {
        redemption_id: Some(redeem.request_id.clone()),
        ..foreigner.request("rollback", SHOP, None)
    };
    let [lock, unlock, give_back] =
        ["lock", "unlock", "return"].map(|kind| foreigner.request(kind, "ann", Some(&code)));
    let revoke = foreigner.request("revoke", "admin", Some(&code));
    let life = [&lock, &unlock, &redeem, &undo, &give_back, &revoke];
    for request in life {
        // Twice in a row, so that it may be in one batch; and all of them once more afterwards.
        foreigner.send(request).await;
        foreigner.send(request).await;
    }
    for request in life {
        foreigner.send(request).await;
        // Its id for another user and another code: it is decided all the same.
        foreigner.send(&CouponRequest { user_id: "eve".to_owned(), ..request.clone() }).await;
    }
    foreigner.heard(&field).await;
    for request in life {
        assert_eq!(foreigner.outcome(&field, request).await.as_deref(), Some("accepted"), "{}", request.kind);
    }
    assert_eq!(sale.counts().await, [1, 0, 0, 0, 1]);
    field.leave().await;
}
