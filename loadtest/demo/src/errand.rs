//! One thing that a user asks for, pursued until there is an answer: claim, lock or redeem.
//!
//! Every try carries the same Idempotency-Key, so that however often the answer gets lost it stays one request. What was
//! accepted (202) is asked for until it has its outcome. The first final outcome ends it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coupon_core::ids::RequestId;
use coupon_core::words::Reason;
use hyper::{Method, StatusCode};
use rand::RngExt as _;
use schemas::kinds;
use serde::Deserialize;
use serde_json::json;

use super::order::Order;
use checker::{Heard, History};
use stampede_client::http::{Call, Connection, Lost, Reply};

/// How long one request may wait at the server.
const WAIT_SECONDS: u64 = 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(WAIT_SECONDS + 5);
/// Longer than any restart: who has no answer by then is unresolved.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// Any code of a coupon.
    Claim {
        /// The coupon.
        coupon: &'a str,
    },
    /// The code, kept for the checkout of this order.
    Lock {
        /// The user's own.
        code: &'a str,
        /// Only this one can redeem the code while it is locked.
        order: &'a Order,
    },
    /// The code, used with this order.
    Redeem {
        /// The user's own.
        code: &'a str,
        /// What it pays for.
        order: &'a Order,
    },
}

impl Wish<'_> {
    /// The word of `kind`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Claim { .. } => kinds::CLAIM,
            Self::Lock { .. } => kinds::LOCK,
            Self::Redeem { .. } => kinds::REDEEM,
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Claim { coupon } => format!("/v1/coupons/{coupon}/claims?wait={WAIT_SECONDS}"),
            Self::Lock { code, .. } => format!("/v1/codes/{code}/lock?wait={WAIT_SECONDS}"),
            Self::Redeem { code, .. } => format!("/v1/codes/{code}/redemptions?wait={WAIT_SECONDS}"),
        }
    }

    fn body(&self) -> Bytes {
        match self {
            Self::Claim { .. } => Bytes::from_static(b"{}"),
            Self::Lock { order, .. } => json!({"order_id": order.id}).to_string().into(),
            Self::Redeem { order: Order { id, amount, currency }, .. } => {
                json!({"order_id": id, "order_amount": amount, "currency": currency}).to_string().into()
            }
        }
    }
}

/// Who asks, and where what is heard is kept.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The user: the token's subject.
    pub name: &'a str,
    /// Its token.
    pub token: &'a str,
    /// The coupon that all of it is about.
    pub coupon: &'a str,
    /// What was sent and heard.
    pub history: &'a History,
}

/// What a redemption comes to, as it is told and as it is stored: exact decimals.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Paid {
    /// The order.
    pub order_id: String,
    /// What it came to before.
    pub order_amount: String,
    /// What the code took off.
    pub discount: String,
    /// What was left to pay.
    pub final_price: String,
    /// ISO 4217.
    pub currency: String,
}

/// What a user was told in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was granted.
    Accepted {
        /// The request.
        request: RequestId,
        /// The code.
        code: String,
        /// What the order comes to, if the code was redeemed.
        paid: Option<Box<Paid>>,
    },
    /// It was decided, and refused.
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
    /// Whether it is this rejection.
    #[must_use]
    pub fn is_rejected_as(&self, word: Reason) -> bool {
        matches!(self, Self::Rejected { reason, .. } if reason == word.as_str())
    }

    /// Whether the user was told that nothing is left.
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        *self == Self::Gate || self.is_rejected_as(Reason::SoldOut)
    }
}

/// One thing that was asked for, and its answer.
#[derive(Clone, Debug)]
pub struct Step {
    /// The word of `kind`.
    pub kind: &'static str,
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
    redemption: Option<Box<Paid>>,
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

/// Asks for `wish` under `key` until there is an answer; every exchange goes into the history.
pub async fn pursue(connection: &mut Connection, asker: Asker<'_>, wish: Wish<'_>, key: &str) -> Step {
    let Asker { name, token, coupon, history } = asker;
    let begun = Instant::now();
    let (path, body) = (wish.path(), wish.body());
    let mut pending: Option<String> = None;
    let asked = history.sent(name, coupon, Some(key));
    let mut pause = FIRST_PAUSE;
    let mut retries = 0;
    let answer = loop {
        if begun.elapsed() >= PATIENCE {
            break Answer::None { accepted: pending.is_some() };
        }
        let looking = pending.as_ref().map(|id| format!("/v1/requests/{id}?wait={WAIT_SECONDS}"));
        let call = match &looking {
            Some(path) => Call { method: Method::GET, path, token, key: None, body: None },
            None => {
                Call { method: Method::POST, path: &path, token, key: Some(key), body: Some(body.clone()) }
            }
        };
        let reply = connection.send(&call, ANSWER_WITHIN).await;
        history.heard(asked, heard(&reply));
        match next(&reply, looking.is_some()) {
            Next::Done(answer) => break answer,
            Next::Ask(id) => pending = Some(id),
            Next::Again(after) => {
                retries += 1;
                tokio::time::sleep(jittered(after.unwrap_or(pause))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    };
    Step { kind: wish.kind(), answer, took: begun.elapsed(), retries }
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
        ("accepted", Some(code), _) => {
            Some(Next::Done(Answer::Accepted { request, code, paid: view.redemption }))
        }
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
        let accepted = Answer::Accepted { request: ID, code: "X".to_owned(), paid: None };
        assert_eq!(next(&reply(200, &won), true), Next::Done(accepted));
        let rejected = format!(r#"{{"request_id": "{ID}.abc", "status": "rejected", "reason": "sold_out"}}"#);
        let Next::Done(answer) = next(&reply(200, &rejected), false) else { unreachable!("it is final") };
        assert!(answer.is_sold_out());
        let pending = format!(r#"{{"request_id": "{ID}.abc", "status": "pending"}}"#);
        assert_eq!(next(&reply(202, &pending), false), Next::Ask(format!("{ID}.abc")));
    }

    #[test]
    fn a_redemption_is_told_with_its_money() {
        let redeemed = format!(
            r#"{{"request_id": "{ID}", "status": "accepted", "code": "X", "reason": null, "redemption": {{
                "redemption_id": "{ID}", "code": "X", "order_id": "o", "order_amount": "10.00",
                "discount": "2.00", "final_price": "8.00", "currency": "EUR", "redeemed_at": "…"}}}}"#
        );
        let Next::Done(Answer::Accepted { paid: Some(paid), .. }) = next(&reply(200, &redeemed), false)
        else {
            unreachable!("it says what was paid")
        };
        assert_eq!((&*paid.discount, &*paid.final_price, &*paid.currency), ("2.00", "8.00", "EUR"));
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
