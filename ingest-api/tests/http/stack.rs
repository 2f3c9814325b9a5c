//! One real stack with two instances of the API for all tests of this binary, and a client of it.

use std::time::{Duration, Instant};

use ingest_api::auth::{Role, Tokens};
use local_stack::{Child, Stack, StackConfig, testing};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::OnceCell;

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) async fn stack() -> &'static Stack {
    static STACK: OnceCell<Stack> = OnceCell::const_new();
    STACK
        .get_or_init(async || {
            let programs = testing::programs().await.expect("our programs build");
            let config = StackConfig { api_instances: 2, ..StackConfig::full(programs) };
            Stack::start(config).await.expect("the stack starts")
        })
        .await
}

/// A connection to the database.
pub(crate) async fn connection() -> PgConnection {
    let url = stack().await.endpoints().postgres_url;
    PgConnection::connect(&url).await.expect("Postgres responses")
}

/// A client of one instance, with a token.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) base: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
}

pub(crate) fn tokens(stack: &Stack, issuer: &str, audience: &str) -> Tokens {
    Tokens::new(&SecretString::from(stack.jwt_secret()), issuer, audience)
}

pub(crate) fn token(stack: &Stack, sub: &str, role: Role) -> String {
    let roles = [role].into_iter().collect();
    tokens(stack, "stampede", "stampede").issue(sub, roles, now(), 3600).expect("a token can be made")
}

pub(crate) fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

impl Client {
    pub(crate) async fn new(sub: &str, role: Role, instance: usize) -> Self {
        let stack = stack().await;
        Self::at(&stack.endpoints().apis[instance], &token(stack, sub, role))
    }

    pub(crate) fn at(base: &str, token: &str) -> Self {
        Self { base: base.to_owned(), token: token.to_owned(), http: reqwest::Client::new() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> ApiResponse {
        ApiResponse::of(self.request(Method::GET, path).send().await.expect("a response")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> ApiResponse {
        ApiResponse::of(self.request(Method::POST, path).json(body).send().await.expect("a response")).await
    }

    pub(crate) async fn post_with_key(&self, path: &str, body: &Value, key: &str) -> ApiResponse {
        let request = self.request(Method::POST, path).header("Idempotency-Key", key).json(body);
        ApiResponse::of(request.send().await.expect("a response")).await
    }

    pub(crate) async fn delete(&self, path: &str) -> ApiResponse {
        ApiResponse::of(self.request(Method::DELETE, path).send().await.expect("a response")).await
    }

    /// Sends a request, waits for its outcome and returns it.
    pub(crate) async fn decided(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let path = format!("{path}{}wait=25", if path.contains('?') { '&' } else { '?' });
        let request = self.request(method, &path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = ApiResponse::of(request.send().await.expect("a response")).await;
        assert_eq!(response.status, StatusCode::OK, "{path}: {response:?}");
        response.body
    }

    /// Creates a coupon with this many codes in stock.
    pub(crate) async fn coupon(&self, codes: i64) -> String {
        self.coupon_like(&json!({}), codes).await
    }

    /// The same, with further fields in its definition.
    pub(crate) async fn coupon_like(&self, more: &Value, codes: i64) -> String {
        let mut body = json!({"name": "Spring", "discount": {"type": "PERCENTAGE", "value": "10.00"}});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let made = self.post("/v1/coupons", &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let id = made.body["id"].as_str().expect("an id").to_owned();
        if codes > 0 {
            let path = format!("/v1/coupons/{id}/codes/generate");
            let job = self.post(&path, &json!({"count": codes})).await;
            assert_eq!(job.status, StatusCode::ACCEPTED, "{job:?}");
            self.job_applied(job.header("location")).await;
        }
        id
    }

    /// Claims a code of the coupon and returns it.
    pub(crate) async fn claimed(&self, coupon: &str) -> String {
        let path = format!("/v1/coupons/{coupon}/claims");
        let won = self.decided(Method::POST, &path, Some(&json!({}))).await;
        won["code"].as_str().unwrap_or_else(|| unreachable!("no code: {won}")).to_owned()
    }

    /// A code of the coupon that is still in stock, from the database.
    pub(crate) async fn code_of(&self, coupon: &str) -> String {
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons p using (coupon_no) where p.coupon_id = $1 order by k.idx desc limit 1";
        let mut connection = connection().await;
        let code = sqlx::query_scalar(sql).bind(coupon).fetch_one(&mut connection).await;
        code.expect("the coupon has a code")
    }

    /// The counters of the coupon, which always add up.
    pub(crate) async fn counts(&self, coupon: &str) -> Value {
        let counts = self.get(&format!("/v1/coupons/{coupon}")).await.body["counts"].clone();
        let number = |name: &str| counts[name].as_i64().expect("a number");
        let places = ["available", "claimed", "locked", "redeemed", "expired", "revoked"];
        assert_eq!(places.map(number).iter().sum::<i64>(), number("generated"), "{counts}");
        counts
    }

    pub(crate) async fn job_applied(&self, path: &str) -> Value {
        let start = Instant::now();
        loop {
            let job = self.get(path).await;
            if job.body["state"] == "applied" {
                return job.body;
            }
            assert!(start.elapsed() < TIMEOUT, "the job is still {job:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the outcome of a request.
    pub(crate) async fn outcome(&self, request_id: &str) -> Value {
        let start = Instant::now();
        loop {
            let response = self.get(&format!("/v1/requests/{request_id}?wait=5")).await;
            assert_eq!(response.status, StatusCode::OK, "{response:?}");
            if response.body["status"] != "pending" {
                return response.body;
            }
            assert!(start.elapsed() < TIMEOUT, "still pending: {response:?}");
        }
    }
}

/// A response with its body.
#[derive(Clone, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl ApiResponse {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn problem(&self) -> (u16, &str) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or_default())
    }
}

/// Starts another instance, with further environment variables.
pub(crate) async fn another_instance(extra: &[(&str, &str)]) -> (Child, String) {
    let stack = stack().await;
    let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let child = stack.spawn_api(extra).await.expect("another instance starts");
    stack.wait_healthy(child).await.expect("healthy");
    let Child::Api(index) = child else { unreachable!("it is an instance of the API") };
    (child, stack.endpoints().apis[index].clone())
}
