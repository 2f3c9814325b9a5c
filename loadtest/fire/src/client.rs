//! One request of a client, pursued until its outcome is known.
//!
//! What may be repeated (503, 429, a lost connection) is repeated as the same request, on one API after another, if it
//! has an Idempotency-Key; without one an answer that never came is the end of it, for another try would be another
//! request. What was accepted is asked for until there is an outcome.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::dice::Dice;
use super::field::Field;
use checker::{Asked, Heard, Told};
use stampede_client::deed::Deed;
use stampede_client::http::{Call, Lost, Reply};

const FIRST_PAUSE: Duration = Duration::from_millis(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a client waits for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It takes the 202, and asks again and again, pausing this long.
    Poll(Duration),
    /// Its POST waits so many seconds, and so does every question after it.
    Wait(u32),
    /// It takes the 202; its questions wait.
    LongPoll(u32),
    /// It takes the 202, and does not ask until so much later.
    Later(Duration),
}

impl Way {
    /// Any way of somebody who wants to know soon.
    pub fn quick(dice: &mut Dice) -> Self {
        match dice.below(3) {
            0 => Self::Poll(Duration::from_millis(dice.between(20, 200))),
            1 => Self::Wait(2),
            _ => Self::LongPoll(3),
        }
    }

    /// Any way.
    pub fn any(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0 | 1 => Self::Poll(Duration::from_millis(dice.between(20, 300))),
            2..=5 => Self::Wait(2),
            6..=8 => Self::LongPoll(3),
            _ => Self::Later(Duration::from_millis(dice.between(500, 5_000))),
        }
    }

    const fn of_the_post(self) -> u32 {
        match self {
            Self::Wait(seconds) => seconds,
            _ => 0,
        }
    }

    const fn of_a_question(self) -> u32 {
        match self {
            Self::Wait(seconds) | Self::LongPoll(seconds) => seconds,
            _ => 0,
        }
    }

    /// How long after the 202 the first question comes.
    const fn at_first(self) -> Duration {
        match self {
            Self::Later(pause) | Self::Poll(pause) => pause,
            _ => Duration::ZERO,
        }
    }

    const fn between_questions(self) -> Duration {
        match self {
            Self::Poll(pause) => pause,
            Self::Later(_) => Duration::from_millis(200),
            _ => Duration::ZERO,
        }
    }
}

/// A final outcome.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The body that told it.
    pub body: Value,
}

impl Outcome {
    /// `accepted`, or the reason.
    #[must_use]
    pub fn word(&self) -> &str {
        self.body["reason"].as_str().or_else(|| self.body["status"].as_str()).unwrap_or_default()
    }

    /// Whether it was granted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.body["status"] == "accepted"
    }

    /// The code that it is about, where it was granted.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.body["code"].as_str()
    }

    /// The redemption, where there is one.
    #[must_use]
    pub fn redemption(&self) -> Option<&str> {
        self.body["redemption"]["redemption_id"].as_str()
    }
}

/// A request under way.
pub struct Pursuit<'f> {
    field: &'f Field,
    asked: Asked,
    token: String,
    key: Option<String>,
    method: Method,
    path: String,
    body: Option<Bytes>,
    way: Way,
    given: Option<String>,
    refusal: Option<&'static str>,
    counts: bool,
}

/// What one exchange came to.
enum Exchange {
    Final(Outcome),
    Pending,
    /// Not now: overload, an outage, no answer.
    NotNow(Option<Duration>),
    /// There will be no outcome: the gate's answer, or a refusal that the interface has not.
    Never,
}

impl<'f> Pursuit<'f> {
    /// A request that is about to be sent.
    #[must_use]
    pub fn of(field: &'f Field, user: &str, deed: Deed<'_>, key: Option<String>, way: Way) -> Self {
        let (method, path, body) = deed.request();
        Self {
            asked: field.history.sent(user, deed.target(), key.as_deref()),
            token: field.token(user, deed.role()),
            body: body.map(|body| Bytes::from(body.to_string())),
            field,
            key,
            method,
            path,
            way,
            given: None,
            refusal: None,
            counts: false,
        }
    }

    /// Its outcome counts as one of the load.
    #[must_use]
    pub fn of_the_load(self) -> Self {
        Self { counts: true, ..self }
    }

    /// This problem may be the answer, and is the end of it.
    #[must_use]
    pub fn may_be_refused_as(self, code: &'static str) -> Self {
        Self { refusal: Some(code), ..self }
    }

    /// The same request once more, as a client does that sends it several times at once. It counts no second time.
    #[must_use]
    pub fn again(&self, way: Way) -> Self {
        Self {
            token: self.token.clone(),
            key: self.key.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            body: self.body.clone(),
            given: None,
            counts: false,
            way,
            ..*self
        }
    }

    /// Stays at it. `None`: there is no outcome, or nobody can tell (no key, and no answer).
    pub async fn to_the_end(&mut self, dice: &mut Dice) -> Option<Outcome> {
        let mut api = dice.below(self.field.apis());
        let mut pause = FIRST_PAUSE;
        loop {
            if self.field.score.has_given_up() {
                // What was accepted, the checker counts.
                if self.given.is_none() && self.key.is_some() {
                    self.field.score.leave_unanswered();
                }
                return None;
            }
            let asking = self.given.is_some();
            match self.once(api).await {
                Exchange::Final(outcome) => return Some(outcome),
                Exchange::Never => return None,
                Exchange::Pending => {
                    pause = FIRST_PAUSE;
                    let way = self.way;
                    sleep(if asking { way.between_questions() } else { way.at_first() }).await;
                }
                Exchange::NotNow(_) if self.key.is_none() && self.given.is_none() => return None,
                Exchange::NotNow(wanted) => {
                    // Sooner than it is told to: impatient clients are the rule.
                    sleep(wanted.map_or(pause, |wanted| wanted.min(pause))).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    api += 1;
                }
            }
        }
    }

    /// One request and its answer.
    async fn once(&mut self, api: usize) -> Exchange {
        let reply = match &self.given {
            None => self.post(api).await,
            Some(given) => self.question(api, given).await,
        };
        let heard = match &reply {
            Ok(reply) => Heard::Answer {
                status: reply.status.as_u16(),
                body: String::from_utf8_lossy(&reply.body).into_owned(),
            },
            Err(_) => Heard::Nothing,
        };
        self.field.history.heard(self.asked, heard);
        reply.map_or(Exchange::NotNow(None), |reply| self.understand(&reply))
    }

    async fn post(&self, api: usize) -> Result<Reply, Lost> {
        let wait = self.way.of_the_post();
        let path = if wait > 0 { format!("{}?wait={wait}", self.path) } else { self.path.clone() };
        let call = Call {
            method: self.method.clone(),
            path: &path,
            token: &self.token,
            key: self.key.as_deref(),
            body: self.body.clone(),
        };
        self.field.send(api, &call).await
    }

    async fn question(&self, api: usize, given: &str) -> Result<Reply, Lost> {
        let wait = self.way.of_a_question();
        let path = if wait > 0 {
            format!("/v1/requests/{given}?wait={wait}")
        } else {
            format!("/v1/requests/{given}")
        };
        let call = Call { method: Method::GET, path: &path, token: &self.token, key: None, body: None };
        self.field.send(api, &call).await
    }

    fn understand(&mut self, reply: &Reply) -> Exchange {
        let status = reply.status.as_u16();
        let body = String::from_utf8_lossy(&reply.body);
        let told = Told::of(status, &body);
        match told {
            told if told.is_final() => {
                if self.counts {
                    self.field.score.decide();
                }
                Exchange::Final(Outcome { body: serde_json::from_str(&body).unwrap_or_default() })
            }
            Told::Pending => {
                if self.given.is_none() {
                    let shown: Value = serde_json::from_str(&body).unwrap_or_default();
                    self.given = shown["request_id"].as_str().map(str::to_owned);
                }
                Exchange::Pending
            }
            told if told.is_gate() && self.key.is_none() => Exchange::Never,
            Told::Problem { ref code, .. } if self.refusal == Some(&**code) => Exchange::Never,
            Told::Problem { status: 503 | 429 | 408, .. } => Exchange::NotNow(reply.retry_after),
            _ => {
                let asking = self.given.as_deref().unwrap_or("a new request");
                let what = format!(
                    "{} {} ({asking}) answered {status}: {}",
                    self.method,
                    self.path,
                    super::field::text(&reply.body)
                );
                self.field.score.complain(what);
                if status >= 500 { Exchange::NotNow(None) } else { Exchange::Never }
            }
        }
    }
}
