//! Requests until they are decided, and what every endpoint shows of their outcomes.

use std::time::Duration;

use checker::{ApiResponse, RequestHandle};
use serde_json::{Value, json};
use stampede_client::raw_operation::RawOperation as Operation;
use tokio::time::{Instant, sleep};

use crate::wait::TIMEOUT;
use crate::{Environment, Reply, Request};

const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

impl Environment {
    /// Sends a request, with one key, to one API after another until it is decided; returns the outcome.
    pub async fn decide(&self, request: Request<'_>) -> Value {
        let key = self.new_key();
        let request = Request { key: Some(request.key.unwrap_or(&key)), ..request };
        let handle = self.record_sent(&request);
        let (deadline, instances) = (Instant::now() + TIMEOUT, self.stack.endpoints().apis.len());
        for attempt in 0.. {
            let api = (request.api + attempt) % instances;
            let reply = self.send_once(handle, Request { api, ..request }).await;
            match reply.as_ref().map(Reply::parsed) {
                Some(response) if response.is_final() => {
                    return reply.map(|reply| reply.json()).unwrap_or_default();
                }
                None | Some(ApiResponse::Pending | ApiResponse::Problem { status: 503, .. }) => {}
                Some(response) => panic!("{request:?} received {response:?}"),
            }
            assert!(Instant::now() < deadline, "{request:?} has no outcome");
            if reply.is_none_or(|reply| reply.status != 202) {
                sleep(BETWEEN_ATTEMPTS).await;
            }
        }
        Value::Null
    }

    /// Sends a request until its outcome, or the rejection of the sold-out gate, is received: repeats it with the same
    /// key after a 503 or a lost response, at one API after another, and polls once it is accepted. Without a key a
    /// lost response ends it, because a repeated request would be another one.
    pub async fn final_response(&self, request: Request<'_>) -> ApiResponse {
        let handle = self.record_sent(&request);
        let (deadline, instances) = (Instant::now() + TIMEOUT, self.stack.endpoints().apis.len());
        for attempt in 0.. {
            let request = Request { api: (request.api + attempt) % instances, ..request };
            let response = match self.accepted_id(handle) {
                Some(id) => self.poll(handle, request, &id).await,
                None => self.send_once(handle, request).await,
            };
            let response = response.map_or(ApiResponse::Missing, |reply| reply.parsed());
            match response {
                response if response.is_final() || response.is_gate() => return response,
                ApiResponse::Missing if request.key.is_none() && self.accepted_id(handle).is_none() => {
                    return ApiResponse::Missing;
                }
                ApiResponse::Pending | ApiResponse::Missing | ApiResponse::Problem { status: 503, .. } => {}
                response => panic!("{request:?} received {response:?}"),
            }
            assert!(Instant::now() < deadline, "{request:?} has no outcome");
            if !matches!(response, ApiResponse::Pending) {
                sleep(BETWEEN_ATTEMPTS).await;
            }
        }
        ApiResponse::Missing
    }

    /// The request id that the API returned, once it has.
    fn accepted_id(&self, handle: RequestHandle) -> Option<Box<str>> {
        self.history.request(handle)?.request_id
    }

    async fn poll(&self, handle: RequestHandle, request: Request<'_>, id: &str) -> Option<Reply> {
        let path = format!("/v1/requests/{id}?wait={}", request.wait);
        let http = self.http.get(self.url(request.api, &path)).bearer_auth(self.token_for(&request));
        self.send_recorded(handle, http).await
    }

    /// The outcome of a request that was accepted with this response.
    pub async fn outcome_of(&self, accepted: &Reply, request: Request<'_>) -> Value {
        let id = accepted.json()["request_id"].as_str().unwrap().to_owned();
        let (deadline, token) = (Instant::now() + TIMEOUT, self.token_for(&request));
        loop {
            let http = self.http.get(self.url(0, &format!("/v1/requests/{id}?wait=5"))).bearer_auth(&token);
            if let Some(reply) = self.send_http(http).await
                && reply.parsed().is_final()
            {
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
