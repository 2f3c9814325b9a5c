//! A request and its outcome: submit with one Idempotency-Key over all attempts, then long-poll until it is decided.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Client;
use super::exchange::{Exchange, Safety};
use crate::error::{Cause, Error};
use crate::model::Outcome;
use crate::observer::{Observer, Step};
use crate::operation::Operation;
use crate::retry::RetryPolicy;
use crate::transport::{HttpRequest, HttpResponse, TransportError, path_segment};

/// How a call waits for the outcome of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// How long the request itself lets the server wait for the outcome, in whole seconds; zero: not at all.
    pub submit_wait: Duration,
    /// The same for each poll. The server waits 30 s at most.
    pub poll_wait: Duration,
    /// The pause between acceptance and the first poll.
    pub first_poll_after: Duration,
    /// The least pause between two polls.
    pub interval: Duration,
}

impl Polling {
    /// The server waits for the outcome, both when it receives the request and when it is polled.
    #[must_use]
    pub const fn long(wait: Duration) -> Self {
        Self {
            submit_wait: wait,
            poll_wait: wait,
            first_poll_after: Duration::ZERO,
            interval: Duration::ZERO,
        }
    }

    /// The server responds without waiting; the client polls at this interval.
    #[must_use]
    pub const fn short(interval: Duration) -> Self {
        let none = Duration::ZERO;
        Self { submit_wait: none, poll_wait: none, first_poll_after: interval, interval }
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self::long(Duration::from_secs(10))
    }
}

/// A request that has not been sent yet.
#[derive(Clone)]
#[must_use = "nothing is sent before send_and_wait, send or attempt"]
pub struct RequestBuilder<'a> {
    client: &'a Client,
    operation: Operation<'a>,
    key: Key<'a>,
    on_behalf_of: Option<&'a str>,
    server: Option<usize>,
    policy: RetryPolicy,
    polling: Polling,
    observer: Option<&'a dyn Observer>,
}

#[derive(Clone)]
enum Key<'a> {
    Generated,
    Given(&'a str),
    None,
}

impl<'a> RequestBuilder<'a> {
    pub(crate) const fn new(client: &'a Client, operation: Operation<'a>) -> Self {
        Self {
            client,
            operation,
            key: Key::Generated,
            on_behalf_of: None,
            server: None,
            policy: client.policy,
            polling: client.polling,
            observer: None,
        }
    }

    /// With this Idempotency-Key instead of a generated one, for a request that must stay the same after a restart of
    /// the caller. 1 to 255 printable characters; the server keeps it for at least 24 hours.
    pub const fn idempotency_key(self, key: &'a str) -> Self {
        Self { key: Key::Given(key), ..self }
    }

    /// Without an Idempotency-Key. The request is not repeated after a lost response, and the server may reject a
    /// claim of a sold-out coupon (409 `sold_out`) before it becomes a request: an error instead of an outcome.
    pub const fn without_idempotency_key(self) -> Self {
        Self { key: Key::None, ..self }
    }

    /// For a user, by a caller with the role `service`.
    pub const fn on_behalf_of(self, user_id: &'a str) -> Self {
        Self { on_behalf_of: Some(user_id), ..self }
    }

    /// Starts with this server, counted from 0, round.
    pub const fn server(self, server: usize) -> Self {
        Self { server: Some(server), ..self }
    }

    /// With other retry rules than those of the client.
    pub const fn policy(self, policy: RetryPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Waits for the outcome in another way than the client does by default.
    pub const fn polling(self, polling: Polling) -> Self {
        Self { polling, ..self }
    }

    /// Reports every attempt.
    pub const fn observer(self, observer: &'a dyn Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Sends the request and waits for its outcome, accepted or rejected.
    ///
    /// # Errors
    /// [`Error::NotAccepted`], [`Error::Unconfirmed`] or [`Error::OutcomeNotReceived`] at the deadline, by what is
    /// known then; [`Error::Problem`] for a request that the server rejects as such (401, 403, 404, 422, …).
    pub async fn send_and_wait(self) -> Result<Outcome, Error> {
        let (mut exchange, polling) = (self.exchange(), self.polling);
        let outcome = self.submit(&mut exchange).await?;
        if !outcome.is_pending() {
            return Ok(outcome);
        }
        poll(&mut exchange, self.client, polling, outcome.request_id).await
    }

    /// Sends the request; the outcome may be pending.
    ///
    /// # Errors
    /// As [`Self::send_and_wait`], except that it does not wait.
    pub async fn send(self) -> Result<Outcome, Error> {
        self.submit(&mut self.exchange()).await
    }

    /// Sends the request exactly once, whatever the response is.
    ///
    /// # Errors
    /// [`TransportError`] when there is no response.
    pub async fn attempt(self) -> Result<HttpResponse, TransportError> {
        let (key, path, body) = self.encoded();
        let request = self.http_request(key.as_deref(), &path, body);
        let wait = self.polling.submit_wait;
        self.exchange().attempt(Step::Submit, &request, wait, Safety::Idempotent).await.1
    }

    fn exchange(&self) -> Exchange<'a> {
        Exchange::new(self.client, self.policy, self.server, self.observer)
    }

    async fn submit(&self, exchange: &mut Exchange<'a>) -> Result<Outcome, Error> {
        let (key, path, body) = self.encoded();
        let request = self.http_request(key.as_deref(), &path, body);
        let safety = if key.is_some() { Safety::Idempotent } else { Safety::Once };
        let response = exchange.repeat(Step::Submit, &request, self.polling.submit_wait, safety).await?;
        exchange.reset_backoff();
        match response.status {
            StatusCode::OK | StatusCode::ACCEPTED => read(&response),
            _ => Err(Error::of_response(&response)),
        }
    }

    /// Key, path with parameters, body.
    fn encoded(&self) -> (Option<Cow<'a, str>>, String, Option<Bytes>) {
        let key = match self.key {
            Key::Generated => Some(Cow::Owned(format!("{:032x}", rand::random::<u128>()))),
            Key::Given(key) => Some(Cow::Borrowed(key)),
            Key::None => None,
        };
        let mut path = self.operation.path();
        let mut body = self.operation.body();
        let mut separator = '?';
        let wait = whole_seconds(self.polling.submit_wait);
        if wait > 0 {
            path.push_str(&format!("?wait={wait}"));
            separator = '&';
        }
        if let Some(user_id) = self.on_behalf_of {
            match &mut body {
                Some(body) => body["user_id"] = Value::from(user_id),
                None => path.push_str(&format!("{separator}user_id={}", path_segment(user_id))),
            }
        }
        (key, path, body.map(|body| body.to_string().into()))
    }

    fn http_request<'r>(
        &'r self,
        key: Option<&'r str>,
        path: &'r str,
        body: Option<Bytes>,
    ) -> HttpRequest<'r> {
        HttpRequest {
            token: self.client.token.as_deref(),
            idempotency_key: key,
            body,
            ..HttpRequest::new(self.operation.method(), path)
        }
    }
}

impl Client {
    /// A request and what is known of its outcome, which may be pending.
    ///
    /// # Errors
    /// [`Error::Problem`]: 404 for an id that was never issued to this caller, 410 for an outcome that has been
    /// dropped by age; [`Error::NotAccepted`] or [`Error::Unconfirmed`] without a response by the deadline.
    pub async fn outcome(&self, request_id: &str) -> Result<Outcome, Error> {
        self.get(&format!("/v1/requests/{}", path_segment(request_id))).await
    }

    /// Polls until an accepted request is decided.
    ///
    /// # Errors
    /// [`Error::OutcomeNotReceived`] at the deadline, or when the server rejects the poll.
    pub async fn wait_for(&self, request_id: &str) -> Result<Outcome, Error> {
        let mut exchange = Exchange::new(self, self.policy, None, None);
        let polling = Polling { first_poll_after: Duration::ZERO, ..self.polling };
        poll(&mut exchange, self, polling, request_id.to_owned()).await
    }
}

/// Polls until the outcome is known.
async fn poll(
    exchange: &mut Exchange<'_>,
    client: &Client,
    polling: Polling,
    request_id: String,
) -> Result<Outcome, Error> {
    let not_received = |cause| Error::OutcomeNotReceived { request_id: request_id.clone(), cause };
    let mut pause = polling.first_poll_after;
    loop {
        if pause >= exchange.remaining() {
            return Err(not_received(Cause::Deadline(exchange.elapsed())));
        }
        sleep(pause).await;
        let wait = polling.poll_wait.min(exchange.remaining());
        let mut path = format!("/v1/requests/{}", path_segment(&request_id));
        if whole_seconds(wait) > 0 {
            path.push_str(&format!("?wait={}", whole_seconds(wait)));
        }
        let request = HttpRequest { token: client.token.as_deref(), ..HttpRequest::new(Method::GET, path) };
        let sent = Instant::now();
        let response = exchange.repeat(Step::Poll, &request, wait, Safety::Idempotent).await;
        let response = response.map_err(|error| match error {
            Error::NotAccepted(cause) | Error::Unconfirmed { cause, .. } => not_received(cause),
            error => error,
        })?;
        let outcome = match response.status {
            StatusCode::OK => read(&response),
            _ => Err(Error::of_response(&response)),
        };
        let outcome = outcome.map_err(|error| not_received(Cause::Poll(Box::new(error))))?;
        if !outcome.is_pending() {
            return Ok(outcome);
        }
        // A server that waited has used up the pause. One that responds early is overloaded or stopping.
        let has_waited = whole_seconds(wait) > 0 && sent.elapsed() + Duration::from_millis(100) >= wait;
        pause = if has_waited {
            exchange.reset_backoff();
            polling.interval
        } else if polling.interval > Duration::ZERO {
            polling.interval
        } else {
            exchange.pause_after(response.retry_after())
        };
    }
}

fn read(response: &HttpResponse) -> Result<Outcome, Error> {
    response.json().map_err(|_| Error::unexpected(response))
}

const fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
}
