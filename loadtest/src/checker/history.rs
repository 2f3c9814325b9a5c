//! What every client sent, and what it was told: kept while a test or a sale runs, held against the truth at its end.
//!
//! Append-only. An answer is read when it is heard and kept small, so that a million requests fit: what a check
//! needs of an outcome is its digest, its code or reason, and its request id.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use serde::Deserialize;

use super::told::{Shown, shown_digest};

/// One request of a client, of which it may send the HTTP request several times (with an Idempotency-Key) or ask
/// for the outcome later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked(usize);

/// What came back to the client.
#[derive(Clone, Debug)]
pub enum Heard {
    /// No answer: a timeout, a connection that broke. The request may have been accepted or not.
    Nothing,
    /// The API's answer to a POST or a GET.
    Answer {
        /// HTTP status.
        status: u16,
        /// The body as it came.
        body: String,
    },
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The connection broke, or the answer took too long.
    Nothing,
    /// Accepted, not decided yet.
    Pending,
    /// Decided: the user has this code.
    Accepted {
        /// The code.
        code: Box<str>,
    },
    /// Decided: nothing changed.
    Rejected {
        /// Why.
        reason: Box<str>,
    },
    /// Not accepted as a request, or not found; the gate's 409 `sold_out` is one of these.
    Problem {
        /// HTTP status.
        status: u16,
        /// The problem's stable word.
        code: Box<str>,
    },
    /// An answer that the interface does not have.
    Garbled {
        /// HTTP status.
        status: u16,
        /// The beginning of the body.
        body: Box<str>,
    },
}

impl Told {
    /// Reads an answer.
    #[must_use]
    pub fn of(status: u16, body: &str) -> Self {
        read(status, body).told
    }

    /// Whether it is a final outcome.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Rejected { .. })
    }

    /// Whether it is the sold-out gate's answer.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        matches!(self, Self::Problem { status: 409, code } if &**code == "sold_out")
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How long after the history began.
    pub after: Duration,
    /// The request's id, where the answer names one.
    pub id: Option<RequestId>,
    /// What it says.
    pub told: Told,
    /// Digest of what a user sees of an outcome; 0 where there is none.
    pub(super) shown: u64,
}

/// One request and everything that was heard of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who asked.
    pub user: Box<str>,
    /// Of which coupon.
    pub coupon: Box<str>,
    /// Its Idempotency-Key.
    pub key: Option<Box<str>>,
    /// When it was first sent, after the history began.
    pub sent: Duration,
    /// The request id as the API gave it out (the last one, where it gave several).
    pub given: Option<Box<str>>,
    /// All answers, in the order in which they came.
    pub answers: Vec<Answer>,
}

impl Entry {
    /// The first final outcome that was told.
    #[must_use]
    pub fn outcome(&self) -> Option<&Told> {
        self.answers.iter().map(|answer| &answer.told).find(|told| told.is_final())
    }
}

/// Everything that clients sent and heard.
#[derive(Debug)]
pub struct History {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), entries: Mutex::default() }
    }
}

impl History {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request is about to be sent.
    pub fn sent(&self, user: &str, coupon: &str, key: Option<&str>) -> Asked {
        let entry = Entry {
            user: user.into(),
            coupon: coupon.into(),
            key: key.map(Into::into),
            sent: self.began.elapsed(),
            given: None,
            answers: Vec::new(),
        };
        let mut entries = self.lock();
        entries.push(entry);
        Asked(entries.len() - 1)
    }

    /// An answer came, or did not.
    pub fn heard(&self, asked: Asked, heard: Heard) {
        let Reading { told, given, id, shown } = match heard {
            Heard::Nothing => Reading::of(Told::Nothing),
            Heard::Answer { status, body } => read(status, &body),
        };
        let after = self.began.elapsed();
        if let Some(entry) = self.lock().get_mut(asked.0) {
            entry.answers.push(Answer { after, id, told, shown });
            if given.is_some() {
                entry.given = given;
            }
        }
    }

    /// How many requests were sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One request as it stands.
    #[must_use]
    pub fn entry(&self, asked: Asked) -> Option<Entry> {
        self.lock().get(asked.0).cloned()
    }

    /// Looks at all requests. Nothing can be sent or heard meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct RequestBody {
    request_id: String,
    status: String,
    kind: Option<String>,
    coupon_id: Option<String>,
    reason: Option<String>,
    code: Option<String>,
    decided_at: Option<String>,
}

#[derive(Deserialize)]
struct ProblemBody {
    code: Box<str>,
}

struct Reading {
    told: Told,
    given: Option<Box<str>>,
    id: Option<RequestId>,
    shown: u64,
}

impl Reading {
    const fn of(told: Told) -> Self {
        Self { told, given: None, id: None, shown: 0 }
    }
}

fn read(status: u16, body: &str) -> Reading {
    if !(200..300).contains(&status) {
        return match serde_json::from_str::<ProblemBody>(body) {
            Ok(problem) => Reading::of(Told::Problem { status, code: problem.code }),
            Err(_) => garbled(status, body),
        };
    }
    let Ok(request) = serde_json::from_str::<RequestBody>(body) else { return garbled(status, body) };
    let canonical = request.request_id.split('.').next().unwrap_or_default();
    let Ok(id) = RequestId::parse(canonical) else { return garbled(status, body) };
    let decided_ms = request.decided_at.as_deref().and_then(unix_ms);
    let (told, shown) = match (request.status.as_str(), request.code, request.reason, decided_ms) {
        ("pending", None, None, None) => (Told::Pending, None),
        ("accepted", Some(code), None, Some(at)) => (Told::Accepted { code: code.into() }, Some(at)),
        ("rejected", None, Some(reason), Some(at)) => (Told::Rejected { reason: reason.into() }, Some(at)),
        _ => return garbled(status, body),
    };
    let shown = shown.map_or(0, |decided_ms| {
        let verdict = match &told {
            Told::Accepted { code } => Shown::Accepted(code),
            Told::Rejected { reason } => Shown::Rejected(reason),
            _ => Shown::Rejected(""),
        };
        let (kind, coupon) = (request.kind.unwrap_or_default(), request.coupon_id.unwrap_or_default());
        shown_digest(&kind, &coupon, verdict, decided_ms)
    });
    Reading { told, given: Some(request.request_id.into()), id: Some(id), shown }
}

fn unix_ms(rfc3339: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(rfc3339).ok().map(|time| time.timestamp_millis())
}

fn garbled(status: u16, body: &str) -> Reading {
    Reading::of(Told::Garbled { status, body: body.chars().take(200).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

    #[test]
    fn an_answer_is_read_as_what_it_says() {
        let pending = format!(r#"{{"request_id":"{ID}.tag","status":"pending","links":{{}}}}"#);
        assert_eq!(Told::of(202, &pending), Told::Pending);
        let won = format!(
            r#"{{"request_id":"{ID}.tag","status":"accepted","kind":"claim","coupon_id":"c","code":"X","reason":null,"decided_at":"2025-01-01T00:00:00.123Z"}}"#
        );
        assert_eq!(Told::of(200, &won), Told::Accepted { code: "X".into() });
        let gate = Told::of(409, r#"{"type":"t","status":409,"code":"sold_out"}"#);
        assert!(gate.is_gate() && !gate.is_final());
        assert!(matches!(Told::of(200, "<html>"), Told::Garbled { status: 200, .. }));
        let undated = won.replace("2025-01-01T00:00:00.123Z", "yesterday");
        assert!(matches!(Told::of(200, &undated), Told::Garbled { .. }), "an outcome has a time");
    }

    #[test]
    fn a_history_keeps_every_answer_of_every_request() {
        let history = History::new();
        let (one, two) = (history.sent("ann", "c", Some("k")), history.sent("bob", "c", None));
        history.heard(one, Heard::Nothing);
        let body = format!(r#"{{"request_id":"{ID}.tag","status":"pending"}}"#);
        history.heard(one, Heard::Answer { status: 202, body });
        let entry = history.entry(one).expect("it was sent");
        assert_eq!(entry.answers.len(), 2);
        assert_eq!(entry.given.as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAQ.tag"));
        assert_eq!(entry.answers[1].id, Some(RequestId { identity: 1, body: 0 }));
        assert_eq!((history.len(), history.entry(two).map(|e| e.answers.len())), (2, Some(0)));
    }
}
