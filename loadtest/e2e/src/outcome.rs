//! Requests until they are decided, and what every endpoint shows of their outcomes.

use std::sync::Mutex;
use std::time::Duration;

use checker::ApiResponse;
use load_support::recorder::Recorder;
use serde_json::{Value, json};
use stampede_client::transport::{HttpRequest, HttpResponse, TransportError};
use stampede_client::{Attempt, Error, Observer, Operation};
use tokio::time::{Instant, sleep};

use crate::wait::TIMEOUT;
use crate::{Environment, Reply, Request};

const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Records every response of a call in the history, and keeps what the test has to judge.
struct CallObserver<'a> {
    recorder: Recorder<'a>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The last response.
    last: Option<Reply>,
    /// A response that the client repeats, although the API never sends it.
    unexpected: Option<Reply>,
}

impl<'a> CallObserver<'a> {
    fn new(env: &'a Environment, request: &Request<'_>) -> Self {
        let recorder = Recorder::of(&env.history, env.record_sent(request));
        Self { recorder, seen: Mutex::default() }
    }

    /// The last response of the call, all of whose responses were expected.
    fn last(self, request: &Request<'_>) -> Option<Reply> {
        let Seen { last, unexpected } = self.seen.into_inner().unwrap();
        assert!(unexpected.is_none(), "{request:?} received {unexpected:?}");
        last
    }
}

impl Observer for CallObserver<'_> {
    fn received(&self, attempt: &Attempt<'_>, result: Result<&HttpResponse, &TransportError>) {
        self.recorder.received(attempt, result);
        let Ok(response) = result else { return };
        let mut seen = self.seen.lock().unwrap();
        let reply = Reply::from(response.clone());
        if matches!(reply.status, 408 | 429 | 500..=502 | 504..) {
            seen.unexpected = Some(reply.clone());
        }
        seen.last = Some(reply);
    }
}

impl Environment {
    /// Sends a request, with one key, to one API after another until it is accepted, and polls until it is decided;
    /// returns the outcome.
    pub async fn decide(&self, request: Request<'_>) -> Value {
        let key = self.new_key();
        let request = Request { key: Some(request.key.unwrap_or(&key)), ..request };
        let (client, observer) = (self.client_for(&request), CallObserver::new(self, &request));
        let result = request.call(&client, &observer).send_and_wait().await;
        let last = observer.last(&request);
        match result {
            Ok(_) => last.unwrap().json(),
            Err(error) => panic!("{request:?} has no outcome: {error}; the last response is {last:?}"),
        }
    }

    /// Sends a request until its outcome, or the rejection of the sold-out gate, is received. Without a key, a response
    /// that leaves open whether the request was accepted ends it, because a repeated request would be another one.
    pub async fn final_response(&self, request: Request<'_>) -> ApiResponse {
        let (client, observer) = (self.client_for(&request), CallObserver::new(self, &request));
        let result = request.call(&client, &observer).send_and_wait().await;
        let last = observer.last(&request).map(|reply| reply.parsed());
        match (result, last) {
            (Ok(_), Some(response)) => response,
            (Err(Error::Problem(_)), Some(response)) if response.is_gate() => response,
            (Err(Error::Unconfirmed { idempotency_key: None, .. }), _) => ApiResponse::Missing,
            (result, last) => panic!("{request:?} ended with {result:?}; the last response is {last:?}"),
        }
    }

    /// The outcome of a request that was accepted with this response.
    pub async fn outcome_of(&self, accepted: &Reply, request: Request<'_>) -> Value {
        let id = accepted.json()["request_id"].as_str().unwrap().to_owned();
        let (deadline, token) = (Instant::now() + TIMEOUT, self.token_for(&request));
        let path = format!("/v1/requests/{id}?wait=5");
        loop {
            let reply = self.send_http(0, &HttpRequest::get(&*path).token(&token)).await;
            if let Some(reply) = reply.filter(|reply| reply.parsed().is_final()) {
                return reply.json();
            }
            assert!(Instant::now() < deadline, "{request:?} has no outcome");
            sleep(BETWEEN_ATTEMPTS).await;
        }
    }

    /// Sends a request and expects an accepted outcome, which every endpoint shows.
    pub async fn accepted(&self, user: &str, operation: Operation<'_>) -> Value {
        let request = Request::new(user, operation);
        let reply = self.submit(request).await;
        let outcome = reply.json();
        assert_eq!(
            (reply.status, &outcome["status"]),
            (200, &json!("accepted")),
            "{request:?}: {}",
            reply.body
        );
        assert_eq!(
            (&outcome["kind"], &outcome["reason"]),
            (&json!(operation.kind()), &Value::Null),
            "{outcome}"
        );
        self.expect_shown(&request, &outcome).await;
        outcome
    }

    /// Sends a request and expects a rejected outcome, which every endpoint shows; returns the reason.
    pub async fn rejected(&self, user: &str, operation: Operation<'_>) -> String {
        let request = Request::new(user, operation);
        let reply = self.submit(request).await;
        let outcome = reply.json();
        assert_eq!(
            (reply.status, &outcome["status"]),
            (200, &json!("rejected")),
            "{request:?}: {}",
            reply.body
        );
        assert_eq!(
            (&outcome["kind"], &outcome["code"]),
            (&json!(operation.kind()), &Value::Null),
            "{outcome}"
        );
        assert_eq!((&outcome["claim"], &outcome["redemption"]), (&Value::Null, &Value::Null), "{outcome}");
        self.expect_shown(&request, &outcome).await;
        outcome["reason"].as_str().unwrap().to_owned()
    }

    /// Both APIs show the outcome that was returned, and the user's list of requests contains it.
    async fn expect_shown(&self, request: &Request<'_>, outcome: &Value) {
        let (token, id) = (self.token_for(request), outcome["request_id"].as_str().unwrap());
        for api in [0, 1] {
            let shown = self.get(api, &format!("/v1/requests/{id}"), &token).await.json();
            assert_eq!(shown, *outcome, "as API {api} shows it");
        }
        let list = self.get(0, "/v1/users/me/requests?limit=100", &token).await.json();
        let identity = |id: &Value| id.as_str().unwrap_or_default().split('.').next().map(str::to_owned);
        let items = list["items"].as_array().unwrap_or_else(|| panic!("{list}"));
        let item =
            items.iter().find(|item| identity(&item["request_id"]) == identity(&outcome["request_id"]));
        let mut item = item.cloned().unwrap_or_else(|| panic!("{outcome} is not in {list}"));
        item["request_id"] = outcome["request_id"].clone();
        assert_eq!(item, *outcome, "as the list of requests shows it");
    }
}

/// An outcome in one word: `accepted`, or the reason of its rejection.
pub fn result_of(outcome: &Value) -> &str {
    outcome["reason"].as_str().or_else(|| outcome["status"].as_str()).unwrap_or_default()
}

/// How many outcomes have this result.
pub fn count(outcomes: &[Value], result: &str) -> usize {
    outcomes.iter().filter(|outcome| result_of(outcome) == result).count()
}

/// The id of the n-th order.
pub fn order(n: impl std::fmt::Display) -> String {
    format!("order-{n}")
}
