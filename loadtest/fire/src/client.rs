//! One request of a client, from the first attempt to its outcome.
//!
//! The client repeats a request with an Idempotency-Key, on one API after another, until it is accepted, and polls until
//! there is an outcome. Without a key a response that leaves open whether the request was accepted ends it: another attempt
//! would be another request. The history records every response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::environment::Environment;
use super::rng::Rng;
use super::stats::Stats;
use checker::{ApiResponse, History, Received, RequestHandle};
use load_support::recorder::Recorder;
use stampede_client::transport::{HttpResponse, TransportError};
use stampede_client::{Attempt, Client, Error, Observer, Operation, Outcome, Polling};

/// How a client waits for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Takes the 202 and polls, with this pause.
    Poll(Duration),
    /// The POST waits this many seconds, and so does every poll after it.
    Wait(u64),
    /// Takes the 202; every poll waits this many seconds.
    LongPoll(u64),
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

    /// How the client waits for an outcome.
    const fn polling(self) -> Polling {
        match self {
            Self::Poll(pause) => Polling::short(pause),
            Self::Wait(seconds) => Polling::long(Duration::from_secs(seconds)),
            Self::LongPoll(seconds) => {
                let wait = Duration::from_secs(seconds);
                Polling { submit_wait: Duration::ZERO, ..Polling::long(wait) }
            }
            Self::Later(delay) => {
                let interval = Duration::from_millis(200);
                Polling { first_poll_after: delay, ..Polling::short(interval) }
            }
        }
    }
}

/// A request of a client.
pub struct ClientRequest<'f> {
    env: &'f Environment,
    recorded: RequestHandle,
    client: Client,
    operation: Operation<'f>,
    key: Option<String>,
    mode: WaitMode,
    allowed_problem: Option<&'static str>,
    counts: bool,
}

impl<'f> ClientRequest<'f> {
    /// A request that is not sent yet.
    #[must_use]
    pub fn new(
        env: &'f Environment,
        user: &str,
        operation: Operation<'f>,
        key: Option<String>,
        mode: WaitMode,
    ) -> Self {
        Self {
            recorded: env.history.record_sent(user, operation.target(), key.as_deref()),
            client: env.client.with_token(&env.token(user, operation.role())),
            env,
            operation,
            key,
            mode,
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
        Self { client: self.client.clone(), key: self.key.clone(), counts: false, mode, ..*self }
    }

    /// Sends the request, and waits until it is final. `None`: there is no outcome, or it is unknown (no key, and no
    /// response).
    pub async fn until_final(&self, rng: &mut Rng) -> Option<Outcome> {
        let stats = &self.env.stats;
        let responses = ResponseCheck {
            allowed_problem: self.allowed_problem,
            ..ResponseCheck::new(&self.env.history, self.recorded, stats, self.key.is_some())
        };
        let request = self.client.request(self.operation).server(rng.below(self.env.apis()));
        let request = match &self.key {
            Some(key) => request.idempotency_key(key),
            None => request.without_idempotency_key(),
        };
        let request = request.polling(self.mode.polling()).observer(&responses);
        let result = tokio::select! {
            biased;
            () = stats.stopped_waiting() => {
                responses.stop();
                return None;
            }
            result = request.send_and_wait() => result,
        };
        if let Err(Error::InvalidRequest(reason)) = &result {
            stats.complain(format!("{:?} cannot be sent: {reason}", self.operation));
        }
        let outcome = result.ok()?;
        if self.counts {
            stats.count_outcome();
        }
        Some(outcome)
    }
}

/// Records every response to a request, and complains about those that the interface does not allow.
struct ResponseCheck<'a> {
    history: &'a History,
    recorder: Recorder<'a>,
    stats: &'a Stats,
    has_key: bool,
    allowed_problem: Option<&'static str>,
    is_accepted: AtomicBool,
    /// Whether an attempt has no result yet.
    is_sending: AtomicBool,
}

impl<'a> ResponseCheck<'a> {
    fn new(history: &'a History, recorded: RequestHandle, stats: &'a Stats, has_key: bool) -> Self {
        Self {
            history,
            recorder: Recorder::of(history, recorded),
            stats,
            has_key,
            allowed_problem: None,
            is_accepted: AtomicBool::new(false),
            is_sending: AtomicBool::new(false),
        }
    }

    /// The client stops waiting: the delivery of an attempt under way is unknown.
    fn stop(&self) {
        if self.is_sending.swap(false, Ordering::Relaxed) {
            self.history.record_received(self.recorder.request(), Received::Nothing);
        }
        // The checker counts accepted requests without an outcome.
        if self.has_key && !self.is_accepted.load(Ordering::Relaxed) {
            self.stats.count_unanswered();
        }
    }

    fn is_allowed(&self, response: &ApiResponse) -> bool {
        match response {
            ApiResponse::Problem { status: 503 | 429 | 408, .. } => true,
            response if response.is_gate() && !self.has_key => true,
            ApiResponse::Problem { code, .. } => self.allowed_problem == Some(&**code),
            response => response.is_final() || *response == ApiResponse::Pending,
        }
    }
}

impl Observer for ResponseCheck<'_> {
    fn sending(&self, _: &Attempt<'_>) {
        self.is_sending.store(true, Ordering::Relaxed);
    }

    fn received(&self, attempt: &Attempt<'_>, result: Result<&HttpResponse, &TransportError>) {
        self.is_sending.store(false, Ordering::Relaxed);
        self.recorder.received(attempt, result);
        let Ok(response) = result else { return };
        let status = response.status.as_u16();
        let parsed = ApiResponse::parse(status, &response.text());
        if parsed == ApiResponse::Pending {
            self.is_accepted.store(true, Ordering::Relaxed);
        }
        if !self.is_allowed(&parsed) {
            let (Attempt { method, path, .. }, body) = (attempt, response.excerpt());
            self.stats.complain(format!("{method} {path} returned {status}: {body}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_client::Step;
    use stampede_client::transport::header::HeaderMap;
    use stampede_client::transport::{Method, StatusCode};

    const GATE: (u16, &str) = (409, r#"{"code": "sold_out"}"#);
    const REUSED: (u16, &str) = (422, r#"{"code": "idempotency_key_reused"}"#);

    /// What is left of a request with these responses: its check, and the complaints.
    fn after<'a>(check: ResponseCheck<'a>, responses: &[(u16, &'static str)]) -> (ResponseCheck<'a>, u64) {
        let (method, path) = (Method::POST, "/v1/coupons/c/claims");
        let attempt = Attempt {
            number: 1,
            step: Step::Submit,
            server: "",
            method: &method,
            path,
            idempotency_key: None,
        };
        for (status, body) in responses {
            let status = StatusCode::from_u16(*status).expect("a status");
            let response = HttpResponse { status, headers: HeaderMap::new(), body: (*body).into() };
            check.sending(&attempt);
            check.received(&attempt, Ok(&response));
        }
        let complaints = check.stats.complaints().0;
        check.sending(&attempt);
        (check, complaints)
    }

    #[test]
    fn a_response_that_the_interface_does_not_allow_is_a_complaint() {
        let complaints = |has_key, allowed_problem, response| {
            let (history, stats) = (History::new(), Stats::default());
            let sent = history.record_sent("ann", "c", None);
            let check =
                ResponseCheck { allowed_problem, ..ResponseCheck::new(&history, sent, &stats, has_key) };
            after(check, &[response]).1
        };
        for allowed in [(503, r#"{"code": "overloaded"}"#), (429, r#"{"code": "too_many_requests"}"#), GATE] {
            assert_eq!(complaints(false, None, allowed), 0, "{allowed:?}");
        }
        for response in [GATE, REUSED, (500, r#"{"code": "internal"}"#), (503, "no problem"), (200, "{}")] {
            assert_eq!(complaints(true, None, response), 1, "{response:?}");
        }
        assert_eq!(complaints(true, Some("idempotency_key_reused"), REUSED), 0);
    }

    #[test]
    fn an_attempt_under_way_at_the_end_is_recorded_as_unknown_and_counted_unless_it_was_accepted() {
        const PENDING: &str = r#"{"request_id": "AAAAAAAAAAAAAAAAAAAAAQ.tag", "status": "pending"}"#;
        for (has_key, responses, unanswered) in [
            (true, [(503, r#"{"code": "overloaded"}"#)], 1),
            (false, [(503, r#"{"code": "overloaded"}"#)], 0),
            (true, [(202, PENDING)], 0),
        ] {
            let (history, stats) = (History::new(), Stats::default());
            let sent = history.record_sent("ann", "c", None);
            let (check, _) = after(ResponseCheck::new(&history, sent, &stats, has_key), &responses);
            check.stop();
            let recorded = history.request(sent).expect("it was sent").responses;
            assert_eq!(recorded.len(), 2);
            assert_eq!(recorded[1].response, ApiResponse::Missing);
            assert_eq!(stats.unanswered(), unanswered, "{responses:?}");
        }
    }
}
