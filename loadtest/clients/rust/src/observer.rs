//! A hook into every attempt of a call.

use std::time::Duration;

use hyper::Method;

use crate::transport::{HttpResponse, TransportError};

/// Which part of a call an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request itself.
    Submit,
    /// A `GET` for the outcome of an accepted request.
    Poll,
    /// Any other call.
    Query,
}

/// One HTTP request of a call.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Counted from 1 over the whole call, polls included.
    pub number: u32,
    /// Which part of the call it is.
    pub step: Step,
    /// Base URL of the server.
    pub server: &'a str,
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub path: &'a str,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
}

/// Sees every attempt of a call: to log, to count, or to record a history.
///
/// The methods are called on the task that makes the call and should return quickly. If the future of the call is
/// dropped, an attempt under way has no result.
pub trait Observer: Send + Sync {
    /// An attempt starts.
    fn sending(&self, attempt: &Attempt<'_>) {
        _ = attempt;
    }

    /// An attempt has ended.
    fn received(&self, attempt: &Attempt<'_>, result: Result<&HttpResponse, &TransportError>) {
        _ = (attempt, result);
    }

    /// The attempt failed and is repeated after `pause`.
    fn retrying(&self, attempt: &Attempt<'_>, pause: Duration) {
        _ = (attempt, pause);
    }
}
