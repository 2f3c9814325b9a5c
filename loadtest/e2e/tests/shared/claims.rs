//! Claims through the public API: valid, repeated, and malformed ones.

use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

use e2e::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use e2e::{ApiResponse, Claimants, Environment, HttpRequest, Operation, Reply, Request};

/// The code of an accepted claim.
fn code_of(response: &ApiResponse) -> &str {
    match response {
        ApiResponse::Accepted { code } => code,
        response => panic!("expected a code, received {response:?}"),
    }
}

/// The reason of a rejected claim.
fn reason_of(response: &ApiResponse) -> &str {
    match response {
        ApiResponse::Rejected { reason } => reason,
        response => panic!("expected a rejection, received {response:?}"),
    }
}

/// Status and code of a problem.
fn problem(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.body);
    (reply.status, reply.json()["code"].as_str().unwrap().to_owned())
}

async fn a_claim_is_accepted_decided_and_shown_by_every_api(env: &Environment) {
    let coupon = env.coupon(3, 1).await;
    let reply = env.submit(Request::claim("ann", &coupon.id).wait(0)).await;
    assert_eq!((reply.status, reply.header("retry-after")), (202, Some("1")), "{}", reply.body);
    let accepted = reply.json();
    assert_eq!(accepted["status"], "pending");
    let location = reply.header("location").unwrap().to_owned();
    assert_eq!(location, format!("/v1/requests/{}", accepted["request_id"].as_str().unwrap()));

    let outcome = env.get(0, &format!("{location}?wait=10"), &env.token("ann")).await;
    assert_eq!(outcome.status, 200);
    let outcome = outcome.json();
    assert_eq!((outcome["status"].as_str(), outcome["kind"].as_str()), (Some("accepted"), Some("claim")));
    assert_eq!((outcome["coupon_id"].as_str(), &outcome["reason"]), (Some(&*coupon.id), &Value::Null));
    assert_eq!(outcome["claim"]["code"], outcome["code"]);
    assert_eq!(outcome["claim"]["state"], "CLAIMED");
    let counts = env.counts(&coupon.id).await;
    assert_eq!((counts["generated"].as_i64(), counts["available"].as_i64()), (Some(3), Some(2)));
    assert_eq!(counts["claimed"].as_i64(), Some(1));

    // Both APIs show the same, then and later.
    let elsewhere = env.get(1, &location, &env.token("ann")).await;
    assert_eq!(elsewhere.json(), outcome);
}

async fn a_client_that_waits_gets_the_outcome_in_the_response_to_its_claim(env: &Environment) {
    let coupon = env.coupon(3, 1).await;
    let reply = env.submit(Request::claim("ann", &coupon.id)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    code_of(&reply.parsed());
    let token = env.token("bob");
    let preferring = HttpRequest::post(format!("/v1/coupons/{coupon}/claims"), "{}")
        .token(&token)
        .header(HeaderName::from_static("prefer"), HeaderValue::from_static("wait=10"));
    let reply = env.send_http(1, &preferring).await.unwrap();
    assert_eq!((reply.status, reply.header("preference-applied")), (200, Some("wait=10")), "{}", reply.body);
}

async fn a_retry_with_the_same_key_has_the_same_outcome_at_any_api(env: &Environment) {
    let coupon = env.coupon(3, 5).await;
    let request = Request::claim("ann", &coupon.id).key("k");
    let handle = env.record_sent(&request);
    let first = env.submit_recorded(handle, request).await;
    let code = code_of(&first.parsed()).to_owned();
    for api in [0, 1, 0] {
        let again = env.submit_recorded(handle, request.at(api)).await;
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (200, Some("true")),
            "{}",
            again.body
        );
        assert_eq!(code_of(&again.parsed()), code);
    }
    assert_eq!(env.counts(&coupon.id).await["claimed"], 1);
    // Another key, and no key, are other requests.
    assert_ne!(code_of(&env.submit(request.key("l")).await.parsed()), code);
    assert_ne!(code_of(&env.submit(Request { key: None, ..request }).await.parsed()), code);
}

async fn fault_36_the_same_key_on_two_coupons_is_two_requests(env: &Environment) {
    let (one, other) = (env.coupon(1, 1).await, env.coupon(1, 1).await);
    let code = env.submit(Request::claim("ann", &one.id).key("k")).await.parsed();
    assert_ne!(
        code_of(&env.submit(Request::claim("ann", &other.id).key("k")).await.parsed()),
        code_of(&code)
    );
}

async fn fault_34_another_body_under_the_same_key_is_rejected_and_the_first_outcome_stays(env: &Environment) {
    let coupon = env.coupon(5, 5).await;
    let send = async |api: usize, key: &str, body: Value| {
        let (path, token) = (format!("/v1/coupons/{coupon}/claims?wait=10"), env.token("ann"));
        let request = HttpRequest::post(path, body.to_string()).token(&token).idempotency_key(key);
        env.send_http(api, &request).await.unwrap()
    };
    let first = send(0, "k", json!({})).await;
    code_of(&first.parsed());
    assert_eq!(
        problem(&send(1, "k", json!({"code": "ANOTHER"})).await),
        (422, "idempotency_key_reused".to_owned())
    );
    assert_eq!(code_of(&send(1, "k", json!({})).await.parsed()), code_of(&first.parsed()));

    // Both concurrently: one of them is the first, and the other one is rejected, by a problem or by its outcome.
    for round in 0..10 {
        let key = format!("round {round}");
        let (any, named) = tokio::join!(send(0, &key, json!({})), send(1, &key, json!({"code": "ANOTHER"})));
        let is_rejected = |reply: &Reply| match reply.parsed() {
            ApiResponse::Rejected { reason } => &*reason == "idempotency_key_reused",
            ApiResponse::Problem { status, code } => (status, &*code) == (422, "idempotency_key_reused"),
            _ => false,
        };
        assert!(is_rejected(&any) != is_rejected(&named), "{} and {}", any.body, named.body);
    }
}

async fn fault_35_one_key_sent_a_hundred_times_to_two_apis_is_one_request(env: &Environment) {
    let coupon = env.coupon(200, 200).await;
    let request = Request::claim("ann", &coupon.id).key("k");
    let handle = env.record_sent(&request);
    let replies = join_all((0..100).map(|n| env.send_once(handle, request.at(n % 2)))).await;
    let codes: BTreeSet<String> =
        replies.into_iter().map(|reply| code_of(&reply.unwrap().parsed()).to_owned()).collect();
    assert_eq!(codes.len(), 1, "{codes:?}");
    // Behind all of them in the log.
    assert_eq!(env.rejected("bob", Operation::claim_code(&coupon.id, "NOSUCHCODE")).await, "code_unknown");
    assert_eq!(env.counts(&coupon.id).await["claimed"], 1);
}

async fn a_winner_who_retries_after_the_coupon_is_sold_out_receives_the_accepted_outcome(env: &Environment) {
    let coupon = env.coupon(1, 1).await;
    let request = Request::claim("ann", &coupon.id).key("k");
    let handle = env.record_sent(&request);
    let code = code_of(&env.submit_recorded(handle, request).await.parsed()).to_owned();
    assert_eq!(reason_of(&env.submit(Request::claim("bob", &coupon.id)).await.parsed()), "sold_out");
    for api in [0, 1] {
        let again = env.submit_recorded(handle, request.at(api)).await;
        assert_eq!(code_of(&again.parsed()), code);
        // A claim with a key passes the gate and gets a decided outcome.
        let user = format!("carl{api}");
        assert_eq!(
            reason_of(&env.submit(Request::claim(&user, &coupon.id).key("k").at(api)).await.parsed()),
            "sold_out"
        );
    }
}

async fn a_user_gets_no_more_codes_than_the_coupon_allows(env: &Environment) {
    let coupon = env.coupon(50, 2).await;
    let replies = join_all((0..20).map(|n| env.submit(Request::claim("ann", &coupon.id).at(n % 2)))).await;
    let responses: Vec<ApiResponse> = replies.iter().map(Reply::parsed).collect();
    let limited = responses.iter().filter(|responses| matches!(responses, ApiResponse::Rejected { .. }));
    assert!(limited.clone().all(|responses| reason_of(responses) == "user_limit_reached"), "{responses:?}");
    assert_eq!(limited.count(), 18);
    assert_eq!(env.counts(&coupon.id).await["claimed"], 2);
}

async fn every_claim_after_the_last_code_is_rejected_as_sold_out(env: &Environment) {
    let coupon = env.coupon(100, 1).await;
    let tally = Claimants::new(&coupon.id, 300).run(env).await;
    assert_eq!((tally.won, tally.sold_out), (100, 200), "{tally:?}");
    let counts = env.counts(&coupon.id).await;
    assert_eq!((counts["available"].as_i64(), counts["claimed"].as_i64()), (Some(0), Some(100)));
}

async fn the_gate_rejects_claims_of_a_sold_out_coupon_until_there_is_stock_again(env: &Environment) {
    let coupon = env.coupon(1, 100).await;
    code_of(&env.submit(Request::claim("ann", &coupon.id)).await.parsed());
    let mut gated = 0;
    for n in 0..50 {
        let user = format!("user-{n}");
        let reply = env.submit(Request::claim(&user, &coupon.id)).await;
        if reply.parsed().is_gate() {
            assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
            gated += 1;
        } else {
            assert_eq!(reason_of(&reply.parsed()), "sold_out");
        }
    }
    assert!(gated > 25, "the gate rejected {gated} of 50");
    env.generate(&coupon.id, 5).await;
    // Both APIs receive the event, or notice at the end of their lease.
    for api in [0, 1] {
        let user = format!("late-{api}");
        let responses = loop {
            let responses = env.submit(Request::claim(&user, &coupon.id).at(api)).await.parsed();
            if !responses.is_gate() {
                break responses;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        code_of(&responses);
    }
}

async fn a_claim_of_an_unknown_coupon_is_404_and_one_outside_the_window_is_rejected(env: &Environment) {
    for unknown in ["no-such-coupon", "-", "%00", "a%20b", &"x".repeat(65)] {
        let path = format!("/v1/coupons/{unknown}/claims");
        let reply = env.post(0, &path, &env.token("ann"), &json!({})).await;
        assert_eq!(problem(&reply), (404, "not_found".to_owned()), "{unknown}");
    }
    let early = env.empty_coupon(json!({"starts_at": "2999-01-01T00:00:00Z"})).await;
    env.generate(&early.id, 1).await;
    assert_eq!(reason_of(&env.submit(Request::claim("ann", &early.id)).await.parsed()), "not_started");
    let late = env.empty_coupon(json!({"expires_at": "2001-01-01T00:00:00Z"})).await;
    env.generate(&late.id, 1).await;
    assert_eq!(reason_of(&env.submit(Request::claim("ann", &late.id)).await.parsed()), "expired");
    assert_eq!(env.counts(&late.id).await["expired"], 1);
}

async fn a_request_is_shown_to_its_user_only_and_an_invented_id_is_404(env: &Environment) {
    let coupon = env.coupon(1, 1).await;
    let reply = env.submit(Request::claim("ann", &coupon.id)).await.json();
    let id = reply["request_id"].as_str().unwrap();
    let path = format!("/v1/requests/{id}");
    assert_eq!(env.get(1, &path, &env.token("ann")).await.status, 200);
    assert_eq!(problem(&env.get(1, &path, &env.token("bob")).await), (404, "not_found".to_owned()));
    let canonical = id.split('.').next().unwrap();
    for invented in
        [canonical, "x", "%00", &format!("{canonical}.AAAAAAAAAAAAAAAAAAAAAA"), &"A".repeat(5_000)]
    {
        let reply = env.get(0, &format!("/v1/requests/{invented}"), &env.token("ann")).await;
        assert_eq!(problem(&reply), (404, "not_found".to_owned()), "{invented}");
    }
}

async fn faults_32_and_33_bodies_that_are_too_large_too_deep_or_not_json_are_rejected(env: &Environment) {
    let coupon = env.coupon(2, 1).await;
    let path = format!("/v1/coupons/{coupon}/claims");
    let send = async |body: Vec<u8>, kind: &'static str| {
        let (token, kind) = (env.token("ann"), HeaderValue::from_static(kind));
        let request = HttpRequest::post(&*path, body).token(&token).header(CONTENT_TYPE, kind);
        env.send_http(0, &request).await
    };
    let json = "application/json";
    let deep = ["[".repeat(10_000), "]".repeat(10_000)].concat();
    let deep_object = [r#"{"a":"#.repeat(10_000), "1".to_owned(), "}".repeat(10_000)].concat();
    for (body, status) in [
        (deep.into_bytes(), 400),
        (deep_object.into_bytes(), 400),
        (b"{".to_vec(), 400),
        (b"{\"code\": \"\xff\"}".to_vec(), 400),
        (br#"{"code": "A\u0000B"}"#.to_vec(), 422),
        (br#"{"user_id": "\u0000"}"#.to_vec(), 422),
        (br#"{"surprise": 1}"#.to_vec(), 422),
        (b"[]".to_vec(), 422),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let reply = send(body, json).await.unwrap();
        assert_eq!(problem(&reply).0, status, "{shown}: {}", reply.body);
    }
    // The server may respond before it has read the body, or close the connection. It never accepts the claim.
    let huge = send([b"\"", &[b'x'; 10 << 20][..], b"\""].concat(), json).await;
    assert!(huge.is_none_or(|reply| reply.status == 413));
    assert_eq!(problem(&send(b"{}".to_vec(), "text/plain").await.unwrap()).0, 415);
    code_of(&env.submit(Request::claim("ann", &coupon.id)).await.parsed());
}

async fn fault_40_invalid_and_expired_tokens_are_rejected(env: &Environment) {
    let coupon = env.coupon(1, 1).await;
    let path = format!("/v1/coupons/{coupon}/claims");
    let secret = env.stack.jwt_secret().to_owned();
    let good = json!({"sub": "ann", "roles": ["user"], "iss": "stampede", "aud": "stampede", "exp": 32_503_680_000_u64});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let signed = |claims: &Value, algorithm: jsonwebtoken::Algorithm, secret: &str| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::new(algorithm), claims, &key).unwrap()
    };
    let hs256 = jsonwebtoken::Algorithm::HS256;
    let ours = signed(&good, hs256, &secret);
    let body = ours.split('.').nth(1).unwrap();
    let invalid = [
        ("another secret", signed(&good, hs256, "another secret of some length")),
        ("another algorithm", signed(&good, jsonwebtoken::Algorithm::HS512, &secret)),
        ("expired", signed(&with("exp", json!(1_000_000_000)), hs256, &secret)),
        ("of another audience", signed(&with("aud", json!("another")), hs256, &secret)),
        ("of another issuer", signed(&with("iss", json!("another")), hs256, &secret)),
        ("without a user", signed(&with("sub", json!("")), hs256, &secret)),
        // {"alg":"none","typ":"JWT"}
        ("unsigned", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")),
        ("no token", "rubbish".to_owned()),
    ];
    for (what, token) in invalid {
        let reply = env.post(0, &path, &token, &json!({})).await;
        assert_eq!(problem(&reply), (401, "unauthenticated".to_owned()), "{what}");
        assert!(reply.header("www-authenticate").is_some(), "{what}");
    }
    let anonymous = env.send_http(0, &HttpRequest::post(&*path, "{}")).await.unwrap();
    assert_eq!(problem(&anonymous).0, 401);
    // A user acts for itself; an administrator creates coupons and claims nothing; a user creates no coupons.
    let for_bob = env.post(0, &path, &ours, &json!({"user_id": "bob"})).await;
    assert_eq!(problem(&for_bob), (403, "forbidden".to_owned()));
    assert_eq!(problem(&env.post(0, &path, &env.admin(), &json!({})).await).0, 403);
    assert_eq!(problem(&env.post(0, "/v1/coupons", &ours, &json!({})).await).0, 403);
    // A service acts for the user it names.
    let service = env.tokens.issue("shop", "service").unwrap();
    let for_carl = env.post(0, &format!("{path}?wait=10"), &service, &json!({"user_id": "carl"})).await;
    code_of(&for_carl.parsed());
}

e2e::tests![
    a_claim_is_accepted_decided_and_shown_by_every_api,
    a_client_that_waits_gets_the_outcome_in_the_response_to_its_claim,
    a_retry_with_the_same_key_has_the_same_outcome_at_any_api,
    fault_36_the_same_key_on_two_coupons_is_two_requests,
    fault_34_another_body_under_the_same_key_is_rejected_and_the_first_outcome_stays,
    fault_35_one_key_sent_a_hundred_times_to_two_apis_is_one_request,
    a_winner_who_retries_after_the_coupon_is_sold_out_receives_the_accepted_outcome,
    a_user_gets_no_more_codes_than_the_coupon_allows,
    every_claim_after_the_last_code_is_rejected_as_sold_out,
    the_gate_rejects_claims_of_a_sold_out_coupon_until_there_is_stock_again,
    a_claim_of_an_unknown_coupon_is_404_and_one_outside_the_window_is_rejected,
    a_request_is_shown_to_its_user_only_and_an_invented_id_is_404,
    faults_32_and_33_bodies_that_are_too_large_too_deep_or_not_json_are_rejected,
    fault_40_invalid_and_expired_tokens_are_rejected,
];
