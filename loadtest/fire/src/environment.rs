//! The environment of a run: the stack, connections to it, and the history of what clients sent and received.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use local_stack::{Child, Endpoints, ProxiedLink, Stack, StackError};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::fixtures::Fixtures;
use super::stats::Stats;
use checker::History;
use load_support::tokens::Tokens;
use stampede_client::http::{Call, Connection, Lost, Reply};

const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Longer than any `wait` of the clients.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bound on idle connections to one API.
const MAX_IDLE: usize = 512;

/// Why a fault could not be injected. It is no finding about Stampede.
pub type FaultError = Box<dyn Error + Send + Sync>;

/// A running stack with connections to it.
pub struct Environment {
    /// The processes.
    pub stack: Arc<Stack>,
    /// Their addresses.
    pub endpoints: Endpoints,
    /// Partitions of the request topic.
    pub partitions: i32,
    /// What clients sent and received.
    pub history: History,
    /// The counters.
    pub stats: Stats,
    /// The coupons.
    pub fixtures: Fixtures,
    /// Signs access tokens.
    pub tokens: Tokens,
    apis: Vec<ApiConnections>,
    /// The API of the next admin request.
    next_api: AtomicUsize,
}

/// One API with idle connections to it.
struct ApiConnections {
    base: String,
    idle: Mutex<Vec<Connection>>,
}

impl Environment {
    /// An environment on a running stack.
    #[must_use]
    pub fn new(stack: Arc<Stack>, history: History) -> Self {
        let endpoints = stack.endpoints();
        let connections = |base: &String| ApiConnections { base: base.clone(), idle: Mutex::default() };
        Self {
            tokens: Tokens::new(stack.jwt_secret(), TOKEN_LIFETIME),
            apis: endpoints.apis.iter().map(connections).collect(),
            endpoints,
            partitions: i32::try_from(stack.partitions()).unwrap_or(i32::MAX),
            history,
            stats: Stats::default(),
            fixtures: Fixtures::default(),
            stack,
            next_api: AtomicUsize::new(0),
        }
    }

    /// The number of APIs.
    #[must_use]
    pub fn apis(&self) -> usize {
        self.apis.len()
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
    /// The error of Postgres.
    pub async fn postgres(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.endpoints.postgres_url).await
    }

    /// An access token; an invalid one if it cannot be signed.
    #[must_use]
    pub fn token(&self, user: &str, role: &str) -> String {
        self.tokens.issue(user, role).unwrap_or_default()
    }

    /// Sends one request to one of the APIs.
    ///
    /// # Errors
    /// [`Lost`]: no response.
    pub async fn send(&self, api: usize, call: &Call<'_>) -> Result<Reply, Lost> {
        let connections = &self.apis[api % self.apis.len()];
        let idle = || connections.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut connection = kept.unwrap_or_else(|| Connection::to(&connections.base));
        let reply = connection.send(call, RESPONSE_TIMEOUT).await;
        if reply.is_ok() {
            let mut idle = idle();
            if idle.len() < MAX_IDLE {
                idle.push(connection);
            }
        }
        reply
    }

    /// Sends a request as admin, to one API after another, until the response has the status `wanted`.
    ///
    /// # Errors
    /// The last response, if none has.
    pub async fn as_admin(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wanted: u16,
    ) -> Result<Value, FaultError> {
        let token = self.token("admin", "admin");
        let mut last = String::new();
        for _ in 0..40 {
            let body = body.map(|body| Bytes::from(body.to_string()));
            let call = Call { method: method.clone(), path, token: &token, key: None, body };
            match self.send(self.next_api.fetch_add(1, Ordering::Relaxed), &call).await {
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

    /// Stops a program gracefully and starts it once with additional environment variables; later starts are without.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_once_with(&self, child: Child, extra: &[(&str, &str)]) -> Result<(), StackError> {
        self.stack.stop_child(child).await.ok();
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.stack.set_env(child, extra.collect())?;
        let started = self.stack.start_child(child).await;
        // Immediately: if it dies, the supervisor must start it without them.
        self.stack.set_env(child, Vec::new())?;
        started
    }

    /// Restarts children that a fault has ended, concurrently, and waits until they are healthy.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn restart_children(&self, children: &[Child]) -> Result<(), StackError> {
        let all = children.iter().map(|child| self.stack.restart(*child));
        futures::future::try_join_all(all).await.map(drop)
    }

    /// Restarts a child without waiting for it; the supervisor of the stack retries.
    pub fn restart_in_background(&self, child: Child) {
        let stack = Arc::clone(&self.stack);
        tokio::spawn(async move { stack.restart(child).await });
    }

    /// Makes everything run: nothing is frozen, and no link has a fault.
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
        self.restart_children(&children).await
    }
}

/// The beginning of a response body, for messages.
pub(crate) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}
