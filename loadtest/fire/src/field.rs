//! The field of a run: the stack, the way to it, and what is remembered of what was said.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use local_stack::{Child, Endpoints, ProxiedLink, Stack, StackError};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::score::Score;
use super::shop::Shop;
use checker::History;
use load_support::tokens::Tokens;
use stampede_client::http::{Call, Connection, Lost, Reply};

const TOKENS_LIVE: Duration = Duration::from_secs(24 * 3600);
/// Longer than any `wait` that clients ask for.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Connections that are kept open to one API while nobody uses them.
const IDLE: usize = 512;

/// Why something could not be done to the stack. It was not injected then; nothing is said about Stampede.
pub type Trouble = Box<dyn Error + Send + Sync>;

/// A running stack, and everybody's way to it.
pub struct Field {
    /// The processes.
    pub stack: Arc<Stack>,
    /// Where they listen.
    pub endpoints: Endpoints,
    /// Partitions of the request topic.
    pub partitions: i32,
    /// What clients sent and heard.
    pub history: History,
    /// What is counted.
    pub score: Score,
    /// The coupons.
    pub shop: Shop,
    /// Signs access tokens.
    pub tokens: Tokens,
    doors: Vec<Door>,
    /// Which API an admin asks next.
    turn: AtomicUsize,
}

/// One API, and connections to it.
struct Door {
    base: String,
    idle: Mutex<Vec<Connection>>,
}

impl Field {
    /// Around a stack that runs.
    #[must_use]
    pub fn around(stack: Arc<Stack>, history: History) -> Self {
        let endpoints = stack.endpoints();
        let door = |base: &String| Door { base: base.clone(), idle: Mutex::default() };
        Self {
            tokens: Tokens::new(stack.jwt_secret(), TOKENS_LIVE),
            doors: endpoints.apis.iter().map(door).collect(),
            endpoints,
            partitions: i32::try_from(stack.partitions()).unwrap_or(i32::MAX),
            history,
            score: Score::default(),
            shop: Shop::default(),
            stack,
            turn: AtomicUsize::new(0),
        }
    }

    /// How many APIs there are.
    #[must_use]
    pub fn apis(&self) -> usize {
        self.doors.len()
    }

    /// All workers.
    #[must_use]
    pub fn workers(&self) -> Vec<Child> {
        let all = self.stack.children();
        all.into_iter().filter(|child| matches!(child, Child::Worker(_))).collect()
    }

    /// A connection to Postgres as superuser.
    ///
    /// # Errors
    /// What Postgres says.
    pub async fn postgres(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.endpoints.postgres_url).await
    }

    /// An access token; without a role that exists, or where it cannot be signed, one that no API takes.
    #[must_use]
    pub fn token(&self, user: &str, role: &str) -> String {
        self.tokens.issue(user, role).unwrap_or_default()
    }

    /// Sends one request to one of the APIs.
    ///
    /// # Errors
    /// [`Lost`]: no answer came.
    pub async fn send(&self, api: usize, call: &Call<'_>) -> Result<Reply, Lost> {
        let door = &self.doors[api % self.doors.len()];
        let idle = || door.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut connection = kept.unwrap_or_else(|| Connection::to(&door.base));
        let reply = connection.send(call, ANSWER_WITHIN).await;
        if reply.is_ok() {
            let mut idle = idle();
            if idle.len() < IDLE {
                idle.push(connection);
            }
        }
        reply
    }

    /// Asks as an admin, through one API after another, until this status is answered.
    ///
    /// # Errors
    /// What was answered last, if it never is.
    pub async fn as_admin(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wanted: u16,
    ) -> Result<Value, Trouble> {
        let token = self.token("admin", "admin");
        let mut last = String::new();
        for _ in 0..40 {
            let body = body.map(|body| Bytes::from(body.to_string()));
            let call = Call { method: method.clone(), path, token: &token, key: None, body };
            match self.send(self.turn.fetch_add(1, Ordering::Relaxed), &call).await {
                Ok(reply) if reply.status.as_u16() == wanted => {
                    return Ok(serde_json::from_slice(&reply.body)?);
                }
                Ok(reply) if !reply.may_be_repeated() => {
                    return Err(format!("{path}: {} {}", reply.status, text(&reply.body)).into());
                }
                Ok(reply) => last = format!("{} {}", reply.status, text(&reply.body)),
                Err(lost) => last = lost.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Err(format!("{path}: {last}").into())
    }

    /// Stops a program of ours in order, and starts it with this in its environment besides what all have. Whoever
    /// starts it the next time gives it what all have.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_once_with(&self, child: Child, extra: &[(&str, &str)]) -> Result<(), StackError> {
        self.stack.stop_child(child).await.ok();
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.stack.set_env(child, extra.collect())?;
        let started = self.stack.start_child(child).await;
        // At once: should it die, a supervisor must start it unharmed.
        self.stack.set_env(child, Vec::new())?;
        started
    }

    /// Starts children again that a fault has ended, all at once, and waits until they do their work.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn revive(&self, children: &[Child]) -> Result<(), StackError> {
        let all = children.iter().map(|child| self.stack.restart(*child));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// The same, without waiting for it; whoever watches the stack tries again where it fails.
    pub fn revive_meanwhile(&self, child: Child) {
        let stack = Arc::clone(&self.stack);
        tokio::spawn(async move { stack.restart(child).await });
    }

    /// Everything runs, and nothing is frozen.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn heal(&self) -> Result<(), StackError> {
        let children = self.stack.children();
        for child in &children {
            self.stack.resume(*child).ok();
        }
        for proxy in ProxiedLink::ALL.into_iter().filter_map(|line| self.stack.proxy(line)) {
            proxy.clear_faults();
        }
        self.revive(&children).await
    }
}

/// The beginning of an answer, for people.
pub(crate) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}
