//! What is done to a code: requests through the API, whose outcomes are read wherever they can be read, and where the
//! code stands afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use checker::{Asked, Heard, Told};
use serde_json::{Value, json};
pub(crate) use stampede_client::deed::{AMOUNT, CURRENCY, Deed};
use tokio::time::{Instant, sleep};

use super::field::SETTLES_WITHIN;
use super::{Field, Reply};

/// Who rolls redemptions back.
pub(crate) const SHOP: &str = "shop";
/// Who withdraws codes.
pub(crate) const ADMIN: &str = "admin";

/// A deed of a user, as a client asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act<'a> {
    pub(crate) user: &'a str,
    pub(crate) deed: Deed<'a>,
    pub(crate) key: Option<&'a str>,
    pub(crate) api: usize,
    pub(crate) wait: u32,
}

impl<'a> Act<'a> {
    pub(crate) const fn of(user: &'a str, deed: Deed<'a>) -> Self {
        Self { user, deed, key: None, api: 0, wait: 10 }
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
    fn token_for(&self, act: &Act<'_>) -> String {
        self.tokens.issue(act.user, act.deed.role()).unwrap()
    }

    /// Sends a request once, and remembers what came back.
    pub(crate) async fn act_once(&self, asked: Asked, act: Act<'_>) -> Option<Reply> {
        let (method, path, body) = act.deed.request();
        let url = self.url(act.api, &format!("{path}?wait={}", act.wait));
        let mut request = self.http.request(method, url).bearer_auth(self.token_for(&act));
        if let Some(body) = &body {
            request = request.json(body);
        }
        if let Some(key) = act.key {
            request = request.header("idempotency-key", key);
        }
        self.listen(asked, request).await
    }

    async fn listen(&self, asked: Asked, request: reqwest::RequestBuilder) -> Option<Reply> {
        let reply = self.send(request).await;
        let heard = reply
            .as_ref()
            .map_or(Heard::Nothing, |reply| Heard::Answer { status: reply.status, body: reply.body.clone() });
        self.history.heard(asked, heard);
        reply
    }

    /// Sends a request once, on a stack that nobody hurts.
    pub(crate) async fn act(&self, act: Act<'_>) -> Reply {
        let asked = self.history.sent(act.user, act.deed.target(), act.key);
        self.act_once(asked, act).await.unwrap()
    }

    /// Asks and stays at it, with a key of its own, until the outcome is known.
    pub(crate) async fn see_through(&self, act: Act<'_>) -> Value {
        static KEYS: AtomicU32 = AtomicU32::new(0);
        let own = format!("through {}", KEYS.fetch_add(1, Ordering::Relaxed));
        let act = Act { key: Some(act.key.unwrap_or(&own)), ..act };
        let asked = self.history.sent(act.user, act.deed.target(), act.key);
        let (until, instances) = (Instant::now() + SETTLES_WITHIN, self.stack.endpoints().apis.len());
        for attempt in 0.. {
            let api = (act.api + attempt) % instances;
            let reply = self.act_once(asked, Act { api, ..act }).await;
            match reply.as_ref().map(Reply::told) {
                Some(told) if told.is_final() => return reply.map(|reply| reply.json()).unwrap_or_default(),
                None | Some(Told::Pending | Told::Nothing | Told::Problem { status: 503, .. }) => {}
                Some(told) => panic!("{act:?} was told {told:?}"),
            }
            assert!(Instant::now() < until, "{act:?} has no outcome");
            if reply.is_none_or(|reply| reply.status != 202) {
                sleep(Duration::from_millis(50)).await;
            }
        }
        Value::Null
    }

    /// The outcome of a request that was accepted as such, however long it takes.
    pub(crate) async fn outcome_of(&self, reply: &Reply, act: Act<'_>) -> Value {
        let id = reply.json()["request_id"].as_str().unwrap().to_owned();
        let until = Instant::now() + SETTLES_WITHIN;
        let token = self.token_for(&act);
        loop {
            let shown = self
                .send(self.http.get(self.url(0, &format!("/v1/requests/{id}?wait=5"))).bearer_auth(&token));
            if let Some(shown) = shown.await
                && shown.told().is_final()
            {
                return shown.json();
            }
            assert!(Instant::now() < until, "{act:?} has no outcome");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What was answered is shown by every instance, and stands among the user's requests.
    async fn expect_shown(&self, act: &Act<'_>, outcome: &Value) {
        let (token, id) = (self.token_for(act), outcome["request_id"].as_str().unwrap());
        for api in [0, 1] {
            let shown = self.get(api, &format!("/v1/requests/{id}"), &token).await.json();
            assert_eq!(shown, *outcome, "as instance {api} shows it");
        }
        let listed = self.get(0, "/v1/users/me/requests?limit=100", &token).await.json();
        let identity = |id: &Value| id.as_str().unwrap_or_default().split('.').next().map(str::to_owned);
        let items = listed["items"].as_array().unwrap_or_else(|| panic!("{listed}"));
        let own = items.iter().find(|item| identity(&item["request_id"]) == identity(&outcome["request_id"]));
        let own = own.cloned();
        let mut own = own.unwrap_or_else(|| panic!("{outcome} is not among {listed}"));
        own["request_id"] = outcome["request_id"].clone();
        assert_eq!(own, *outcome, "as the user's requests show it");
    }

    /// Asks, and expects an accepted outcome, which is shown everywhere.
    pub(crate) async fn accepted(&self, user: &str, deed: Deed<'_>) -> Value {
        let act = Act::of(user, deed);
        let reply = self.act(act).await;
        let outcome = reply.json();
        assert_eq!((reply.status, &outcome["status"]), (200, &json!("accepted")), "{act:?}: {}", reply.body);
        assert_eq!((&outcome["kind"], &outcome["reason"]), (&json!(deed.kind()), &Value::Null), "{outcome}");
        self.expect_shown(&act, &outcome).await;
        outcome
    }

    /// Asks, and expects a rejected outcome, which is shown everywhere; answers the reason.
    pub(crate) async fn rejected(&self, user: &str, deed: Deed<'_>) -> String {
        let act = Act::of(user, deed);
        let reply = self.act(act).await;
        let outcome = reply.json();
        assert_eq!((reply.status, &outcome["status"]), (200, &json!("rejected")), "{act:?}: {}", reply.body);
        assert_eq!((&outcome["kind"], &outcome["code"]), (&json!(deed.kind()), &Value::Null), "{outcome}");
        assert_eq!((&outcome["claim"], &outcome["redemption"]), (&Value::Null, &Value::Null), "{outcome}");
        self.expect_shown(&act, &outcome).await;
        outcome["reason"].as_str().unwrap().to_owned()
    }
}

/// How an outcome reads in one word: `accepted`, or the reason.
pub(crate) fn word(outcome: &Value) -> &str {
    outcome["reason"].as_str().or_else(|| outcome["status"].as_str()).unwrap_or_default()
}

/// How many of these outcomes read like that.
pub(crate) fn count(outcomes: &[Value], wanted: &str) -> usize {
    outcomes.iter().filter(|outcome| word(outcome) == wanted).count()
}

/// The same order placed by one user after another is another order.
pub(crate) fn order(n: impl std::fmt::Display) -> String {
    format!("order-{n}")
}
