//! Claims through the public API, on a stack that nobody hurts: what a client can do right, and what it can do wrong.

use checker::Told;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Ask, Crowd, Field, Kind, Reply};

fn won(told: &Told) -> &str {
    match told {
        Told::Accepted { code } => code,
        told => panic!("expected a code, was told {told:?}"),
    }
}

fn rejected(told: &Told) -> &str {
    match told {
        Told::Rejected { reason } => reason,
        told => panic!("expected a rejection, was told {told:?}"),
    }
}

fn problem(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.body);
    (reply.status, reply.json()["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_claim_travels_from_http_to_postgres_and_back() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(3, 1).await;
    let reply = field.ask(Ask::of("ann", &coupon).wait(0)).await;
    assert_eq!((reply.status, reply.header("retry-after")), (202, Some("1")), "{}", reply.body);
    let accepted = reply.json();
    assert_eq!(accepted["status"], "pending");
    let place = reply.header("location").unwrap().to_owned();
    assert_eq!(place, format!("/v1/requests/{}", accepted["request_id"].as_str().unwrap()));

    let outcome = field.get(0, &format!("{place}?wait=10"), &field.token("ann")).await;
    assert_eq!(outcome.status, 200);
    let outcome = outcome.json();
    assert_eq!((outcome["status"].as_str(), outcome["kind"].as_str()), (Some("accepted"), Some("claim")));
    assert_eq!((outcome["coupon_id"].as_str(), &outcome["reason"]), (Some(&*coupon), &Value::Null));
    assert_eq!(outcome["claim"]["code"], outcome["code"]);
    assert_eq!(outcome["claim"]["state"], "CLAIMED");
    let counts = field.counts(&coupon).await;
    assert_eq!((counts["generated"].as_i64(), counts["available"].as_i64()), (Some(3), Some(2)));
    assert_eq!(counts["claimed"].as_i64(), Some(1));

    // Any instance tells the same, then and later.
    let elsewhere = field.get(1, &place, &field.token("ann")).await;
    assert_eq!(elsewhere.json(), outcome);
    field.leave().await;
}

#[tokio::test]
async fn a_client_that_waits_gets_the_outcome_in_the_same_answer() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(3, 1).await;
    let reply = field.ask(Ask::of("ann", &coupon)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    won(&reply.told());
    let preferring = field
        .http
        .post(field.url(1, &format!("/v1/coupons/{coupon}/claims")))
        .bearer_auth(field.token("bob"))
        .header("prefer", "wait=10")
        .json(&json!({}));
    let reply = field.send(preferring).await.unwrap();
    assert_eq!((reply.status, reply.header("preference-applied")), (200, Some("wait=10")), "{}", reply.body);
    field.leave().await;
}

#[tokio::test]
async fn a_retry_with_the_same_key_has_the_same_outcome_on_any_instance() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(3, 5).await;
    let asked = field.history.sent("ann", &coupon, Some("k"));
    let ask = Ask::of("ann", &coupon).key("k");
    let first = field.claim_once(asked, ask).await.unwrap();
    let code = won(&first.told()).to_owned();
    for api in [0, 1, 0] {
        let again = field.claim_once(asked, ask.at(api)).await.unwrap();
        assert_eq!(
            (again.status, again.header("idempotent-replayed")),
            (200, Some("true")),
            "{}",
            again.body
        );
        assert_eq!(won(&again.told()), code);
    }
    assert_eq!(field.counts(&coupon).await["claimed"], 1);
    // Another key, and no key, are other requests.
    assert_ne!(won(&field.ask(ask.key("l")).await.told()), code);
    assert_ne!(won(&field.ask(Ask { key: None, ..ask }).await.told()), code);
    field.leave().await;
}

#[tokio::test]
async fn the_same_key_on_two_coupons_is_two_requests() {
    let field = Field::enter(Kind::Calm).await;
    let (one, other) = (field.coupon(1, 1).await, field.coupon(1, 1).await);
    let code = field.ask(Ask::of("ann", &one).key("k")).await.told();
    assert_ne!(won(&field.ask(Ask::of("ann", &other).key("k")).await.told()), won(&code));
    field.leave().await;
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused_and_the_first_outcome_stays() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(5, 5).await;
    let send = async |api: usize, key: &str, body: Value| {
        let url = field.url(api, &format!("/v1/coupons/{coupon}/claims?wait=10"));
        let request = field.http.post(url).bearer_auth(field.token("ann")).header("idempotency-key", key);
        field.send(request.json(&body)).await.unwrap()
    };
    let first = send(0, "k", json!({})).await;
    won(&first.told());
    assert_eq!(
        problem(&send(1, "k", json!({"code": "ANOTHER"})).await),
        (422, "idempotency_key_reused".to_owned())
    );
    assert_eq!(won(&send(1, "k", json!({})).await.told()), won(&first.told()));

    // Both at once: one of them is the first, the other one is told so, as a problem or as its own outcome.
    for round in 0..10 {
        let key = format!("round {round}");
        let (any, named) = tokio::join!(send(0, &key, json!({})), send(1, &key, json!({"code": "ANOTHER"})));
        let is_refused = |reply: &Reply| match reply.told() {
            Told::Rejected { reason } => &*reason == "idempotency_key_reused",
            Told::Problem { status, code } => (status, &*code) == (422, "idempotency_key_reused"),
            _ => false,
        };
        assert!(is_refused(&any) != is_refused(&named), "{} and {}", any.body, named.body);
    }
    field.leave().await;
}

#[tokio::test]
async fn one_key_sent_a_hundred_times_at_once_to_two_instances_is_one_request() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(200, 200).await;
    let asked = field.history.sent("ann", &coupon, Some("k"));
    let ask = Ask::of("ann", &coupon).key("k");
    let replies = join_all((0..100).map(|n| field.claim_once(asked, ask.at(n % 2)))).await;
    let codes: BTreeSet<String> =
        replies.into_iter().map(|reply| won(&reply.unwrap().told()).to_owned()).collect();
    assert_eq!(codes.len(), 1, "{codes:?}");
    let report = field.checked().await;
    assert_eq!(field.counts(&coupon).await["claimed"], 1, "\n{report}");
    field.leave().await;
}

#[tokio::test]
async fn a_winner_who_retries_after_the_coupon_is_sold_out_hears_that_they_won() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(1, 1).await;
    let ask = Ask::of("ann", &coupon).key("k");
    let asked = field.history.sent("ann", &coupon, Some("k"));
    let code = won(&field.claim_once(asked, ask).await.unwrap().told()).to_owned();
    assert_eq!(rejected(&field.ask(Ask::of("bob", &coupon)).await.told()), "sold_out");
    for api in [0, 1] {
        let again = field.claim_once(asked, ask.at(api)).await.unwrap();
        assert_eq!(won(&again.told()), code);
        // A loser with a key is told a decided outcome, too, and not the gate's.
        let user = format!("carl{api}");
        assert_eq!(rejected(&field.ask(Ask::of(&user, &coupon).key("k").at(api)).await.told()), "sold_out");
    }
    field.leave().await;
}

#[tokio::test]
async fn a_user_gets_no_more_codes_than_the_coupon_allows() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(50, 2).await;
    let replies = join_all((0..20).map(|n| field.ask(Ask::of("ann", &coupon).at(n % 2)))).await;
    let told: Vec<Told> = replies.iter().map(Reply::told).collect();
    let limited = told.iter().filter(|told| matches!(told, Told::Rejected { .. }));
    assert!(limited.clone().all(|told| rejected(told) == "user_limit_reached"), "{told:?}");
    assert_eq!(limited.count(), 18);
    assert_eq!(field.counts(&coupon).await["claimed"], 2);
    field.leave().await;
}

#[tokio::test]
async fn when_the_codes_are_gone_everybody_else_is_told_sold_out() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(100, 1).await;
    let tally = Crowd::new(&coupon, 300).run(&field).await;
    assert_eq!((tally.won, tally.sold_out), (100, 200), "{tally:?}");
    let counts = field.counts(&coupon).await;
    assert_eq!((counts["available"].as_i64(), counts["claimed"].as_i64()), (Some(0), Some(100)));
    field.leave().await;
}

#[tokio::test]
async fn the_gate_answers_for_a_sold_out_coupon_until_there_is_stock_again() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(1, 100).await;
    won(&field.ask(Ask::of("ann", &coupon)).await.told());
    let mut gated = 0;
    for n in 0..50 {
        let user = format!("user-{n}");
        let reply = field.ask(Ask::of(&user, &coupon)).await;
        if reply.told().is_gate() {
            assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
            gated += 1;
        } else {
            assert_eq!(rejected(&reply.told()), "sold_out");
        }
    }
    assert!(gated > 25, "{gated} of 50 were answered at the door");
    field.generate(&coupon, 5).await;
    // Every instance hears of the stock by itself, or at the latest when its lease is over.
    for api in [0, 1] {
        let user = format!("late-{api}");
        let told = loop {
            let told = field.ask(Ask::of(&user, &coupon).at(api)).await.told();
            if !told.is_gate() {
                break told;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        won(&told);
    }
    field.leave().await;
}

#[tokio::test]
async fn an_unknown_coupon_is_not_found_and_one_out_of_its_window_says_so() {
    let field = Field::enter(Kind::Calm).await;
    for unknown in ["nobody-made-this", "-", "%00", "a%20b", &"x".repeat(65)] {
        let path = format!("/v1/coupons/{unknown}/claims");
        let reply = field.post(0, &path, &field.token("ann"), &json!({})).await;
        assert_eq!(problem(&reply), (404, "not_found".to_owned()), "{unknown}");
    }
    let early = field.coupon_of(json!({"starts_at": "2999-01-01T00:00:00Z"})).await;
    field.generate(&early, 1).await;
    assert_eq!(rejected(&field.ask(Ask::of("ann", &early)).await.told()), "not_started");
    let late = field.coupon_of(json!({"expires_at": "2001-01-01T00:00:00Z"})).await;
    field.generate(&late, 1).await;
    assert_eq!(rejected(&field.ask(Ask::of("ann", &late)).await.told()), "expired");
    assert_eq!(field.counts(&late).await["expired"], 1);
    field.leave().await;
}

#[tokio::test]
async fn a_request_is_shown_to_its_user_only_and_a_made_up_one_to_nobody() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(1, 1).await;
    let reply = field.ask(Ask::of("ann", &coupon)).await.json();
    let id = reply["request_id"].as_str().unwrap();
    let path = format!("/v1/requests/{id}");
    assert_eq!(field.get(1, &path, &field.token("ann")).await.status, 200);
    assert_eq!(problem(&field.get(1, &path, &field.token("bob")).await), (404, "not_found".to_owned()));
    let canonical = id.split('.').next().unwrap();
    for made_up in [canonical, "x", "%00", &format!("{canonical}.AAAAAAAAAAAAAAAAAAAAAA"), &"A".repeat(5_000)]
    {
        let reply = field.get(0, &format!("/v1/requests/{made_up}"), &field.token("ann")).await;
        assert_eq!(problem(&reply), (404, "not_found".to_owned()), "{made_up}");
    }
    field.leave().await;
}

#[tokio::test]
async fn bodies_that_are_too_large_too_deep_or_no_json_are_refused_and_nothing_else_suffers() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(2, 1).await;
    let path = format!("/v1/coupons/{coupon}/claims");
    let send = async |body: Vec<u8>, kind: &'static str| {
        let request = field.http.post(field.url(0, &path)).bearer_auth(field.token("ann"));
        field.send(request.header("content-type", kind).body(body)).await
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
    // The server may answer before it has read all of it, or close the connection; never accept it.
    let huge = send([b"\"", &[b'x'; 10 << 20][..], b"\""].concat(), json).await;
    assert!(huge.is_none_or(|reply| reply.status == 413));
    assert_eq!(problem(&send(b"{}".to_vec(), "text/plain").await.unwrap()).0, 415);
    won(&field.ask(Ask::of("ann", &coupon)).await.told());
    field.leave().await;
}

#[tokio::test]
async fn tokens_that_are_not_ours_or_not_good_any_more_are_refused() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(1, 1).await;
    let path = format!("/v1/coupons/{coupon}/claims");
    let secret = field.stack.jwt_secret().to_owned();
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
    let refused = [
        ("another secret", signed(&good, hs256, "another secret of some length")),
        ("another algorithm", signed(&good, jsonwebtoken::Algorithm::HS512, &secret)),
        ("expired", signed(&with("exp", json!(1_000_000_000)), hs256, &secret)),
        ("of another audience", signed(&with("aud", json!("somebody")), hs256, &secret)),
        ("of another issuer", signed(&with("iss", json!("somebody")), hs256, &secret)),
        ("without a user", signed(&with("sub", json!("")), hs256, &secret)),
        // {"alg":"none","typ":"JWT"}
        ("unsigned", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")),
        ("no token", "rubbish".to_owned()),
    ];
    for (what, token) in refused {
        let reply = field.post(0, &path, &token, &json!({})).await;
        assert_eq!(problem(&reply), (401, "unauthenticated".to_owned()), "{what}");
        assert!(reply.header("www-authenticate").is_some(), "{what}");
    }
    let anonymous = field.send(field.http.post(field.url(0, &path)).json(&json!({}))).await.unwrap();
    assert_eq!(problem(&anonymous).0, 401);
    // A user acts for itself; an admin makes coupons and claims nothing; a user makes no coupons.
    let for_bob = field.post(0, &path, &ours, &json!({"user_id": "bob"})).await;
    assert_eq!(problem(&for_bob), (403, "forbidden".to_owned()));
    assert_eq!(problem(&field.post(0, &path, &field.admin(), &json!({})).await).0, 403);
    assert_eq!(problem(&field.post(0, "/v1/coupons", &ours, &json!({})).await).0, 403);
    // A service acts for whom it names.
    let service = field.tokens.issue("shop", "service").unwrap();
    let for_carl = field.post(0, &format!("{path}?wait=10"), &service, &json!({"user_id": "carl"})).await;
    won(&for_carl.told());
    field.leave().await;
}
