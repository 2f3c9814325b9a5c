//! Records one request and every response to it in the checker's history.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use checker::{History, Received, RequestHandle};
use stampede_client::transport::{HttpResponse, TransportError};
use stampede_client::{Attempt, Observer};

/// One request in a history. It is entered before its first attempt, so that the history lacks no accepted request.
#[derive(Debug)]
pub struct Recorder<'a> {
    history: &'a History,
    request: RequestHandle,
    retries: AtomicU64,
}

impl<'a> Recorder<'a> {
    /// Enters a request that is about to be sent.
    #[must_use]
    pub fn new(history: &'a History, user: &str, target: &str, key: Option<&str>) -> Self {
        Self::of(history, history.record_sent(user, target, key))
    }

    /// Records further responses to a request that is in the history.
    #[must_use]
    pub const fn of(history: &'a History, request: RequestHandle) -> Self {
        Self { history, request, retries: AtomicU64::new(0) }
    }

    /// The request.
    #[must_use]
    pub const fn request(&self) -> RequestHandle {
        self.request
    }

    /// How many attempts were repeated.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Whether a response reported the request as accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.history.request(self.request).is_some_and(|request| request.request_id.is_some())
    }
}

impl Observer for Recorder<'_> {
    fn received(&self, _: &Attempt<'_>, result: Result<&HttpResponse, &TransportError>) {
        let received = match result {
            Ok(response) => {
                Received::Response { status: response.status.as_u16(), body: response.text().into_owned() }
            }
            Err(_) => Received::Nothing,
        };
        self.history.record_received(self.request, received);
    }

    fn retrying(&self, _: &Attempt<'_>, _: Duration) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}
