//! One user who wants a code and does not give up: claims, waits, and asks again after whatever may be repeated.
//!
//! Every try carries the same Idempotency-Key, so that however often the answer gets lost it stays one request. The
//! first final outcome ends it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coupon_core::ids::RequestId;
use coupon_core::vocabulary::Reason;
use hyper::{Method, StatusCode};
use rand::RngExt as _;
use serde::Deserialize;

use crate::checker::{Heard, History};
use crate::http::{Call, Connection, Lost, Reply};

/// How long one request may wait at the server.
const WAIT_SECONDS: u64 = 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(WAIT_SECONDS + 5);
/// Longer than any restart: who has no answer by then is unresolved.
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Its id, the token's subject.
    pub name: String,
    /// Its token.
    pub token: String,
    /// Its Idempotency-Key.
    pub key: String,
}

/// What a user was told in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A code.
    Won {
        /// The request.
        request: RequestId,
        /// The code.
        code: String,
    },
    /// A decided request without a code.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why.
        reason: String,
    },
    /// The sold-out gate; not a decided request.
    Gate,
    /// An answer that no repetition changes.
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// No final answer, and no patience left.
    None {
        /// Whether the request had been accepted.
        accepted: bool,
    },
}

impl Answer {
    /// Whether the user was told that nothing is left.
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        match self {
            Self::Gate => true,
            Self::Rejected { reason, .. } => reason == Reason::SoldOut.as_str(),
            _ => false,
        }
    }
}

/// How it went for one user.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who.
    pub user: String,
    /// The answer.
    pub answer: Answer,
    /// From the first try to the answer.
    pub took: Duration,
    /// Tries that had to be repeated.
    pub retries: u64,
}

/// The API's view of a request.
#[derive(Debug, Deserialize)]
struct View<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    reason: Option<String>,
    code: Option<String>,
}

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Done(Answer),
    /// Accepted: ask for this id (as shown).
    Ask(String),
    /// The same again, after a pause if the server named none.
    Again(Option<Duration>),
}

/// Claims one code of `coupon` for `user` until there is an answer; every exchange goes into the history.
pub async fn claim(connection: &mut Connection, user: &User, coupon: &str, history: &History) -> Told {
    let begun = Instant::now();
    let claims = format!("/v1/coupons/{coupon}/claims?wait={WAIT_SECONDS}");
    let mut pending: Option<String> = None;
    let asked = history.sent(&user.name, coupon, Some(&user.key));
    let mut pause = FIRST_PAUSE;
    let mut retries = 0;
    while begun.elapsed() < PATIENCE {
        let looking = pending.as_ref().map(|id| format!("/v1/requests/{id}?wait={WAIT_SECONDS}"));
        let call = match &looking {
            Some(path) => Call { method: Method::GET, path, token: &user.token, key: None, body: None },
            None => Call {
                method: Method::POST,
                path: &claims,
                token: &user.token,
                key: Some(&user.key),
                body: Some(Bytes::from_static(b"{}")),
            },
        };
        let reply = connection.send(&call, ANSWER_WITHIN).await;
        history.heard(asked, heard(&reply));
        match next(&reply, looking.is_some()) {
            Next::Done(answer) => {
                return Told { user: user.name.clone(), answer, took: begun.elapsed(), retries };
            }
            Next::Ask(id) => pending = Some(id),
            Next::Again(after) => {
                retries += 1;
                tokio::time::sleep(jittered(after.unwrap_or(pause))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    let answer = Answer::None { accepted: pending.is_some() };
    Told { user: user.name.clone(), answer, took: begun.elapsed(), retries }
}

fn heard(reply: &Result<Reply, Lost>) -> Heard {
    match reply {
        Ok(reply) => Heard::Answer {
            status: reply.status.as_u16(),
            body: String::from_utf8_lossy(&reply.body).into_owned(),
        },
        Err(_) => Heard::Nothing,
    }
}

/// `looking`: it answers a GET of a request that was accepted.
fn next(reply: &Result<Reply, Lost>, looking: bool) -> Next {
    let Ok(reply) = reply else { return Next::Again(None) };
    if reply.may_be_repeated() {
        return Next::Again(reply.retry_after);
    }
    match reply.status {
        StatusCode::OK | StatusCode::ACCEPTED => read(reply).unwrap_or(Next::Again(None)),
        StatusCode::CONFLICT if !looking => Next::Done(Answer::Gate),
        // An id that was given out and is not known any more: accepted, and never resolved.
        _ if looking => Next::Done(Answer::None { accepted: true }),
        status => Next::Done(Answer::Refused { status: status.as_u16() }),
    }
}

/// `None` for a body that is not what the API documents.
fn read(reply: &Reply) -> Option<Next> {
    let view: View<'_> = serde_json::from_slice(&reply.body).ok()?;
    // What follows the dot is for the API: when the id was given out, and to whom.
    let canonical = view.request_id.split('.').next()?;
    let request = RequestId::parse(canonical).ok()?;
    match (view.status.as_ref(), view.code, view.reason) {
        ("accepted", Some(code), _) => Some(Next::Done(Answer::Won { request, code })),
        ("rejected", _, Some(reason)) => Some(Next::Done(Answer::Rejected { request, reason })),
        ("pending", ..) => Some(Next::Ask(view.request_id.into_owned())),
        _ => None,
    }
}

/// Between half and all of it: users who were turned away together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId { identity: 7, body: 9 };

    fn reply(status: u16, body: &str) -> Result<Reply, Lost> {
        let status = StatusCode::from_u16(status).expect("a status");
        Ok(Reply { status, retry_after: None, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    #[test]
    fn a_final_outcome_ends_it_and_a_pending_one_is_asked_for() {
        let won =
            format!(r#"{{"request_id": "{ID}.abc", "status": "accepted", "code": "X", "reason": null}}"#);
        let code = "X".to_owned();
        assert_eq!(next(&reply(200, &won), true), Next::Done(Answer::Won { request: ID, code }));
        let rejected = format!(r#"{{"request_id": "{ID}.abc", "status": "rejected", "reason": "sold_out"}}"#);
        let Next::Done(answer) = next(&reply(200, &rejected), false) else { unreachable!("it is final") };
        assert!(answer.is_sold_out());
        let pending = format!(r#"{{"request_id": "{ID}.abc", "status": "pending"}}"#);
        assert_eq!(next(&reply(202, &pending), false), Next::Ask(format!("{ID}.abc")));
    }

    #[test]
    fn what_may_be_repeated_is_and_nothing_else() {
        for status in [429, 500, 502, 503, 504] {
            assert_eq!(next(&reply(status, ""), false), Next::Again(None), "{status}");
        }
        assert_eq!(next(&Err(Lost::Late(PATIENCE)), true), Next::Again(None));
        assert_eq!(next(&reply(409, ""), false), Next::Done(Answer::Gate));
        assert_eq!(next(&reply(401, ""), false), Next::Done(Answer::Refused { status: 401 }));
        assert_eq!(next(&reply(404, ""), true), Next::Done(Answer::None { accepted: true }));
    }
}
