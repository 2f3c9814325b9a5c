//! One client: raw requests, and claims that are pursued until their outcome is known.

use std::time::Duration;

use checker::{Asked, Heard, Told};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Field;
use super::field::SETTLES_WITHIN;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn told(&self) -> Told {
        Told::of(self.status, &self.body)
    }

    async fn of(response: Result<reqwest::Response, reqwest::Error>) -> Option<Self> {
        let response = response.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Self { status, headers, body: response.text().await.ok()? })
    }
}

/// A claim as a client makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) user: &'a str,
    pub(crate) coupon: &'a str,
    pub(crate) key: Option<&'a str>,
    /// Which instance it is sent to.
    pub(crate) api: usize,
    /// Seconds it waits for the outcome.
    pub(crate) wait: u32,
}

impl<'a> Ask<'a> {
    pub(crate) const fn of(user: &'a str, coupon: &'a str) -> Self {
        Self { user, coupon, key: None, api: 0, wait: 10 }
    }

    pub(crate) const fn key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }

    pub(crate) const fn at(self, api: usize) -> Self {
        Self { api, ..self }
    }

    pub(crate) const fn wait(self, wait: u32) -> Self {
        Self { wait, ..self }
    }
}

impl Field {
    pub(crate) fn url(&self, api: usize, path: &str) -> String {
        format!("{}{path}", self.stack.endpoints().apis[api])
    }

    /// One request; `None` where no answer came.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Option<Reply> {
        Reply::of(request.send().await).await
    }

    pub(crate) async fn get(&self, api: usize, path: &str, token: &str) -> Reply {
        self.send(self.http.get(self.url(api, path)).bearer_auth(token)).await.unwrap()
    }

    pub(crate) async fn post(&self, api: usize, path: &str, token: &str, body: &Value) -> Reply {
        self.send(self.http.post(self.url(api, path)).bearer_auth(token).json(body)).await.unwrap()
    }

    /// Sends a claim once, and remembers what came back.
    pub(crate) async fn claim_once(&self, asked: Asked, ask: Ask<'_>) -> Option<Reply> {
        let path = format!("/v1/coupons/{}/claims?wait={}", ask.coupon, ask.wait);
        let mut request =
            self.http.post(self.url(ask.api, &path)).bearer_auth(self.token(ask.user)).json(&json!({}));
        if let Some(key) = ask.key {
            request = request.header("idempotency-key", key);
        }
        self.hear(asked, request).await
    }

    async fn hear(&self, asked: Asked, request: reqwest::RequestBuilder) -> Option<Reply> {
        let reply = self.send(request).await;
        self.history.heard(
            asked,
            match &reply {
                Some(reply) => Heard::Answer { status: reply.status, body: reply.body.clone() },
                None => Heard::Nothing,
            },
        );
        reply
    }

    /// Sends a claim once, on a stack that nobody hurts; what it answers is what the API said.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Reply {
        let asked = self.history.sent(ask.user, ask.coupon, ask.key);
        self.claim_once(asked, ask).await.unwrap()
    }

    /// Claims and stays at it until the outcome is known: asks again with the same key after every answer that
    /// invites to, on one instance after another, and polls what was accepted. Without a key an answer that never
    /// came is the end of it: another try would be another request.
    pub(crate) async fn pursue(&self, ask: Ask<'_>) -> Told {
        let asked = self.history.sent(ask.user, ask.coupon, ask.key);
        let until = Instant::now() + SETTLES_WITHIN;
        let instances = self.stack.endpoints().apis.len();
        for attempt in 0.. {
            let told = match self.history.entry(asked).and_then(|entry| entry.given) {
                Some(given) => self.poll(asked, ask, &given, attempt).await,
                None => {
                    let ask = Ask { api: (ask.api + attempt) % instances, ..ask };
                    self.claim_once(asked, ask).await.map_or(Told::Nothing, |reply| reply.told())
                }
            };
            match told {
                told if told.is_final() || told.is_gate() => return told,
                Told::Nothing if ask.key.is_none() && self.unanswered(asked) => return Told::Nothing,
                Told::Pending | Told::Nothing | Told::Problem { status: 503, .. } => {}
                told => panic!("{ask:?} was told {told:?}"),
            }
            assert!(Instant::now() < until, "{ask:?} has no outcome");
            if !matches!(told, Told::Pending) {
                sleep(Duration::from_millis(50)).await;
            }
        }
        Told::Nothing
    }

    /// Whether nothing is known that could be polled.
    fn unanswered(&self, asked: Asked) -> bool {
        self.history.entry(asked).is_none_or(|entry| entry.given.is_none())
    }

    async fn poll(&self, asked: Asked, ask: Ask<'_>, given: &str, attempt: usize) -> Told {
        let api = (ask.api + attempt) % self.stack.endpoints().apis.len();
        let path = format!("/v1/requests/{given}?wait={}", ask.wait);
        let request = self.http.get(self.url(api, &path)).bearer_auth(self.token(ask.user));
        self.hear(asked, request).await.map_or(Told::Nothing, |reply| reply.told())
    }
}
