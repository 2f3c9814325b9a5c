//! One request of a client, from the first attempt to its outcome.
//!
//! With an Idempotency-Key, a retryable failure (503, 429, 408, a lost connection) is repeated as the same request, on one
//! API after another. Without a key a lost response ends the request: another attempt would be another request. After a 202
//! the client polls until there is an outcome.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::environment::Environment;
use super::rng::Rng;
use checker::{ApiResponse, Received, RequestHandle};
use stampede_client::http::{Call, Lost, Reply};
use stampede_client::raw_operation::RawOperation;

const FIRST_PAUSE: Duration = Duration::from_millis(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a client waits for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Takes the 202 and polls, with this pause.
    Poll(Duration),
    /// The POST waits this many seconds, and so does every poll after it.
    Wait(u32),
    /// Takes the 202; every poll waits this many seconds.
    LongPoll(u32),
    /// Takes the 202; the first poll comes after this delay.
    Later(Duration),
}

impl WaitMode {
    /// A random mode that gets the outcome soon.
    pub fn quick(rng: &mut Rng) -> Self {
        match rng.below(3) {
            0 => Self::Poll(Duration::from_millis(rng.between(20, 200))),
            1 => Self::Wait(2),
            _ => Self::LongPoll(3),
        }
    }

    /// A random mode.
    pub fn any(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 | 1 => Self::Poll(Duration::from_millis(rng.between(20, 300))),
            2..=5 => Self::Wait(2),
            6..=8 => Self::LongPoll(3),
            _ => Self::Later(Duration::from_millis(rng.between(500, 5_000))),
        }
    }

    const fn post_wait(self) -> u32 {
        match self {
            Self::Wait(seconds) => seconds,
            _ => 0,
        }
    }

    const fn poll_wait(self) -> u32 {
        match self {
            Self::Wait(seconds) | Self::LongPoll(seconds) => seconds,
            _ => 0,
        }
    }

    /// The delay between the 202 and the first poll.
    const fn first_delay(self) -> Duration {
        match self {
            Self::Later(pause) | Self::Poll(pause) => pause,
            _ => Duration::ZERO,
        }
    }

    const fn poll_delay(self) -> Duration {
        match self {
            Self::Poll(pause) => pause,
            Self::Later(_) => Duration::from_millis(200),
            _ => Duration::ZERO,
        }
    }
}

/// A final outcome.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The response body with the outcome.
    pub body: Value,
}

impl Outcome {
    /// `accepted`, or the reason.
    #[must_use]
    pub fn word(&self) -> &str {
        self.body["reason"].as_str().or_else(|| self.body["status"].as_str()).unwrap_or_default()
    }

    /// Whether it is accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.body["status"] == "accepted"
    }

    /// The code of an accepted outcome.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.body["code"].as_str()
    }

    /// The redemption id, if the outcome has one.
    #[must_use]
    pub fn redemption(&self) -> Option<&str> {
        self.body["redemption"]["redemption_id"].as_str()
    }
}

/// A request in progress.
pub struct ClientRequest<'f> {
    env: &'f Environment,
    recorded: RequestHandle,
    token: String,
    key: Option<String>,
    method: Method,
    path: String,
    body: Option<Bytes>,
    mode: WaitMode,
    request_id: Option<String>,
    allowed_problem: Option<&'static str>,
    counts: bool,
}

/// The result of one exchange.
enum Exchange {
    Final(Outcome),
    Pending,
    /// Retryable: overload, an outage, no response.
    Retry(Option<Duration>),
    /// There will be no outcome: the response of the gate, or a problem.
    Ended,
}

impl<'f> ClientRequest<'f> {
    /// A request that is not sent yet.
    #[must_use]
    pub fn new(
        env: &'f Environment,
        user: &str,
        operation: RawOperation<'_>,
        key: Option<String>,
        mode: WaitMode,
    ) -> Self {
        let (method, path, body) = operation.request();
        Self {
            recorded: env.history.record_sent(user, operation.target(), key.as_deref()),
            token: env.token(user, operation.role()),
            body: body.map(|body| Bytes::from(body.to_string())),
            env,
            key,
            method,
            path,
            mode,
            request_id: None,
            allowed_problem: None,
            counts: false,
        }
    }

    /// Counts its outcome as one of the load.
    #[must_use]
    pub fn counted(self) -> Self {
        Self { counts: true, ..self }
    }

    /// Allows this problem as a response, which ends the request.
    #[must_use]
    pub fn allow_problem(self, code: &'static str) -> Self {
        Self { allowed_problem: Some(code), ..self }
    }

    /// The same request again, for a client that sends it several times at once. Its outcome is not counted again.
    #[must_use]
    pub fn again(&self, mode: WaitMode) -> Self {
        Self {
            token: self.token.clone(),
            key: self.key.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            body: self.body.clone(),
            request_id: None,
            counts: false,
            mode,
            ..*self
        }
    }

    /// Continues until the request is final. `None`: there is no outcome, or it is unknown (no key, and no response).
    pub async fn until_final(&mut self, rng: &mut Rng) -> Option<Outcome> {
        let mut api = rng.below(self.env.apis());
        let mut pause = FIRST_PAUSE;
        loop {
            if self.env.stats.has_stopped_waiting() {
                // The checker counts accepted requests without an outcome.
                if self.request_id.is_none() && self.key.is_some() {
                    self.env.stats.count_unanswered();
                }
                return None;
            }
            let is_accepted = self.request_id.is_some();
            match self.once(api).await {
                Exchange::Final(outcome) => return Some(outcome),
                Exchange::Ended => return None,
                Exchange::Pending => {
                    pause = FIRST_PAUSE;
                    let mode = self.mode;
                    sleep(if is_accepted { mode.poll_delay() } else { mode.first_delay() }).await;
                }
                Exchange::Retry(_) if self.key.is_none() && self.request_id.is_none() => return None,
                Exchange::Retry(retry_after) => {
                    // Sooner than Retry-After: real clients often ignore it.
                    sleep(retry_after.map_or(pause, |wanted| wanted.min(pause))).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    api += 1;
                }
            }
        }
    }

    /// One exchange.
    async fn once(&mut self, api: usize) -> Exchange {
        let reply = match &self.request_id {
            None => self.post(api).await,
            Some(id) => self.poll(api, id).await,
        };
        let received = match &reply {
            Ok(reply) => Received::Response {
                status: reply.status.as_u16(),
                body: String::from_utf8_lossy(&reply.body).into_owned(),
            },
            Err(_) => Received::Nothing,
        };
        self.env.history.record_received(self.recorded, received);
        reply.map_or(Exchange::Retry(None), |reply| self.interpret(&reply))
    }

    async fn post(&self, api: usize) -> Result<Reply, Lost> {
        let wait = self.mode.post_wait();
        let path = if wait > 0 { format!("{}?wait={wait}", self.path) } else { self.path.clone() };
        let call = Call {
            method: self.method.clone(),
            path: &path,
            token: &self.token,
            key: self.key.as_deref(),
            body: self.body.clone(),
        };
        self.env.send(api, &call).await
    }

    async fn poll(&self, api: usize, request_id: &str) -> Result<Reply, Lost> {
        let wait = self.mode.poll_wait();
        let path = if wait > 0 {
            format!("/v1/requests/{request_id}?wait={wait}")
        } else {
            format!("/v1/requests/{request_id}")
        };
        let call = Call { method: Method::GET, path: &path, token: &self.token, key: None, body: None };
        self.env.send(api, &call).await
    }

    fn interpret(&mut self, reply: &Reply) -> Exchange {
        let status = reply.status.as_u16();
        let body = String::from_utf8_lossy(&reply.body);
        match ApiResponse::parse(status, &body) {
            response if response.is_final() => {
                if self.counts {
                    self.env.stats.count_outcome();
                }
                Exchange::Final(Outcome { body: serde_json::from_str(&body).unwrap_or_default() })
            }
            ApiResponse::Pending => {
                if self.request_id.is_none() {
                    let shown: Value = serde_json::from_str(&body).unwrap_or_default();
                    self.request_id = shown["request_id"].as_str().map(str::to_owned);
                }
                Exchange::Pending
            }
            response if response.is_gate() && self.key.is_none() => Exchange::Ended,
            ApiResponse::Problem { ref code, .. } if self.allowed_problem == Some(&**code) => Exchange::Ended,
            ApiResponse::Problem { status: 503 | 429 | 408, .. } => Exchange::Retry(reply.retry_after),
            _ => {
                let id = self.request_id.as_deref().unwrap_or("a new request");
                let what = format!(
                    "{} {} ({id}) returned {status}: {}",
                    self.method,
                    self.path,
                    super::environment::text(&reply.body)
                );
                self.env.stats.complain(what);
                if status >= 500 { Exchange::Retry(None) } else { Exchange::Ended }
            }
        }
    }
}
