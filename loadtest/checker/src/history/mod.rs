//! What every client sent and received: recorded during a test or a sale, and compared with Postgres at its end.
//!
//! A history only grows. A response is parsed on arrival and kept small (code or reason, request id, digest of the
//! outcome), so that a million requests fit into memory.
//!
//! Reading order: this file, `response.rs` (parses API responses), `file.rs` (the history file).

mod file;
mod response;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;

pub use file::HistoryError;
use file::{Recorder, replay};
use response::Parsed;
pub use response::{ApiResponse, Received};

/// Identifies one request in a [`History`]. A client may send the HTTP request several times (with an Idempotency-Key),
/// and may query the outcome later: all of that is one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestHandle(usize);

/// One response of the API, parsed.
#[derive(Clone, Debug)]
pub struct ReceivedResponse {
    /// When it arrived, since the start of the history.
    pub after: Duration,
    /// The request id in the response, if any.
    pub id: Option<RequestId>,
    /// Its content.
    pub response: ApiResponse,
    /// Digest of the outcome as the user sees it; 0 without an outcome.
    pub(crate) user_digest: u64,
    /// Whether it is the outcome of a claim.
    pub(crate) is_claim: bool,
}

/// One request, with every response that its client received.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// The user who sent it.
    pub user: Box<str>,
    /// The coupon that it is about.
    pub coupon: Box<str>,
    /// Its Idempotency-Key.
    pub key: Option<Box<str>>,
    /// When it was first sent, since the start of the history.
    pub sent: Duration,
    /// The request id that the API returned; the last one, if it returned several.
    pub request_id: Option<Box<str>>,
    /// All responses, in the order of arrival.
    pub responses: Vec<ReceivedResponse>,
}

impl ClientRequest {
    /// The first final outcome that the client received.
    #[must_use]
    pub fn outcome(&self) -> Option<&ApiResponse> {
        self.responses.iter().map(|received| &received.response).find(|response| response.is_final())
    }
}

/// Everything that clients sent and received.
#[derive(Debug)]
pub struct History {
    /// `None`: the history was read from a file.
    started: Option<Instant>,
    requests: Mutex<Vec<ClientRequest>>,
    recorder: Option<Recorder>,
}

impl Default for History {
    fn default() -> Self {
        Self { started: Some(Instant::now()), requests: Mutex::default(), recorder: None }
    }
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty history that also writes everything to a new file, for `loadtest verify --history`.
    /// [`Self::finish`] completes the file.
    ///
    /// # Errors
    /// When the file exists, or cannot be created.
    pub fn recording_to(path: &Path) -> io::Result<Self> {
        Ok(Self { recorder: Some(Recorder::create(path)?), ..Self::default() })
    }

    /// Reads the file of another history, complete or still being written.
    ///
    /// # Errors
    /// When the file is not a history, or is damaged.
    pub fn read(path: &Path) -> Result<Self, HistoryError> {
        let history = Self { started: None, ..Self::default() };
        replay(path, &history)?;
        Ok(history)
    }

    /// Flushes the file, if there is one.
    ///
    /// # Errors
    /// When something could not be written, now or before: the file is then incomplete.
    pub fn finish(&self) -> io::Result<()> {
        self.recorder.as_ref().map_or(Ok(()), Recorder::finish)
    }

    /// The time since the start. A history from a file is older than everything in it.
    pub(crate) fn age(&self) -> Duration {
        self.started.map_or(Duration::MAX, |started| started.elapsed())
    }

    /// Records a request. To be called before it is first sent: the file then contains every accepted request.
    pub fn record_sent(&self, user: &str, coupon: &str, key: Option<&str>) -> RequestHandle {
        let sent = self.age();
        let handle = self.add_request(sent, user, coupon, key);
        if let Some(recorder) = &self.recorder {
            recorder.sent(handle.0, sent, user, coupon, key);
        }
        handle
    }

    fn add_request(&self, sent: Duration, user: &str, coupon: &str, key: Option<&str>) -> RequestHandle {
        let (user, coupon, key) = (user.into(), coupon.into(), key.map(Into::into));
        let request = ClientRequest { user, coupon, key, sent, request_id: None, responses: Vec::new() };
        let mut requests = self.lock();
        requests.push(request);
        RequestHandle(requests.len() - 1)
    }

    /// Records a response to a request, or that none arrived.
    pub fn record_received(&self, handle: RequestHandle, received: Received) {
        let after = self.age();
        if let Some(recorder) = &self.recorder {
            recorder.received(handle.0, after, &received);
        }
        self.add_received(after, handle, received);
    }

    fn add_received(&self, after: Duration, handle: RequestHandle, received: Received) {
        let Parsed { response, request_id, id, user_digest, is_claim } = received.parse();
        if let Some(request) = self.lock().get_mut(handle.0) {
            request.responses.push(ReceivedResponse { after, id, response, user_digest, is_claim });
            if request_id.is_some() {
                request.request_id = request_id;
            }
        }
    }

    /// The number of requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is no request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of one request.
    #[must_use]
    pub fn request(&self, handle: RequestHandle) -> Option<ClientRequest> {
        self.lock().get(handle.0).cloned()
    }

    /// Calls `read` with all requests. Recording waits until it returns.
    pub(crate) fn with_requests<T>(&self, read: impl FnOnce(&[ClientRequest]) -> T) -> T {
        read(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ClientRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

    #[test]
    fn a_history_keeps_every_response_of_every_request() {
        let history = History::new();
        let (one, two) = (history.record_sent("ann", "c", Some("k")), history.record_sent("bob", "c", None));
        history.record_received(one, Received::Nothing);
        let body = format!(r#"{{"request_id":"{ID}.tag","status":"pending"}}"#);
        history.record_received(one, Received::Response { status: 202, body });
        let request = history.request(one).expect("it was sent");
        assert_eq!(request.responses.len(), 2);
        assert_eq!(request.request_id.as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAQ.tag"));
        assert_eq!(request.responses[1].id, Some(RequestId { identity: 1, body: 0 }));
        assert_eq!((history.len(), history.request(two).map(|two| two.responses.len())), (2, Some(0)));
    }
}
