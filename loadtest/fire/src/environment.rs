//! The environment of a run: the stack, connections to it, and the history of what clients sent and received.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use local_stack::{Child, Endpoints, ProxiedLink, Stack, StackError};
use sqlx::{Connection as _, PgConnection};

use super::fixtures::Fixtures;
use super::stats::Stats;
use checker::History;
use load_support::tokens::Tokens;
use stampede_client::{Client, RetryPolicy};

const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Longer than any `wait` of the clients.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bound on one request of an administrator, with its retries.
const ADMIN_DEADLINE: Duration = Duration::from_secs(10);

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
    /// The client of the APIs that all users share, without a token.
    pub client: Client,
}

/// A client that repeats until it has an outcome, and sooner than `Retry-After`: real clients often ignore it.
fn client(endpoints: &Endpoints) -> Client {
    let policy = RetryPolicy {
        deadline: Duration::MAX,
        first_pause: Duration::from_millis(30),
        max_pause: Duration::from_secs(1),
        max_retry_after: Duration::ZERO,
    };
    let first = Client::builder(&endpoints.apis[0]).policy(policy).response_timeout(RESPONSE_TIMEOUT);
    endpoints.apis[1..].iter().fold(first, |client, api| client.server(api)).build()
}

impl Environment {
    /// An environment on a running stack.
    #[must_use]
    pub fn new(stack: Arc<Stack>, history: History) -> Self {
        let endpoints = stack.endpoints();
        Self {
            tokens: Tokens::new(stack.jwt_secret(), TOKEN_LIFETIME),
            client: client(&endpoints),
            endpoints,
            partitions: i32::try_from(stack.partitions()).unwrap_or(i32::MAX),
            history,
            stats: Stats::default(),
            fixtures: Fixtures::default(),
            stack,
        }
    }

    /// The number of APIs.
    #[must_use]
    pub fn apis(&self) -> usize {
        self.endpoints.apis.len()
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

    /// The client of an administrator.
    #[must_use]
    pub fn admin(&self) -> Client {
        let policy = RetryPolicy { deadline: ADMIN_DEADLINE, ..RetryPolicy::default() };
        self.client.with_token(&self.token("admin", "admin")).with_policy(policy)
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
    /// When a server or a program does not start.
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
