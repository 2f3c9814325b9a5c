//! The retry loop of one call: the same HTTP request, until its response is final or the deadline passes.
//!
//! A request that may be applied twice (no Idempotency-Key) is repeated only while it is certain that the server has
//! not accepted it. After a failure the next attempt goes to the next server. Every attempt is observed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Client;
use crate::error::{Cause, Error};
use crate::observer::{Attempt, Observer, Step};
use crate::retry::{Backoff, Next, RetryPolicy, next};
use crate::transport::{HttpRequest, HttpResponse, TransportError};

const MAX_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Whether an HTTP request may be repeated although the server may have received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safety {
    /// A read, or a request with an Idempotency-Key.
    Idempotent,
    /// A second delivery would be a second request.
    Once,
}

/// One call: its attempts, pauses and deadline.
pub(crate) struct Exchange<'a> {
    client: &'a Client,
    observer: Option<&'a dyn Observer>,
    server: usize,
    attempts: u32,
    backoff: Backoff,
    started: Instant,
    deadline: Instant,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        client: &'a Client,
        policy: RetryPolicy,
        server: Option<usize>,
        observer: Option<&'a dyn Observer>,
    ) -> Self {
        let started = Instant::now();
        Self {
            client,
            observer,
            server: server.unwrap_or_else(|| client.next_server()),
            attempts: 0,
            backoff: Backoff::new(policy),
            started,
            deadline: started.checked_add(policy.deadline).unwrap_or(started + MAX_DEADLINE),
        }
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The pause before the next poll of a server that responded early.
    pub(crate) fn pause_after(&mut self, retry_after: Option<Duration>) -> Duration {
        self.backoff.next(retry_after)
    }

    pub(crate) const fn reset_backoff(&mut self) {
        self.backoff.reset();
    }

    /// Sends a request until its response is final: a success, or a status that a further attempt does not change.
    /// `wait` is the time that the request lets the server wait.
    ///
    /// # Errors
    /// [`Error::NotAccepted`] or [`Error::Unconfirmed`] at the deadline, the latter sooner for [`Safety::Once`].
    pub(crate) async fn repeat(
        &mut self,
        step: Step,
        request: &HttpRequest<'_>,
        wait: Duration,
        safety: Safety,
    ) -> Result<HttpResponse, Error> {
        let mut maybe_accepted = false;
        loop {
            let (attempt, result) = self.attempt(step, request, wait, safety).await;
            match next(&result) {
                Next::Return => {
                    return result.map_err(|error| Error::InvalidRequest(error.to_string()));
                }
                Next::RepeatRejected => {}
                Next::RepeatUnconfirmed => maybe_accepted = true,
            }
            let retry_after = result.as_ref().ok().and_then(HttpResponse::retry_after);
            let pause = self.backoff.next(retry_after);
            if (maybe_accepted && safety == Safety::Once) || pause >= self.remaining() {
                let cause = Cause::of(result);
                return Err(if maybe_accepted {
                    let idempotency_key = request.idempotency_key.map(str::to_owned);
                    Error::Unconfirmed { idempotency_key, cause }
                } else {
                    Error::NotAccepted(cause)
                });
            }
            if let Some(observer) = self.observer {
                observer.retrying(&attempt, pause);
            }
            self.server = self.server.wrapping_add(1);
            sleep(pause).await;
        }
    }

    /// Sends a request once.
    pub(crate) async fn attempt<'r>(
        &mut self,
        step: Step,
        request: &'r HttpRequest<'_>,
        wait: Duration,
        safety: Safety,
    ) -> (Attempt<'r>, Result<HttpResponse, TransportError>)
    where
        'a: 'r,
    {
        let client = self.client;
        let server = client.server(self.server);
        self.attempts += 1;
        let attempt = Attempt {
            number: self.attempts,
            step,
            server: server.base_url(),
            method: &request.method,
            path: &request.path,
            idempotency_key: request.idempotency_key,
        };
        if let Some(observer) = self.observer {
            observer.sending(&attempt);
        }
        let limit = (wait + client.response_timeout).min(self.remaining());
        let result = server.send(request, limit, safety == Safety::Idempotent).await;
        if let Some(observer) = self.observer {
            observer.received(&attempt, result.as_ref());
        }
        (attempt, result)
    }
}
