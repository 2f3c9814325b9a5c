//! Reads, and what administrators create.

use std::time::Duration;

use serde_json::{Value, json};
use stampede_client::model::{Discount, GenerateCodes, JobState, Limit, Limits, NewCoupon, PageQuery};
use stampede_client::{Client, Error, RetryPolicy, Status};

use crate::scripted::{Reaction, Server, problem, respond};

fn client(server: &Server) -> Client {
    let (first_pause, deadline) = (Duration::from_millis(5), Duration::from_secs(20));
    let policy = RetryPolicy { deadline, first_pause, ..RetryPolicy::default() };
    Client::builder(&server.url).token("t").policy(policy).build()
}

fn coupon() -> Value {
    json!({"id": "spring", "name": "Spring", "description": null, "category": null,
        "discount": {"type": "PERCENTAGE", "value": "10.00"}, "starts_at": null, "expires_at": null,
        "hold_seconds": 60, "lock_seconds": 300, "requires_lock": false, "limits": {"claims_per_user": 1},
        "status": "active", "created_at": "2026-01-01T00:00:00Z", "version": 1,
        "counts": {"generated": 10, "available": 9, "claimed": 1, "locked": 0, "redeemed": 0, "expired": 0,
            "revoked": 0}})
}

#[tokio::test]
async fn reads_are_repeated_after_lost_connections_and_outages() {
    let script = [Reaction::Close, problem(503, "unavailable"), respond(200, coupon())];
    let server = Server::play(script).await;
    let read = client(&server).coupon("spring").await.unwrap();
    assert_eq!((read.counts.generated, read.counts.available, read.hold_seconds), (10, 9, Some(60)));
    assert_eq!(server.lines(), ["GET /v1/coupons/spring"; 3]);
}

#[tokio::test]
async fn a_validation_shows_the_discount_or_the_reason() {
    let valid = json!({"valid": true, "code": "C", "coupon_id": "spring", "order_amount": "59.90",
        "discount": "5.99", "final_price": "53.91", "currency": "EUR"});
    let invalid = json!({"valid": false, "reason": "code_unknown", "code": "C"});
    let server = Server::play([respond(200, valid), respond(200, invalid)]).await;
    let client = client(&server);
    let validation = client.validate("C", Some(("59.90", "EUR"))).await.unwrap();
    assert_eq!((validation.valid, validation.final_price.as_deref()), (true, Some("53.91")));
    let validation = client.validate("C", None).await.unwrap();
    assert_eq!((validation.valid, validation.reason.as_deref()), (false, Some("code_unknown")));
    let path = "GET /v1/codes/C/validation";
    assert_eq!(server.lines(), [&format!("{path}?order_amount=59.90&currency=EUR"), path]);
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let owned = json!({"coupon_id": "spring", "code": "C", "state": "CLAIMED", "claimed_at": "t"});
    let decided = json!({"request_id": "r", "kind": "claim", "coupon_id": "spring", "status": "rejected",
        "reason": "sold_out", "code": null, "claim": null, "redemption": null, "decided_at": "t"});
    let wallet = json!({"items": [owned], "next_cursor": "c/1"});
    let requests = json!({"items": [decided], "next_cursor": null});
    let server = Server::play([respond(200, wallet), respond(200, requests)]).await;
    let client = client(&server);
    let codes = client.wallet("me", PageQuery { limit: Some(1), cursor: None }).await.unwrap();
    assert_eq!((&*codes.items[0].code, codes.next_cursor.as_deref()), ("C", Some("c/1")));
    let page = PageQuery { limit: None, cursor: Some("c/1") };
    let requests = client.requests("ann", Some("spring"), page).await.unwrap();
    assert_eq!(requests.items[0].status, Status::Rejected);
    assert_eq!(
        server.lines(),
        ["GET /v1/users/me/codes?limit=1", "GET /v1/users/ann/requests?coupon=spring&cursor=c%2F1"]
    );
}

#[tokio::test]
async fn a_coupon_is_created_and_its_codes_are_generated() {
    let job = |state| json!({"job_id": "j-1", "state": state, "done": 5, "total": 10});
    let script = [
        respond(201, coupon()),
        respond(202, job("open")),
        respond(200, job("sealed")),
        respond(200, job("applied")),
    ];
    let server = Server::play(script).await;
    let client = client(&server);
    let limits = Limits { claims_per_user: Some(Limit::AtMost(1)), ..Limits::default() };
    let new = NewCoupon { limits, ..NewCoupon::new("Spring", Discount::percentage("10.00")) };
    let created = client.create_coupon(&new).await.unwrap();
    let codes = GenerateCodes { count: 10, pattern: None };
    let job = client.generate_codes(&created.id, &codes).await.unwrap();
    assert_eq!(client.wait_for_job(&job.job_id).await.unwrap().state, JobState::Applied);
    let lines = server.lines();
    assert_eq!(lines[..2], ["POST /v1/coupons", "POST /v1/coupons/spring/codes/generate"]);
    assert_eq!(lines[2..], ["GET /v1/jobs/j-1"; 2]);
}

#[tokio::test]
async fn what_an_administrator_creates_is_not_created_twice() {
    let server = Server::play([problem(503, "overloaded"), Reaction::Close]).await;
    let codes = GenerateCodes { count: 10, pattern: None };
    let error = client(&server).generate_codes("spring", &codes).await.unwrap_err();
    assert!(matches!(error, Error::Unconfirmed { .. }), "{error:?}");
    assert_eq!(server.received().len(), 2, "repeated after `overloaded`, not after a lost response");
}
