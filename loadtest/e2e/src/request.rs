//! One request of a client, sent once, with its response recorded in the history.

use std::time::Duration;

use checker::{ApiResponse, Received, RequestHandle};
use reqwest::header::HeaderMap;
use serde_json::Value;
use stampede_client::raw_operation::RawOperation as Operation;
use tokio::time::{Instant, sleep};

use crate::Environment;
use crate::wait::TIMEOUT;

/// As the API requests with `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Rolls redemptions back, with the role `service`.
pub const SHOP: &str = "shop";
/// Revokes codes, with the role `admin`.
pub const ADMIN: &str = "admin";

/// A request as a client sends it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who sends it.
    pub user: &'a str,
    /// What it requests.
    pub operation: Operation<'a>,
    /// Its Idempotency-Key.
    pub key: Option<&'a str>,
    /// Index of the API instance that it is sent to.
    pub api: usize,
    /// Seconds that the API waits for the outcome.
    pub wait: u32,
}

impl<'a> Request<'a> {
    /// To the first API, without a key, waiting ten seconds for the outcome.
    pub const fn new(user: &'a str, operation: Operation<'a>) -> Self {
        Self { user, operation, key: None, api: 0, wait: 10 }
    }

    /// A claim of any code of a coupon.
    pub const fn claim(user: &'a str, coupon: &'a str) -> Self {
        Self::new(user, Operation::Claim(coupon))
    }

    /// With this Idempotency-Key.
    pub const fn key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// To this API instance.
    pub const fn at(self, api: usize) -> Self {
        Self { api, ..self }
    }

    /// Waiting so many seconds for the outcome.
    pub const fn wait(self, wait: u32) -> Self {
        Self { wait, ..self }
    }
}

/// A response, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the response states about a request.
    pub fn parsed(&self) -> ApiResponse {
        ApiResponse::parse(self.status, &self.body)
    }

    async fn of(response: Result<reqwest::Response, reqwest::Error>) -> Option<Self> {
        let response = response.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Self { status, headers, body: response.text().await.ok()? })
    }
}

impl Environment {
    /// The URL of a path at an API instance.
    pub fn url(&self, api: usize, path: &str) -> String {
        format!("{}{path}", self.stack.endpoints().apis[api])
    }

    /// Sends an HTTP request; `None` without a response.
    pub async fn send_http(&self, request: reqwest::RequestBuilder) -> Option<Reply> {
        Reply::of(request.send().await).await
    }

    /// `GET`, once.
    pub async fn get_once(&self, api: usize, path: &str, token: &str) -> Reply {
        self.send_http(self.http.get(self.url(api, path)).bearer_auth(token)).await.unwrap()
    }

    /// `GET`, repeated after a 503.
    pub async fn get(&self, api: usize, path: &str, token: &str) -> Reply {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let reply = self.get_once(api, path, token).await;
            if reply.status != 503 {
                return reply;
            }
            assert!(Instant::now() < deadline, "{path}: {}", reply.body);
            sleep(RETRY_AFTER).await;
        }
    }

    /// `POST`.
    pub async fn post(&self, api: usize, path: &str, token: &str, body: &Value) -> Reply {
        self.send_http(self.http.post(self.url(api, path)).bearer_auth(token).json(body)).await.unwrap()
    }

    /// An access token of the user who sends a request, with the role that the operation requires.
    pub fn token_for(&self, request: &Request<'_>) -> String {
        self.tokens.issue(&self.user(request.user), request.operation.role()).unwrap()
    }

    /// Records that a request is about to be sent, once or several times.
    pub fn record_sent(&self, request: &Request<'_>) -> RequestHandle {
        self.history.record_sent(&self.user(request.user), request.operation.target(), request.key)
    }

    /// Sends a request once and records the response; `None` without a response.
    pub async fn send_once(&self, handle: RequestHandle, request: Request<'_>) -> Option<Reply> {
        let (method, path, body) = request.operation.request();
        let url = self.url(request.api, &format!("{path}?wait={}", request.wait));
        let mut http = self.http.request(method, url).bearer_auth(self.token_for(&request));
        if let Some(body) = &body {
            http = http.json(body);
        }
        if let Some(key) = request.key {
            http = http.header("idempotency-key", key);
        }
        self.send_recorded(handle, http).await
    }

    /// Sends an HTTP request that belongs to a recorded one, such as a poll, and records the response.
    pub(crate) async fn send_recorded(
        &self,
        handle: RequestHandle,
        http: reqwest::RequestBuilder,
    ) -> Option<Reply> {
        let reply = self.send_http(http).await;
        let received = reply.as_ref().map_or(Received::Nothing, |reply| Received::Response {
            status: reply.status,
            body: reply.body.clone(),
        });
        self.history.record_received(handle, received);
        reply
    }

    /// Sends a request once and expects a response of any status.
    pub async fn send(&self, request: Request<'_>) -> Reply {
        self.send_once(self.record_sent(&request), request).await.unwrap()
    }

    /// Sends a request and expects a response other than 503, see [`Self::submit_recorded`].
    pub async fn submit(&self, request: Request<'_>) -> Reply {
        self.submit_recorded(self.record_sent(&request), request).await
    }

    /// Sends a recorded request and expects a response other than 503. Tests that run side by side can overload a small
    /// machine. A 503 that states that the request was not submitted may be followed by the same request even without a
    /// key.
    pub async fn submit_recorded(&self, handle: RequestHandle, request: Request<'_>) -> Reply {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let reply = self.send_once(handle, request).await.unwrap();
            if reply.status != 503 || !reply.body.contains("not submitted") {
                return reply;
            }
            assert!(Instant::now() < deadline, "{request:?}: {}", reply.body);
            sleep(RETRY_AFTER).await;
        }
    }
}
