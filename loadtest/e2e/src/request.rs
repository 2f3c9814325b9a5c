//! One request of a client, sent once, with its response recorded in the history.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use checker::{ApiResponse, RequestHandle};
use load_support::recorder::Recorder;
use serde_json::Value;
use stampede_client::transport::header::HeaderMap;
use stampede_client::transport::{HttpRequest, HttpResponse, TransportError};
use stampede_client::{Client, Observer, Operation, Polling, RequestBuilder, RetryPolicy};
use tokio::time::{Instant, sleep};

use crate::Environment;
use crate::wait::TIMEOUT;

/// As the API requests with `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Sooner than `Retry-After`: a test does not wait for longer than it must.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);
/// Longer than the API takes to respond, whatever happens to it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a request was repeated after a 503: a healthy stack rejects next to none.
pub(crate) static REPEATED: AtomicUsize = AtomicUsize::new(0);
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
        Self::new(user, Operation::claim(coupon))
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

    /// The call of the client that sends it.
    pub(crate) fn call(&self, client: &'a Client, observer: &'a dyn Observer) -> RequestBuilder<'a> {
        let polling = Polling::long(Duration::from_secs(self.wait.into()));
        let call = client.request(self.operation).server(self.api).polling(polling).observer(observer);
        match self.key {
            Some(key) => call.idempotency_key(key),
            None => call.without_idempotency_key(),
        }
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

    /// `None` without a response. A request that cannot be written as HTTP is a mistake in a test.
    fn of(result: Result<HttpResponse, TransportError>) -> Option<Self> {
        match result {
            Ok(response) => Some(response.into()),
            Err(error @ TransportError::InvalidRequest(_)) => panic!("{error}"),
            Err(_) => None,
        }
    }
}

impl From<HttpResponse> for Reply {
    fn from(response: HttpResponse) -> Self {
        let body = response.text().into_owned();
        Self { status: response.status.as_u16(), headers: response.headers, body }
    }
}

/// A client of these APIs.
pub(crate) fn client(apis: &[String]) -> Client {
    let policy = RetryPolicy {
        deadline: TIMEOUT,
        first_pause: BETWEEN_ATTEMPTS,
        max_pause: BETWEEN_ATTEMPTS,
        max_retry_after: Duration::ZERO,
    };
    let first = Client::builder(&apis[0]).policy(policy).response_timeout(RESPONSE_TIMEOUT);
    apis[1..].iter().fold(first, |client, api| client.server(api)).build()
}

/// `GET` from the probe of one of our programs.
///
/// # Errors
/// Without a response.
pub(crate) async fn get_probe(probe: &str, path: &str) -> Result<Reply, TransportError> {
    let client = Client::builder(probe).build();
    client.send(0, &HttpRequest::get(path), RESPONSE_TIMEOUT).await.map(Reply::from)
}

impl Environment {
    /// Sends any HTTP request to an API instance, once and not recorded; `None` without a response.
    pub async fn send_http(&self, api: usize, request: &HttpRequest<'_>) -> Option<Reply> {
        Reply::of(self.client.send(api, request, RESPONSE_TIMEOUT).await)
    }

    /// `GET`, once.
    pub async fn get_once(&self, api: usize, path: &str, token: &str) -> Reply {
        self.send_http(api, &HttpRequest::get(path).token(token)).await.unwrap()
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
            REPEATED.fetch_add(1, Ordering::Relaxed);
            sleep(RETRY_AFTER).await;
        }
    }

    /// `POST`.
    pub async fn post(&self, api: usize, path: &str, token: &str, body: &Value) -> Reply {
        self.send_http(api, &HttpRequest::post(path, body.to_string()).token(token)).await.unwrap()
    }

    /// An access token of the user who sends a request, with the role that the operation requires.
    pub fn token_for(&self, request: &Request<'_>) -> String {
        self.tokens.issue(&self.user(request.user), request.operation.role()).unwrap()
    }

    /// The client of the user who sends a request.
    pub(crate) fn client_for(&self, request: &Request<'_>) -> Client {
        self.client.with_token(&self.token_for(request))
    }

    /// Records that a request is about to be sent, once or several times.
    pub fn record_sent(&self, request: &Request<'_>) -> RequestHandle {
        self.history.record_sent(&self.user(request.user), request.operation.target(), request.key)
    }

    /// Sends a request once and records the response; `None` without a response.
    pub async fn send_once(&self, handle: RequestHandle, request: Request<'_>) -> Option<Reply> {
        let (client, recorder) = (self.client_for(&request), Recorder::of(&self.history, handle));
        Reply::of(request.call(&client, &recorder).attempt().await)
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
            REPEATED.fetch_add(1, Ordering::Relaxed);
            sleep(RETRY_AFTER).await;
        }
    }
}
