//! The real server on port 0, without Kafka and Postgres: everything that is decided before a record is acknowledged.

use clap::Parser as _;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use runtime::topics::Topics;
use schemas::SchemaId;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::app::{Recorded, readiness};
use crate::auth::Role;
use crate::config::{Cli, Command};

const POSTGRES_URL: &str = "postgres://user@127.0.0.1:1/none";
const CLAIMS: &str = "/v1/coupons/spring/claims";
const LOCK: &str = "/v1/codes/ABCDEFGH/lock";
const LONG_KEY: &str = "an Idempotency-Key of more than 255 characters";

/// A server without backend, stopped when it is dropped.
struct Server {
    app: Arc<App>,
    base: String,
    http: Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.app.requests.stopping.cancel();
    }
}

impl Server {
    async fn start(extra: &[&str]) -> Self {
        let settings = [
            "ingest-api",
            "serve",
            "--jwt-secret=a secret of many characters",
            "--request-id-secret=another secret of many characters",
            "--kafka-brokers=127.0.0.1:1",
            "--postgres-url=postgres://user@127.0.0.1:1/none",
            "--produce-timeout-ms=100",
            "--drain-seconds=1",
        ];
        let cli = Cli::try_parse_from(settings.iter().chain(extra)).expect("valid settings");
        let Command::Serve(config) = cli.command else { unreachable!("the command is serve") };
        let pool = PgPoolOptions::new().connect_lazy(POSTGRES_URL).expect("a valid URL");
        let topics = Topics { requests: 8, responses: 8, events: 8, dead_letters: 8 };
        let recorded = Recorded { topics, request_schema: SchemaId(1), response_schema: SchemaId(2) };
        let app = App::assemble(*config, pool, recorded, readiness(), CancellationToken::new());
        let app = app.expect("valid settings");
        drop(tokio::spawn(app.requests.producer.wake_batcher().run()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        drop(tokio::spawn(serve(listener, Arc::clone(&app))));
        Self { app, base, http: Client::new() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A request with the token of `ann`, who has this role.
    fn request_as(&self, role: Role, method: Method, path: &str) -> RequestBuilder {
        let now = chrono::Utc::now().timestamp();
        let token = self.app.tokens.issue("ann", [role].into_iter().collect(), now, 60);
        self.request(method, path).bearer_auth(token.expect("a token"))
    }
}

/// Status, `code` and the first field of a problem.
async fn problem(request: RequestBuilder) -> (u16, String, String) {
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (status, text(&body["code"]), text(&body["errors"][0]["field"]))
}

async fn assert_problem(request: RequestBuilder, status: u16, code: &str, field: &str) {
    assert_eq!(problem(request).await, (status, code.to_owned(), field.to_owned()));
}

/// A request in which everything is wrong is mended step by step: each step reveals the next error.
#[tokio::test]
async fn the_order_of_checks_is_token_path_wait_key_body_values_user() {
    let server = Server::start(&[]).await;
    let key = LONG_KEY.repeat(9);
    let wrong = |request: RequestBuilder| request.header("Idempotency-Key", &key).body("{");
    let claim = |path: &str| server.request_as(Role::User, Method::POST, path);
    let json = |request: RequestBuilder, body: &str| {
        request.header("content-type", "application/json").body(body.to_owned())
    };
    let path = format!("{CLAIMS}?wait=soon");
    assert_problem(wrong(server.request(Method::POST, &path)), 401, "unauthenticated", "").await;
    assert_problem(wrong(claim("/v1/coupons/%ff/claims?wait=soon")), 400, "unreadable", "").await;
    assert_problem(wrong(claim(&path)), 422, "invalid", "wait").await;
    assert_problem(wrong(claim(CLAIMS)), 400, "unreadable", "Idempotency-Key").await;
    assert_problem(claim(CLAIMS).body("{"), 415, "unsupported_media_type", "").await;
    assert_problem(json(claim(CLAIMS), "{"), 400, "unreadable", "").await;
    assert_problem(json(claim(CLAIMS), r#"{"odd": 1, "user_id": "bob"}"#), 422, "invalid", "odd").await;
    assert_problem(json(claim(CLAIMS), r#"{"user_id": "bob"}"#), 403, "forbidden", "").await;
    let elsewhere = claim("/v1/coupons/-/claims");
    assert_problem(json(elsewhere, "{}"), 404, "not_found", "").await;
}

#[tokio::test]
async fn a_request_without_body_has_the_same_order_of_checks() {
    let server = Server::start(&[]).await;
    let unlock = |path: &str| server.request_as(Role::User, Method::DELETE, path);
    let path = format!("{LOCK}?wait=soon&user_id=bob");
    assert_problem(server.request(Method::DELETE, &path), 401, "unauthenticated", "").await;
    assert_problem(unlock(&path), 422, "invalid", "wait").await;
    let twice = unlock(&format!("{LOCK}?user_id=bob")).header("Idempotency-Key", "");
    assert_problem(twice, 400, "unreadable", "Idempotency-Key").await;
    assert_problem(unlock(&format!("{LOCK}?user_id=a&user_id=b")), 422, "invalid", "user_id").await;
    assert_problem(unlock(&format!("{LOCK}?user_id=bob")), 403, "forbidden", "").await;
    assert_problem(unlock("/v1/codes/A_B/lock"), 422, "invalid", "code").await;
    let revoke = server.request_as(Role::User, Method::DELETE, "/v1/codes/A_B");
    assert_problem(revoke, 403, "forbidden", "").await;
}

#[tokio::test]
async fn a_request_is_503_while_kafka_or_the_partition_of_its_code_is_unknown() {
    let server = Server::start(&[]).await;
    // Whether the coupon exists is unknown, so its owner would decide; Kafka does not acknowledge.
    let claim = server.request_as(Role::User, Method::POST, CLAIMS).json(&serde_json::json!({}));
    let response = claim.send().await.expect("a response");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let body = response.text().await.expect("a body");
    assert!(body.contains("delivery not confirmed; retry with the same Idempotency-Key"), "{body}");
    assert_eq!(server.app.requests.hub.pending.len(), 0, "the place is released");
    let unlock = server.request_as(Role::User, Method::DELETE, LOCK);
    assert_problem(unlock, 503, "unavailable", "").await;
}

#[tokio::test]
async fn a_request_over_the_bound_is_rejected_before_its_token_is_verified() {
    let server = Server::start(&["--max-pending=0"]).await;
    for (method, path) in [(Method::POST, CLAIMS), (Method::POST, LOCK), (Method::DELETE, LOCK)] {
        assert_problem(server.request(method, path).body("{"), 503, "overloaded", "").await;
    }
    // Reads need no place.
    assert_problem(server.request(Method::GET, "/v1/requests/x"), 401, "unauthenticated", "").await;
}

#[tokio::test]
async fn unknown_routes_methods_and_media_types_are_problems_and_probes_respond() {
    let server = Server::start(&[]).await;
    assert_problem(server.request(Method::GET, "/v1/nothing"), 404, "not_found", "").await;
    assert_problem(server.request(Method::GET, CLAIMS), 405, "method_not_allowed", "").await;
    let html = server.request(Method::GET, "/v1/coupons/spring").header("accept", "text/html");
    assert_problem(html, 406, "not_acceptable", "").await;
    let status = async |path: &str| {
        server.request(Method::GET, path).send().await.expect("a response").status().as_u16()
    };
    assert_eq!((status("/healthz").await, status("/readyz").await), (200, 503));
    assert_eq!(status("/openapi.json").await, 200);
}

#[tokio::test]
async fn an_id_that_was_not_issued_to_the_user_is_not_found() {
    let server = Server::start(&[]).await;
    let theirs = server.app.requests.ids.mint("bob", 0).shown;
    for id in ["x", ".", "%00", theirs.as_str()] {
        let request = server.request_as(Role::User, Method::GET, &format!("/v1/requests/{id}"));
        assert_problem(request, 404, "not_found", "").await;
    }
    let admin = server.request_as(Role::Admin, Method::GET, &format!("/v1/requests/{theirs}"));
    assert_problem(admin, 403, "forbidden", "").await;
}
