//! Errors of every route about a code: roles, invalid input, reused keys.

use ingest_api::auth::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::stack::{ApiResponse, Client};

const CODE: &str = "/v1/codes/NEVERMADE";

fn redemption() -> String {
    format!("/v1/redemptions/{}A", "C".repeat(21))
}

fn order() -> Value {
    json!({"order_id": "o", "order_amount": "10.00", "currency": "EUR"})
}

async fn send(client: &Client, method: &Method, path: &str, body: Option<&Value>) -> ApiResponse {
    let request = client.request(method.clone(), path);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    ApiResponse::of(request.send().await.expect("a response")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_accepts_its_own_roles_and_no_other() {
    let [user, service, admin] = [
        Client::new("ann", Role::User, 0).await,
        Client::new("shop", Role::Service, 0).await,
        Client::new("boss", Role::Admin, 0).await,
    ];
    let named = |mut body: Value| {
        body["user_id"] = "bob".into();
        body
    };
    let ok = 202;
    let routes = [
        (Method::POST, format!("{CODE}/lock"), Some(json!({})), [ok, ok, 403]),
        (Method::DELETE, format!("{CODE}/lock"), None, [ok, ok, 403]),
        (Method::DELETE, format!("{CODE}/claim"), None, [ok, ok, 403]),
        (Method::POST, format!("{CODE}/redemptions"), Some(order()), [ok, ok, 403]),
        (Method::DELETE, redemption(), None, [403, ok, ok]),
        (Method::DELETE, CODE.to_owned(), None, [403, 403, ok]),
        (Method::GET, format!("{CODE}/validation"), None, [200, 200, 403]),
        (Method::GET, "/v1/users/bob/codes".to_owned(), None, [403, 200, 403]),
        (Method::GET, "/v1/users/bob/requests".to_owned(), None, [403, 200, 200]),
    ];
    for (method, path, body, wanted) in routes {
        let for_bob = format!("{path}?user_id=bob");
        let body_for_bob = body.clone().map(named);
        let by_service = match &body_for_bob {
            Some(body) => send(&service, &method, &path, Some(body)).await,
            None => send(&service, &method, &for_bob, None).await,
        };
        let responses = [
            send(&user, &method, &path, body.as_ref()).await.status.as_u16(),
            by_service.status.as_u16(),
            send(&admin, &method, &path, body.as_ref()).await.status.as_u16(),
        ];
        assert_eq!(responses, wanted, "{method} {path}");
        let bare = reqwest::Client::new().request(method.clone(), format!("{}{path}", user.base));
        assert_eq!(
            bare.send().await.expect("a response").status(),
            StatusCode::UNAUTHORIZED,
            "{method} {path}"
        );
        if wanted[0] != 403 {
            // A user's token that names another user; a service that names no user.
            let other = match &body_for_bob {
                Some(body) => send(&user, &method, &path, Some(body)).await,
                None => send(&user, &method, &for_bob, None).await,
            };
            assert_eq!(other.problem(), (403, "forbidden"), "{method} {path}");
            assert_eq!(send(&service, &method, &path, body.as_ref()).await.problem(), (422, "invalid"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_input_is_reported_by_its_field_and_never_a_500() {
    let ann = Client::new("ann", Role::User, 0).await;
    let admin = Client::new("boss", Role::Admin, 0).await;
    let long = "A".repeat(65);
    for code in ["A", "A_B_C_D", "%00ABCD", "ABCD%C3%89", &long, "--------", "%20%20%20%20%20"] {
        for (method, name, body) in [
            (Method::POST, "/lock", Some(json!({}))),
            (Method::DELETE, "/lock", None),
            (Method::DELETE, "/claim", None),
            (Method::POST, "/redemptions", Some(order())),
            (Method::GET, "/validation", None),
        ] {
            let response = send(&ann, &method, &format!("/v1/codes/{code}{name}"), body.as_ref()).await;
            assert_eq!(response.problem(), (422, "invalid"), "{method} {code}{name}");
            assert_eq!(response.body["errors"][0]["field"], "code");
        }
        let response = admin.delete(&format!("/v1/codes/{code}")).await;
        assert_eq!(response.problem(), (422, "invalid"), "{code}");
    }
    assert_eq!(ann.post("/v1/codes/%ff/lock", &json!({})).await.problem(), (400, "unreadable"));
    assert_eq!(ann.get(&format!("{CODE}/lock")).await.problem(), (405, "method_not_allowed"));
    for id in ["x", "%00", &"A".repeat(23), &"A".repeat(400)] {
        let response = admin.delete(&format!("/v1/redemptions/{id}")).await;
        assert_eq!(
            (response.problem(), &response.body["errors"][0]["field"]),
            ((422, "invalid"), &"redemption_id".into())
        );
    }

    let redeem = format!("{CODE}/redemptions");
    for (field, values) in [
        (
            "order_amount",
            vec![
                json!("-1"),
                json!("1.005"),
                json!("NaN"),
                json!("1e3"),
                json!("1000000000000"),
                json!(10),
                json!(10.5),
                json!(""),
                json!(null),
                json!({}),
                json!("9".repeat(60_000)),
            ],
        ),
        ("currency", vec![json!("eur"), json!("EURO"), json!(""), json!(978), json!(null)]),
        (
            "order_id",
            vec![json!(""), json!("x".repeat(129)), json!("a\u{0}b"), json!("a\nb"), json!(5), json!(null)],
        ),
        ("user_id", vec![json!(""), json!("x".repeat(257)), json!("a\tb"), json!(5)]),
        ("odd", vec![json!(1)]),
    ] {
        for value in values {
            let mut body = order();
            body[field] = value;
            let response = ann.post(&redeem, &body).await;
            assert_eq!(response.problem(), (422, "invalid"), "{field}: {body}");
            assert_eq!(response.body["errors"][0]["field"], field);
        }
    }
    let nothing = ann.post(&redeem, &json!({})).await;
    assert_eq!(nothing.body["errors"].as_array().map(Vec::len), Some(3), "{nothing:?}");
    let lock = format!("{CODE}/lock");
    for body in [json!([]), json!({"order_id": ""}), json!({"order_id": "x".repeat(129)}), json!({"odd": 1})]
    {
        assert_eq!(ann.post(&lock, &body).await.problem(), (422, "invalid"), "{body}");
    }
    for query in ["user_id=", "user_id=a&user_id=ann", "user_id=%0A", "wait=x"] {
        assert_eq!(ann.delete(&format!("{lock}?{query}")).await.problem().0, 422, "{query}");
    }
    let claims = format!("/v1/coupons/{}/claims", admin.coupon(0).await);
    for code in [json!("A"), json!("A_BCD"), json!(long), json!("ABCD\u{0}"), json!(1234)] {
        let response = ann.post(&claims, &json!({"code": code})).await;
        assert_eq!(
            (response.problem(), &response.body["errors"][0]["field"]),
            ((422, "invalid"), &"code".into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_a_retry_the_same_request_and_another_body_an_error_on_every_route() {
    let admin = Client::new("boss", Role::Admin, 0).await;
    let coupon = admin.coupon_like(&json!({"limits": {"claims_per_user": null}}), 2).await;
    let [ann, elsewhere] = [Client::new("ann", Role::User, 0).await, Client::new("ann", Role::User, 1).await];
    let codes = [ann.claimed(&coupon).await, ann.claimed(&coupon).await];
    let send = async |client: &Client, method: &Method, path: &str, body: Option<&Value>| {
        let request =
            client.request(method.clone(), &format!("{path}?wait=25")).header("Idempotency-Key", "k");
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        ApiResponse::of(request.send().await.expect("a response")).await
    };
    let id = |response: &ApiResponse| {
        response.body["request_id"].as_str().and_then(|id| id.split('.').next()).map(str::to_owned)
    };
    let path = |n: usize, rest: &str| format!("/v1/codes/{}{rest}", codes[n]);
    let spelt = format!("/v1/codes/{}/lock", codes[0].to_lowercase().replace('-', ""));
    let mut ids = Vec::new();
    let mut redemption = String::new();
    for (client, method, path, body, retried_at, other) in [
        (&ann, Method::POST, path(0, "/lock"), Some(json!({"order_id": "o"})), spelt, Some(json!({}))),
        (&ann, Method::DELETE, path(0, "/lock"), None, path(0, "/lock"), None),
        (
            &ann,
            Method::POST,
            path(0, "/redemptions"),
            Some(order()),
            path(0, "/redemptions"),
            Some(json!({"order_id": "o", "order_amount": "10.01", "currency": "EUR"})),
        ),
        (&ann, Method::DELETE, path(1, "/claim"), None, path(1, "/claim"), None),
        (&admin, Method::DELETE, path(1, ""), None, path(1, ""), None),
        (&admin, Method::DELETE, "rollback".to_owned(), None, "rollback".to_owned(), None),
    ] {
        let rollback = format!("/v1/redemptions/{redemption}");
        let [path, retried_at] =
            [path, retried_at].map(|p| if p == "rollback" { rollback.clone() } else { p });
        let first = send(client, &method, &path, body.as_ref()).await;
        assert_eq!(
            (first.status, &first.body["status"]),
            (StatusCode::OK, &"accepted".into()),
            "{path}: {first:?}"
        );
        if let Some(id) = first.body["redemption"]["redemption_id"].as_str() {
            redemption = id.to_owned();
        }
        let there = Client { base: elsewhere.base.clone(), ..client.clone() };
        let again = send(&there, &method, &retried_at, body.as_ref()).await;
        assert_eq!(again.header("idempotent-replayed"), "true", "{method} {path}: {again:?}");
        assert_eq!(id(&again), id(&first));
        assert_eq!(again.body["claim"], first.body["claim"]);
        if let Some(other) = other {
            let rejected = send(client, &method, &path, Some(&other)).await;
            assert_eq!(rejected.problem(), (422, "idempotency_key_reused"), "{path}");
        }
        ids.push(id(&first));
    }
    // One key, six operations, two codes: six requests.
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
    let same_amount = json!({"order_id": "o", "order_amount": "10", "currency": "EUR"});
    let spelt = send(&ann, &Method::POST, &path(0, "/redemptions"), Some(&same_amount)).await;
    assert_eq!(spelt.header("idempotent-replayed"), "true", "10 and 10.00 are one amount: {spelt:?}");
    // The same key on another code is another request.
    let other = send(&ann, &Method::POST, &path(1, "/lock"), Some(&json!({"order_id": "o"}))).await;
    assert_eq!(other.body["reason"], "code_revoked", "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_response_is_202_unless_the_client_waits() {
    let ann = Client::new("ann", Role::User, 0).await;
    let accepted = ann.post(&format!("{CODE}/lock"), &json!({})).await;
    assert_eq!((accepted.status, accepted.header("retry-after")), (StatusCode::ACCEPTED, "1"));
    let id = accepted.body["request_id"].as_str().expect("an id");
    assert_eq!(accepted.header("location"), format!("/v1/requests/{id}"));
    assert_eq!(ann.outcome(id).await["reason"], "code_unknown");
    let request = ann.request(Method::DELETE, &format!("{CODE}/claim")).header("Prefer", "wait=20");
    let response = ApiResponse::of(request.send().await.expect("a response")).await;
    assert_eq!((response.status, response.header("preference-applied")), (StatusCode::OK, "wait=20"));
    let bob = Client::new("bob", Role::User, 0).await;
    let (tag, bobs) =
        (id.split('.').nth(1).expect("a tag"), bob.post(&format!("{CODE}/lock"), &json!({})).await);
    let other_id =
        bobs.body["request_id"].as_str().and_then(|id| id.split('.').next()).expect("an id").to_owned();
    // A tag of another id is invalid, and so is an id without a tag.
    for forged in [format!("{other_id}.{tag}"), other_id] {
        assert_eq!(ann.get(&format!("/v1/requests/{forged}")).await.problem(), (404, "not_found"));
    }
}
