//! What every client sent, and what it was told: kept while a test or a sale runs, held against the truth at its end.
//!
//! Append-only. An answer is read when it is heard and kept small, so that a million requests fit: what a check
//! needs of an outcome is its digest, its code or reason, and its request id. `history_file.rs` writes it down as it
//! comes, whole, and reads it again.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use serde::Deserialize;

use super::history_file::{HistoryUnreadable, Recorder, replay};
use super::told::{Accepted, Outcome, Paid, Verdict};

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
    /// Decided: it was granted, and this is the code that it is about.
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
    /// Whether it is the outcome of a claim.
    pub(super) of_claim: bool,
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
    /// `None`: it was read from a file, and all of it was heard before.
    began: Option<Instant>,
    entries: Mutex<Vec<Entry>>,
    recorder: Option<Recorder>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Some(Instant::now()), entries: Mutex::default(), recorder: None }
    }
}

impl History {
    /// Nothing was sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing was sent yet; whatever is sent and heard is also written to a new file, for `loadtest verify --history`.
    /// [`Self::finish`] ends it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn recorded(path: &Path) -> io::Result<Self> {
        Ok(Self { recorder: Some(Recorder::create(path)?), ..Self::default() })
    }

    /// Reads a file that another history was written to, be it finished or not.
    ///
    /// # Errors
    /// When it is no such file, or damaged.
    pub fn read(path: &Path) -> Result<Self, HistoryUnreadable> {
        let history = Self { began: None, ..Self::default() };
        replay(path, &history)?;
        Ok(history)
    }

    /// Everything so far is in the file, if there is one.
    ///
    /// # Errors
    /// When something could not be written, now or at any time before: the file says less than was heard.
    pub fn finish(&self) -> io::Result<()> {
        self.recorder.as_ref().map_or(Ok(()), Recorder::finish)
    }

    /// How long ago it began. All that a file says is heard before this.
    pub(super) fn age(&self) -> Duration {
        self.began.map_or(Duration::MAX, |began| began.elapsed())
    }

    /// A request is about to be sent.
    pub fn sent(&self, user: &str, coupon: &str, key: Option<&str>) -> Asked {
        let sent = self.age();
        let asked = self.sent_at(sent, user, coupon, key);
        // Before the request leaves: of what was accepted nothing is missing in the file.
        if let Some(recorder) = &self.recorder {
            recorder.sent(asked.0, sent, user, coupon, key);
        }
        asked
    }

    pub(super) fn sent_at(&self, sent: Duration, user: &str, coupon: &str, key: Option<&str>) -> Asked {
        let (user, coupon, key) = (user.into(), coupon.into(), key.map(Into::into));
        let entry = Entry { user, coupon, key, sent, given: None, answers: Vec::new() };
        let mut entries = self.lock();
        entries.push(entry);
        Asked(entries.len() - 1)
    }

    /// An answer came, or did not.
    pub fn heard(&self, asked: Asked, heard: Heard) {
        let after = self.age();
        if let Some(recorder) = &self.recorder {
            recorder.heard(asked.0, after, &heard);
        }
        self.heard_at(after, asked, heard);
    }

    pub(super) fn heard_at(&self, after: Duration, asked: Asked, heard: Heard) {
        let Reading { told, given, id, shown, of_claim } = match heard {
            Heard::Nothing => Reading::of(Told::Nothing),
            Heard::Answer { status, body } => read(status, &body),
        };
        if let Some(entry) = self.lock().get_mut(asked.0) {
            entry.answers.push(Answer { after, id, told, shown, of_claim });
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
    claim: Option<ClaimBody>,
    redemption: Option<RedemptionBody>,
    decided_at: Option<String>,
}

#[derive(Deserialize)]
struct ClaimBody {
    state: String,
    claimed_at: Option<String>,
    hold_until: Option<String>,
    lock_until: Option<String>,
}

#[derive(Deserialize)]
struct RedemptionBody {
    redemption_id: String,
    order_id: String,
    order_amount: String,
    discount: String,
    final_price: String,
    currency: String,
    redeemed_at: String,
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
    of_claim: bool,
}

impl Reading {
    const fn of(told: Told) -> Self {
        Self { told, given: None, id: None, shown: 0, of_claim: false }
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
    let Some(id) = canonical(&request.request_id) else { return garbled(status, body) };
    let (told, shown) = match (request.status.as_str(), &request.code, &request.reason) {
        ("pending", None, None) if request.decided_at.is_none() => (Told::Pending, Some(0)),
        ("accepted", Some(code), None) => (Told::Accepted { code: code.as_str().into() }, request.shown()),
        ("rejected", None, Some(reason)) => {
            (Told::Rejected { reason: reason.as_str().into() }, request.shown())
        }
        _ => return garbled(status, body),
    };
    let Some(shown) = shown else { return garbled(status, body) };
    let of_claim = request.kind.as_deref() == Some("claim");
    Reading { told, given: Some(request.request_id.into()), id: Some(id), shown, of_claim }
}

impl RequestBody {
    /// Digest of the outcome that it shows; `None` where a part of it cannot be read.
    fn shown(&self) -> Option<u64> {
        let verdict = match &self.reason {
            Some(reason) => Verdict::Rejected(reason),
            None => Verdict::Accepted(self.accepted()?),
        };
        let outcome = Outcome {
            kind: self.kind.as_deref().unwrap_or_default(),
            coupon: self.coupon_id.as_deref().unwrap_or_default(),
            user: "",
            partition: 0,
            offset: 0,
            decided_ms: unix_ms(self.decided_at.as_deref()?)?,
            verdict,
        };
        Some(outcome.shown(&mut String::new()))
    }

    fn accepted(&self) -> Option<Accepted<'_>> {
        let time = |at: Option<&String>| at.map_or(Some(None), |at| unix_ms(at).map(Some));
        let claim = self.claim.as_ref();
        let paid = match &self.redemption {
            None => None,
            Some(redemption) => Some(redemption.paid()?),
        };
        Some(Accepted {
            code: self.code.as_deref()?,
            number: 0,
            state: claim.map(|claim| claim.state.as_str()),
            claimed_ms: time(claim.and_then(|claim| claim.claimed_at.as_ref()))?,
            hold_until_ms: time(claim.and_then(|claim| claim.hold_until.as_ref()))?,
            lock_until_ms: time(claim.and_then(|claim| claim.lock_until.as_ref()))?,
            order: self.redemption.as_ref().map(|redemption| redemption.order_id.as_str()),
            paid,
        })
    }
}

impl RedemptionBody {
    fn paid(&self) -> Option<Paid<'_>> {
        let Self { redemption_id, order_amount, discount, final_price, currency, redeemed_at, .. } = self;
        let (id, redeemed_ms) = (canonical(redemption_id)?, unix_ms(redeemed_at)?);
        Some(Paid { id, amount: order_amount, discount, final_price, currency, redeemed_ms })
    }
}

/// An id without the tag that the API gives it.
fn canonical(shown: &str) -> Option<RequestId> {
    RequestId::parse(shown.split('.').next().unwrap_or_default()).ok()
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
