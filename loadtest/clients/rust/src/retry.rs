//! When an attempt is repeated, and after which pause.

use std::time::Duration;

use hyper::StatusCode;
use rand::RngExt as _;

use crate::error::Problem;
use crate::transport::{HttpResponse, TransportError};

/// No pause is longer, whatever the server sends.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How long and how often a call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The whole call, from its start: all attempts, pauses and polls.
    pub deadline: Duration,
    /// The first pause without a `Retry-After`. It doubles with each further attempt; the actual pause is a random
    /// one between half of it and all of it.
    pub first_pause: Duration,
    /// The longest such pause.
    pub max_pause: Duration,
    /// A longer `Retry-After` is cut to this; zero ignores the header.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            first_pause: Duration::from_millis(50),
            max_pause: Duration::from_secs(1),
            max_retry_after: Duration::from_secs(30),
        }
    }
}

/// The pauses of one call.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    pause: Duration,
}

impl Backoff {
    pub(crate) const fn new(policy: RetryPolicy) -> Self {
        Self { policy, pause: policy.first_pause }
    }

    /// The next pause. Clients that were rejected together do not return together, and never before `Retry-After`.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let mut rng = rand::rng();
        let own = self.pause.mul_f64(rng.random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(self.policy.max_pause);
        let requested = retry_after.unwrap_or_default().min(self.policy.max_retry_after).min(MAX_PAUSE);
        own.max(requested.mul_f64(rng.random_range(1.0..=1.25)))
    }

    /// After a response that is no failure.
    pub(crate) const fn reset(&mut self) {
        self.pause = self.policy.first_pause;
    }
}

/// What one attempt means for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This is the response.
    Return,
    /// The same request may succeed later, and the server has not accepted it.
    RepeatRejected,
    /// The same request may succeed later, and the server may have accepted it.
    RepeatUnconfirmed,
}

/// Sorts the result of an attempt.
pub(crate) fn next(result: &Result<HttpResponse, TransportError>) -> Next {
    match result {
        Err(TransportError::InvalidRequest(_) | TransportError::InvalidBaseUrl(_)) => Next::Return,
        Err(error) if error.may_have_been_delivered() => Next::RepeatUnconfirmed,
        Err(_) => Next::RepeatRejected,
        Ok(response) => match response.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Next::RepeatRejected,
            // The one 5xx that guarantees that nothing was accepted.
            StatusCode::SERVICE_UNAVAILABLE if Problem::code_is(response, "overloaded") => {
                Next::RepeatRejected
            }
            status if status.is_server_error() => Next::RepeatUnconfirmed,
            _ => Next::Return,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    fn response(status: u16, body: &'static str) -> Result<HttpResponse, TransportError> {
        let status = StatusCode::from_u16(status).expect("a status");
        Ok(HttpResponse { status, headers: HeaderMap::new(), body: body.into() })
    }

    #[test]
    fn overload_outages_and_lost_connections_are_repeated_and_nothing_else() {
        for status in [500, 502, 503, 504] {
            assert_eq!(next(&response(status, "")), Next::RepeatUnconfirmed, "{status}");
        }
        assert_eq!(next(&response(503, r#"{"code": "unavailable"}"#)), Next::RepeatUnconfirmed);
        assert_eq!(next(&response(503, r#"{"code": "overloaded"}"#)), Next::RepeatRejected);
        for status in [408, 429] {
            assert_eq!(next(&response(status, "")), Next::RepeatRejected, "{status}");
        }
        for status in [200, 201, 202, 400, 401, 403, 404, 409, 410, 422] {
            assert_eq!(next(&response(status, "")), Next::Return, "{status}");
        }
        assert_eq!(next(&Err(TransportError::Timeout(Duration::ZERO))), Next::RepeatUnconfirmed);
        assert_eq!(next(&Err(TransportError::NotSent)), Next::RepeatRejected);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_never_shorter_than_retry_after() {
        let millis = Duration::from_millis;
        let policy =
            RetryPolicy { first_pause: millis(100), max_pause: millis(400), ..RetryPolicy::default() };
        let mut backoff = Backoff::new(policy);
        for full in [100, 200, 400, 400] {
            let pause = backoff.next(None);
            assert!((millis(full / 2)..=millis(full)).contains(&pause), "{full}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= millis(100));
        let pause = backoff.next(Some(Duration::from_secs(2)));
        assert!((Duration::from_secs(2)..=millis(2_500)).contains(&pause), "{pause:?}");
        let mut deaf = Backoff::new(RetryPolicy { max_retry_after: Duration::ZERO, ..policy });
        assert!(deaf.next(Some(Duration::from_secs(9))) <= millis(100));
    }
}
