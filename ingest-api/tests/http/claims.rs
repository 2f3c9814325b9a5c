//! A claim from start to outcome: retries, the sold-out gate, rejections, faults of the API itself.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use hmac::Mac as _;
use ingest_api::auth::Role;
use local_stack::Child;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::stack::{ApiResponse, Client, another_instance, connection, now, stack as real_stack, tokens};

fn claims(coupon: &str) -> String {
    format!("/v1/coupons/{coupon}/claims")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_code_is_claimed_once_further_claims_are_sold_out_and_the_counters_add_up() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(10).await;
    let path = format!("{}?wait=20", claims(&coupon));
    let sent = (0..14).map(|n| {
        let path = &path;
        async move {
            let user = Client::new(&format!("user-{n}"), Role::User, n % 2).await;
            (user.post_with_key(path, &json!({}), "once").await, user)
        }
    });
    let responses = join_all(sent).await;
    let mut codes = HashSet::new();
    for (response, user) in &responses {
        assert_eq!(response.status, StatusCode::OK, "{response:?}");
        let id = response.body["request_id"].as_str().expect("an id");
        assert_eq!(response.header("location"), format!("/v1/requests/{id}"));
        assert_eq!(user.outcome(id).await, response.body);
        if response.body["status"] == "accepted" {
            assert_eq!(response.body["claim"]["state"], "CLAIMED");
            assert_eq!(response.body["claim"]["code"], response.body["code"]);
            assert!(codes.insert(response.body["code"].as_str().expect("a code").to_owned()));
        } else {
            assert_eq!(response.body["reason"], "sold_out");
        }
    }
    assert_eq!(codes.len(), 10);
    let read = admin.get(&format!("/v1/coupons/{coupon}")).await;
    let counts = json!({"generated": 10, "available": 0, "claimed": 10, "locked": 0, "redeemed": 0,
        "expired": 0, "revoked": 0});
    assert_eq!(read.body["counts"], counts);

    // The retry of an accepted claim, long after the coupon is sold out, gets the same outcome.
    let (won, user) = responses
        .iter()
        .find(|(response, _)| response.body["status"] == "accepted")
        .expect("an accepted claim");
    // Other tests start instances that abort; the first two stay.
    for base in real_stack().await.endpoints().apis.into_iter().take(2) {
        let again =
            Client { base, ..user.clone() }.post_with_key(&claims(&coupon), &json!({}), "\"once\"").await;
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (StatusCode::OK, "true"),
            "{again:?}"
        );
        assert_eq!(again.body["code"], won.body["code"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_sent_a_hundred_times_concurrently_to_two_instances_is_one_request() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(200).await;
    let clients = [Client::new("ann", Role::User, 0).await, Client::new("ann", Role::User, 1).await];
    let (path, body) = (format!("{}?wait=20", claims(&coupon)), json!({}));
    let responses = join_all((0..100).map(|n| clients[n % 2].post_with_key(&path, &body, "k"))).await;
    let mut outcomes = HashSet::new();
    for response in &responses {
        assert_eq!(response.status, StatusCode::OK, "{response:?}");
        let canonical = response.body["request_id"].as_str().and_then(|id| id.split('.').next());
        outcomes.insert((canonical.map(str::to_owned), response.body["code"].as_str().map(str::to_owned)));
    }
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!(admin.get(&format!("/v1/coupons/{coupon}")).await.body["counts"]["claimed"], 1);

    // Another body under the same key is rejected where that is known; the first request is unchanged.
    let other = clients[0].post_with_key(&path, &json!({"code": "ABCD-EFGH"}), "k").await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused"));
    let again = clients[1].post_with_key(&path, &body, "k").await;
    assert_eq!(again.body["code"], responses[0].body["code"]);
    // The same key for another coupon is another request.
    let elsewhere = admin.coupon(1).await;
    let response = clients[0].post_with_key(&format!("{}?wait=20", claims(&elsewhere)), &body, "k").await;
    assert_eq!(response.body["status"], "accepted", "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_gets_the_outcome_if_it_comes_in_time_and_another_gets_202() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(2).await;
    let ann = Client::new("ann", Role::User, 0).await;
    let accepted = ann.post(&claims(&coupon), &json!({})).await;
    assert_eq!((accepted.status, accepted.header("retry-after")), (StatusCode::ACCEPTED, "1"));
    assert_eq!(accepted.body["status"], "pending");
    assert_eq!(accepted.body["links"]["self"], accepted.header("location"));
    assert_eq!(ann.get(accepted.header("location")).await.status, StatusCode::OK);
    let bob = Client::new("bob", Role::User, 1).await;
    let request = bob.request(Method::POST, &claims(&coupon)).header("Prefer", "wait=20").json(&json!({}));
    let response = ApiResponse::of(request.send().await.expect("a response")).await;
    assert_eq!((response.status, response.header("preference-applied")), (StatusCode::OK, "wait=20"));
    let id = accepted.body["request_id"].as_str().expect("an id");
    assert_eq!(ann.outcome(id).await["status"], "accepted");
    // The other instance consumes all responses too; a service may read any user's request.
    let shop = Client::new("shop", Role::Service, 1).await;
    assert_eq!(shop.outcome(id).await["status"], "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_short_circuits_claims_of_a_sold_out_coupon_except_those_with_a_key() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(1).await;
    let path = format!("{}?wait=20", claims(&coupon));
    for n in 0..3 {
        let user = Client::new(&format!("early-{n}"), Role::User, 0).await;
        assert!(matches!(user.post(&path, &json!({})).await.status.as_u16(), 200 | 409));
    }
    let (late, body) = (Client::new("late", Role::User, 0).await, json!({}));
    let responses = join_all((0..20).map(|_| late.post(&path, &body))).await;
    let gated: Vec<_> = responses.iter().filter(|response| response.status == StatusCode::CONFLICT).collect();
    assert!(gated.len() >= 17, "{}", gated.len());
    assert_eq!((gated[0].problem(), gated[0].header("retry-after")), ((409, "sold_out"), "1"));
    let keyed = late.post_with_key(&path, &json!({}), "k").await;
    assert_eq!((keyed.status.as_u16(), &keyed.body["reason"]), (200, &"sold_out".into()));
    // New stock opens the gate.
    let generate = format!("/v1/coupons/{coupon}/codes/generate");
    let job = admin.post(&generate, &json!({"count": 5})).await;
    admin.job_applied(job.header("location")).await;
    let start = Instant::now();
    loop {
        let response = late.post(&path, &json!({})).await;
        if response.body["status"] == "accepted" {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{response:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_were_not_issued_to_the_user_are_not_found_and_old_ones_are_gone() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(1).await;
    let ann = Client::new("ann", Role::User, 0).await;
    let accepted = ann.post(&claims(&coupon), &json!({})).await;
    let id = accepted.body["request_id"].as_str().expect("an id").to_owned();
    let bob = Client::new("bob", Role::User, 0).await;
    for (client, id) in
        [(&bob, id.as_str()), (&ann, &id[..id.len() - 1]), (&ann, "x"), (&ann, "%00"), (&ann, ".")]
    {
        assert_eq!(client.get(&format!("/v1/requests/{id}")).await.problem(), (404, "not_found"), "{id}");
    }
    assert_eq!(admin.get(&format!("/v1/requests/{id}")).await.problem().0, 403);
    // Ids of requests that were never decided, one recent and one older than the retention.
    let day = 24 * 3600 * 1000;
    let young = ann.get(&format!("/v1/requests/{}", issued_id("ann", now() * 1000 - day).await)).await;
    assert_eq!((young.status, &young.body["status"]), (StatusCode::OK, &"pending".into()));
    assert_eq!(young.header("retry-after"), "1");
    let old = ann.get(&format!("/v1/requests/{}", issued_id("ann", now() * 1000 - 31 * day).await)).await;
    assert_eq!(old.problem(), (410, "gone"));
}

/// An id as the API issues it.
async fn issued_id(user: &str, at_ms: i64) -> String {
    let environment = real_stack().await.environment(Child::Api(0));
    let secret = environment.iter().find(|(name, _)| name == "STAMPEDE_REQUEST_ID_SECRET").expect("a secret");
    let tag = |parts: &[&[u8]]| {
        let mut mac =
            hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.1.as_bytes()).expect("any key will do");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()[..8].to_vec()
    };
    let identity = (u128::from(at_ms.unsigned_abs()) << 80 | 0x7 << 76 | 0x8 << 60 | 0xabc).to_be_bytes();
    let owner = tag(&[b"user", user.as_bytes()]);
    let tag = tag(&[b"id", &identity, &0_i64.to_be_bytes(), &at_ms.to_be_bytes(), &owner]);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}", encode(&identity), encode(&[owner, tag].concat()))
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_input_gets_a_problem_and_never_a_500() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(1).await;
    let ann = Client::new("ann", Role::User, 0).await;
    let path = claims(&coupon);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = format!("{{\"code\": \"{}\"}}", "A".repeat(10 * 1024 * 1024));
    let long = format!("{{\"code\": \"{}\"}}", "A".repeat(257));
    let raw: &[(&str, &str, u16, &str)] = &[
        ("application/json", "{\"code\": \"A\\u0000B\"}", 422, "invalid"),
        ("application/json", "{\"code\": \"A\0B\"}", 400, "unreadable"),
        ("application/json", &huge, 413, "too_large"),
        ("application/json", &deep, 400, "unreadable"),
        ("application/json", "", 400, "unreadable"),
        ("application/json", "{\"code\":", 400, "unreadable"),
        ("application/json", "[]", 422, "invalid"),
        ("application/json", "{\"cod\": \"A\"}", 422, "invalid"),
        ("application/json", &long, 422, "invalid"),
        ("text/plain", "{}", 415, "unsupported_media_type"),
    ];
    for (content_type, body, status, code) in raw {
        let request =
            ann.request(Method::POST, &path).header("content-type", *content_type).body((*body).to_owned());
        let response = ApiResponse::of(request.send().await.expect("a response")).await;
        assert_eq!(response.problem(), (*status, *code), "{}", &body[..body.len().min(40)]);
    }
    let unknown = ann.post(&path, &json!({"cod": "A"})).await;
    assert_eq!(unknown.body["errors"][0]["field"], "cod");
    for coupon in ["nowhere", "-x", "%00", &"a".repeat(65), "a%2Fb"] {
        assert_eq!(ann.post(&claims(coupon), &json!({})).await.problem(), (404, "not_found"), "{coupon}");
    }
    assert_eq!(ann.post(&format!("{path}?wait=x"), &json!({})).await.problem().0, 422);
    assert_eq!(ann.post_with_key(&path, &json!({}), "").await.problem().0, 400);
    assert_eq!(ann.post(&path, &json!({"user_id": "bob"})).await.problem(), (403, "forbidden"));
    assert_eq!(Client::new("shop", Role::Service, 0).await.post(&path, &json!({})).await.problem().0, 422);
    assert_eq!(ann.get("/v1/nothing").await.problem(), (404, "not_found"));
    assert_eq!(ann.get(&path).await.problem(), (405, "method_not_allowed"));
    let html = ann.request(Method::GET, &format!("/v1/coupons/{coupon}")).header("accept", "text/html");
    assert_eq!(ApiResponse::of(html.send().await.expect("a response")).await.problem().0, 406);
    assert_eq!(admin.get(&format!("/v1/coupons/{coupon}")).await.body["counts"]["claimed"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_token_is_401_and_one_without_the_role_403() {
    let stack = real_stack().await;
    let base = &stack.endpoints().apis[0];
    let roles = || [Role::Admin].into_iter().collect();
    let good = tokens(stack, "stampede", "stampede");
    let expired = good.issue("ann", roles(), now() - 7200, 3600).expect("a token");
    let other_issuer =
        tokens(stack, "other", "stampede").issue("ann", roles(), now(), 3600).expect("a token");
    let other_audience =
        tokens(stack, "stampede", "other").issue("ann", roles(), now(), 3600).expect("a token");
    let valid = good.issue("ann", roles(), now(), 3600).expect("a token");
    let parts: Vec<&str> = valid.split('.').collect();
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(b"{\"alg\":\"none\",\"typ\":\"JWT\"}"), parts[1]);
    let rs256 = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(b"{\"alg\":\"RS256\"}"), parts[1], parts[2]);
    for token in [&expired, &other_issuer, &other_audience, &none, &rs256, "", "x.y.z"] {
        let response = Client::at(base, token).get("/v1/coupons/x").await;
        assert_eq!(response.problem(), (401, "unauthenticated"), "{token}");
        assert!(response.header("www-authenticate").starts_with("Bearer"));
    }
    let bare = reqwest::get(format!("{base}/v1/coupons/x")).await.expect("a response");
    assert_eq!(bare.status(), StatusCode::UNAUTHORIZED);
    let ann = Client::new("ann", Role::User, 0).await;
    assert_eq!(ann.post("/v1/coupons", &json!({})).await.problem(), (403, "forbidden"));
    assert_eq!(
        ann.post("/v1/coupons/x/codes/generate", &json!({"count": 1})).await.problem(),
        (403, "forbidden")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_returned_as_it_was_created_and_its_id_is_used_once() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let id = format!("own-{}", now());
    let body = json!({"id": id, "name": "Käse & Wein", "description": "a\nb", "category": "food",
        "discount": {"type": "FIXED_AMOUNT", "value": "5.00", "currency": "EUR", "minimum_order": "20.00"},
        "starts_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-02T00:00:00+01:00", "hold_seconds": 300,
        "limits": {"claims_per_user": null, "redemptions_total": 7}});
    let made = admin.post("/v1/coupons", &body).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::CREATED, &*format!("/v1/coupons/{id}")));
    for field in ["id", "name", "description", "category", "discount", "hold_seconds"] {
        assert_eq!(made.body[field], body[field], "{field}");
    }
    assert_eq!(made.body["expires_at"], "2020-01-01T23:00:00.000Z");
    assert_eq!(made.body["limits"]["claims_per_user"], Value::Null);
    assert_eq!(made.body["limits"]["redemptions_per_code"], 1);
    assert_eq!(admin.post("/v1/coupons", &body).await.problem(), (409, "already_exists"));
    // Its window is over: codes that would be available have expired.
    let job = admin.post(&format!("/v1/coupons/{id}/codes/generate"), &json!({"count": 3})).await;
    assert_eq!(admin.job_applied(job.header("location")).await["done"], 3);
    let counts = admin.get(&format!("/v1/coupons/{id}")).await.body["counts"].clone();
    assert_eq!(
        (&counts["generated"], &counts["available"], &counts["expired"]),
        (&3.into(), &0.into(), &3.into())
    );
    let small = json!({"count": 10, "pattern": {"length": 4}});
    let rejected = admin.post(&format!("/v1/coupons/{id}/codes/generate"), &small).await;
    assert_eq!((rejected.problem().0, &rejected.body["errors"][0]["field"]), (422, &"pattern.length".into()));
    assert_eq!(admin.get("/v1/jobs/nothing").await.problem().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_bound_of_pending_requests_are_rejected_immediately() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(50).await;
    let (_, base) =
        another_instance(&[("STAMPEDE_MAX_PENDING", "4"), ("STAMPEDE_MAX_PENDING_PER_PARTITION", "2")]).await;
    let stack = real_stack().await;
    let workers = [Child::Worker(0), Child::Worker(1)];
    for worker in workers {
        stack.freeze(worker).expect("frozen");
    }
    let mut responses = Vec::new();
    for n in 0..6 {
        let user = Client { base: base.clone(), ..Client::new(&format!("u{n}"), Role::User, 0).await };
        responses.push(user.post(&claims(&coupon), &json!({})).await);
    }
    // Rejected by admission control: neither token nor body is read. A read needs no place and succeeds.
    let without_token = Client::at(&base, "no token").post(&claims(&coupon), &json!([])).await;
    let location = responses[0].header("location");
    let read = Client { base: base.clone(), ..Client::new("u0", Role::User, 0).await }.get(location).await;
    for worker in workers {
        stack.resume(worker).expect("resumed");
    }
    let taken = responses.iter().filter(|response| response.status == StatusCode::ACCEPTED).count();
    assert_eq!(taken, 2, "{responses:?}");
    let rejected = responses.last().expect("responses");
    assert_eq!((rejected.problem(), rejected.header("retry-after")), ((503, "overloaded"), "1"));
    assert_eq!((without_token.problem(), without_token.header("retry-after")), ((503, "overloaded"), "1"));
    assert_eq!((read.status, &read.body["status"]), (StatusCode::OK, &json!("pending")));
    for (n, response) in
        responses.iter().enumerate().filter(|(_, response)| response.status == StatusCode::ACCEPTED)
    {
        let user = Client::new(&format!("u{n}"), Role::User, 0).await;
        let id = response.body["request_id"].as_str().expect("an id");
        assert_eq!(user.outcome(id).await["status"], "accepted");
    }
}

/// Fault 47. The client has no response; a retry with the same key gets the outcome of the same claim.
#[cfg(feature = "crash-points")]
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_aborts_between_acknowledgement_and_response_loses_nothing() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(5).await;
    let (child, base) = another_instance(&[("STAMPEDE_CRASH_AT", "after-produce-acknowledged")]).await;
    let ann = Client { base, ..Client::new("ann", Role::User, 0).await };
    let request = ann.request(Method::POST, &claims(&coupon)).header("Idempotency-Key", "k").json(&json!({}));
    assert!(request.send().await.is_err(), "the instance aborted before it responded");
    real_stack().await.wait_exit(child, Duration::from_secs(120)).await.expect("aborted");
    let ann = Client::new("ann", Role::User, 1).await;
    let response = ann.post_with_key(&format!("{}?wait=20", claims(&coupon)), &json!({}), "k").await;
    assert_eq!(response.body["status"], "accepted", "{response:?}");
    assert_eq!(admin.get(&format!("/v1/coupons/{coupon}")).await.body["counts"]["claimed"], 1);
}

#[cfg(feature = "crash-points")]
#[tokio::test(flavor = "multi_thread")]
async fn a_load_whose_instance_aborts_is_completed_and_announced_by_another_instance() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(0).await;
    for (point, codes) in [("after-load-sealed", 20), ("before-announce", 20), ("after-load-chunk", 15_000)] {
        let (child, base) = another_instance(&[("STAMPEDE_CRASH_AT", point)]).await;
        let there = Client { base, ..admin.clone() };
        let generate = format!("/v1/coupons/{coupon}/codes/generate");
        let job = there.post(&generate, &json!({"count": codes})).await;
        real_stack().await.wait_exit(child, Duration::from_secs(120)).await.expect("aborted");
        let applied = admin.job_applied(job.header("location")).await;
        assert_eq!((&applied["done"], &applied["reason"]), (&codes.into(), &Value::Null), "{point}");
    }
    let counts = admin.get(&format!("/v1/coupons/{coupon}")).await.body["counts"].clone();
    assert_eq!((&counts["generated"], &counts["available"]), (&15_040.into(), &15_040.into()));
}

/// A source that cannot be read again: its load has no pattern.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_whose_source_is_gone_is_sealed_with_its_true_count_and_a_reason() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon(0).await;
    let opened = "with opened as (
            insert into stampede.loads (job_id, coupon_no, wanted, count, maker, lease_until)
            select gen_random_uuid(), coupon_no, 5, 1, gen_random_uuid(), now()
              from stampede.coupons where coupon_id = $1 returning load_id, job_id),
         code as (insert into stampede.codes select load_id, 1, $1 || 'X', $1 || 'X' from opened)
        select job_id::text from opened";
    let job: String =
        sqlx::query_scalar(opened).bind(&coupon).fetch_one(&mut connection().await).await.unwrap();
    let applied = admin.job_applied(&format!("/v1/jobs/{job}")).await;
    assert_eq!((&applied["done"], &applied["total"]), (&1.into(), &5.into()));
    assert!(applied["reason"].as_str().is_some_and(|reason| reason.contains("source")), "{applied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_lists_every_route_and_the_probes_report_ready() {
    let base = real_stack().await.endpoints().apis[0].clone();
    let get = async |path: &str| {
        ApiResponse::of(reqwest::get(format!("{base}{path}")).await.expect("a response")).await
    };
    let document = get("/openapi.json").await.body;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for (method, path) in [
        ("post", "/v1/coupons"),
        ("get", "/v1/coupons/{coupon_id}"),
        ("post", "/v1/coupons/{coupon_id}/codes/generate"),
        ("get", "/v1/jobs/{job_id}"),
        ("post", "/v1/coupons/{coupon_id}/claims"),
        ("get", "/v1/requests/{request_id}"),
        ("post", "/v1/codes/{code}/lock"),
        ("delete", "/v1/codes/{code}/lock"),
        ("delete", "/v1/codes/{code}/claim"),
        ("post", "/v1/codes/{code}/redemptions"),
        ("delete", "/v1/codes/{code}"),
        ("delete", "/v1/redemptions/{redemption_id}"),
        ("get", "/v1/codes/{code}/validation"),
        ("get", "/v1/users/{user_id}/codes"),
        ("get", "/v1/users/{user_id}/requests"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    assert!(document["info"]["description"].as_str().is_some_and(|text| text.contains("`sold_out`")));
    assert_eq!(get("/healthz").await.status, StatusCode::OK);
    assert_eq!(get("/readyz").await.status, StatusCode::OK);
}
