//! Errors, sorted by what is known about the request.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use thiserror::Error;

use crate::transport::{HttpResponse, TransportError};

/// Why a call has no result.
///
/// A rejected request (`sold_out`, `user_limit_reached`, …) is an [`Outcome`](crate::Outcome), not an error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The server did not accept the request by the deadline: it was unreachable, or every response reported
    /// that nothing was accepted. Nothing has changed.
    #[error("not accepted by the deadline: {0}")]
    NotAccepted(Cause),
    /// The server may or may not have accepted the request. The same request with the same Idempotency-Key finds out.
    #[error("delivery not confirmed: {cause}")]
    Unconfirmed {
        /// The key to send it again with; `None`: it had none, so a further attempt would be another request.
        idempotency_key: Option<String>,
        /// The last failure.
        cause: Cause,
    },
    /// The request was accepted and will be decided, but its outcome is not known yet.
    /// [`Client::wait_for`](crate::Client::wait_for) continues to poll.
    #[error("request {request_id} is accepted; its outcome was not received: {cause}")]
    OutcomeNotReceived {
        /// The request.
        request_id: String,
        /// Why polling ended.
        cause: Cause,
    },
    /// The server rejects the HTTP request; a further attempt would be rejected too.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// A response that the interface does not define.
    #[error("unexpected response {status}: {excerpt}")]
    UnexpectedResponse {
        /// HTTP status.
        status: StatusCode,
        /// The start of the body.
        excerpt: String,
    },
    /// The request cannot be written as HTTP: a token, a key or a path with characters that are not allowed.
    #[error("{0}")]
    InvalidRequest(String),
}

/// The last failure before a call was given up.
#[derive(Debug)]
pub enum Cause {
    /// No response.
    Transport(TransportError),
    /// A response that may be repeated: 408, 429, 5xx.
    Response {
        /// HTTP status.
        status: StatusCode,
        /// The problem in its body; `None`: a body of another form, for example by a proxy.
        problem: Option<Box<Problem>>,
    },
    /// The deadline passed while the outcome was pending.
    Deadline(Duration),
    /// The server rejected a poll, or its response was unexpected.
    Poll(Box<Error>),
}

impl Error {
    /// The problem details, where the server sent some.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::NotAccepted(cause)
            | Self::Unconfirmed { cause, .. }
            | Self::OutcomeNotReceived { cause, .. } => match cause {
                Cause::Response { problem, .. } => problem.as_deref(),
                Cause::Poll(error) => error.problem(),
                Cause::Transport(_) | Cause::Deadline(_) => None,
            },
            Self::UnexpectedResponse { .. } | Self::InvalidRequest(_) => None,
        }
    }

    /// The HTTP status that the call ended with, where there was a response.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::UnexpectedResponse { status, .. } => Some(*status),
            Self::NotAccepted(cause)
            | Self::Unconfirmed { cause, .. }
            | Self::OutcomeNotReceived { cause, .. } => match cause {
                Cause::Response { status, .. } => Some(*status),
                Cause::Poll(error) => error.status(),
                Cause::Transport(_) | Cause::Deadline(_) => None,
            },
            Self::InvalidRequest(_) => None,
        }
    }

    /// A response that is neither a success nor to be repeated.
    pub(crate) fn of_response(response: &HttpResponse) -> Self {
        match Problem::of(response) {
            Some(problem) => Self::Problem(Box::new(problem)),
            None => Self::unexpected(response),
        }
    }

    pub(crate) fn unexpected(response: &HttpResponse) -> Self {
        Self::UnexpectedResponse { status: response.status, excerpt: response.excerpt() }
    }
}

impl Cause {
    pub(crate) fn of(result: Result<HttpResponse, TransportError>) -> Self {
        match result {
            Err(error) => Self::Transport(error),
            Ok(response) => {
                let problem = Problem::of(&response).map(Box::new);
                Self::Response { status: response.status, problem }
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Response { problem: Some(problem), .. } => problem.fmt(f),
            Self::Response { status, problem: None } => write!(f, "HTTP {status}"),
            Self::Deadline(after) => write!(f, "still pending after {:.1} s", after.as_secs_f64()),
            Self::Poll(error) => error.fmt(f),
        }
    }
}

/// Problem details (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("HTTP {} {code}: {detail}{}", status.as_u16(), ListedErrors(errors))]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// A URN that names the kind of problem.
    pub kind: String,
    /// A stable word that names the kind of problem: `invalid`, `not_found`, `sold_out`, …
    pub code: String,
    /// For people: the kind of problem.
    pub title: String,
    /// For people: this occurrence.
    pub detail: String,
    /// Every invalid field.
    pub errors: Vec<FieldError>,
    /// When the server suggests to try again.
    pub retry_after: Option<Duration>,
}

/// An invalid field, header or parameter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FieldError {
    /// Its name, with dots (`discount.value`).
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

#[derive(Deserialize)]
struct ProblemBody {
    #[serde(rename = "type", default)]
    kind: String,
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

impl Problem {
    /// The problem in a response, where its body is one.
    #[must_use]
    pub fn of(response: &HttpResponse) -> Option<Self> {
        let ProblemBody { kind, code, title, detail, errors } = response.json().ok()?;
        let retry_after = response.retry_after();
        Some(Self { status: response.status, kind, code, title, detail, errors, retry_after })
    }

    /// Whether the body of a response is a problem with this code.
    pub(crate) fn code_is(response: &HttpResponse, code: &str) -> bool {
        response.json::<ProblemBody>().is_ok_and(|body| body.code == code)
    }
}

struct ListedErrors<'a>(&'a [FieldError]);

impl fmt::Display for ListedErrors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|FieldError { field, detail }| write!(f, "; {field}: {detail}"))
    }
}
