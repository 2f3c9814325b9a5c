//! The client: servers, connections, token and defaults.

pub(crate) mod exchange;
mod request;

pub use request::{Polling, RequestBuilder};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::model::Outcome;
use crate::operation::{Operation, Order};
use crate::retry::RetryPolicy;
use crate::transport::{HttpRequest, HttpResponse, Server, TransportError};

const MAX_IDLE_CONNECTIONS: usize = 512;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one Stampede, on one or more API instances. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    servers: Arc<Servers>,
    pub(crate) token: Option<Arc<str>>,
    pub(crate) policy: RetryPolicy,
    pub(crate) polling: Polling,
    pub(crate) response_timeout: Duration,
}

#[derive(Debug)]
struct Servers {
    all: Vec<Server>,
    next: AtomicUsize,
}

/// Makes a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    base_urls: Vec<String>,
    token: Option<Arc<str>>,
    policy: RetryPolicy,
    polling: Polling,
    response_timeout: Duration,
    max_idle: usize,
}

impl Client {
    /// A client of the API at `base_url` (`http://host:port`), with a bearer token and the default settings.
    #[must_use]
    pub fn new(base_url: &str, token: &str) -> Self {
        Self::builder(base_url).token(token).build()
    }

    /// A client with settings of its own.
    #[must_use]
    pub fn builder(base_url: &str) -> ClientBuilder {
        ClientBuilder {
            base_urls: vec![base_url.to_owned()],
            token: None,
            policy: RetryPolicy::default(),
            polling: Polling::default(),
            response_timeout: RESPONSE_TIMEOUT,
            max_idle: MAX_IDLE_CONNECTIONS,
        }
    }

    /// The same client with the token of another caller.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The same client with other retry rules.
    #[must_use]
    pub fn with_policy(&self, policy: RetryPolicy) -> Self {
        Self { policy, ..self.clone() }
    }

    /// Prepares a request. Nothing is sent before one of the builder's last methods is called.
    pub fn request<'a>(&'a self, operation: Operation<'a>) -> RequestBuilder<'a> {
        RequestBuilder::new(self, operation)
    }

    /// Claims any available code of a coupon and waits for the outcome.
    ///
    /// # Errors
    /// [`Error`], as for all of these methods: [`RequestBuilder::send_and_wait`] lists when.
    pub async fn claim_and_wait(&self, coupon_id: &str) -> Result<Outcome, Error> {
        self.request(Operation::claim(coupon_id)).send_and_wait().await
    }

    /// Claims one named code of a coupon and waits for the outcome.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn claim_code_and_wait(&self, coupon_id: &str, code: &str) -> Result<Outcome, Error> {
        self.request(Operation::claim_code(coupon_id, code)).send_and_wait().await
    }

    /// Locks a claimed code for a checkout and waits for the outcome. With an order, only that order can redeem it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lock_and_wait(&self, code: &str, order_id: Option<&str>) -> Result<Outcome, Error> {
        self.request(Operation::Lock { code, order_id }).send_and_wait().await
    }

    /// Releases a lock and waits for the outcome.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unlock_and_wait(&self, code: &str) -> Result<Outcome, Error> {
        self.request(Operation::unlock(code)).send_and_wait().await
    }

    /// Returns a claimed code to stock and waits for the outcome.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn return_and_wait(&self, code: &str) -> Result<Outcome, Error> {
        self.request(Operation::return_code(code)).send_and_wait().await
    }

    /// Redeems a code with an order and waits for the outcome.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn redeem_and_wait(&self, code: &str, order: Order<'_>) -> Result<Outcome, Error> {
        self.request(Operation::redeem(code, order)).send_and_wait().await
    }

    /// Rolls a redemption back and waits for the outcome. Requires the role `service` or `admin`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn roll_back_and_wait(&self, redemption_id: &str) -> Result<Outcome, Error> {
        self.request(Operation::roll_back(redemption_id)).send_and_wait().await
    }

    /// Revokes a code and waits for the outcome. Requires the role `admin`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke_and_wait(&self, code: &str) -> Result<Outcome, Error> {
        self.request(Operation::revoke(code)).send_and_wait().await
    }

    /// Sends one HTTP request as it is, once, to one of the servers (counted from 0, round), and returns the response as
    /// it is. For tests of the API and for routes that this client does not define. The token of the client is not added.
    ///
    /// # Errors
    /// [`TransportError`] when there is no response within `limit`.
    pub async fn send(
        &self,
        server: usize,
        request: &HttpRequest<'_>,
        limit: Duration,
    ) -> Result<HttpResponse, TransportError> {
        self.server(server).send(request, limit, true).await
    }

    pub(crate) fn server(&self, n: usize) -> &Server {
        &self.servers.all[n % self.servers.all.len()]
    }

    /// The server that a call starts with: each in turn.
    pub(crate) fn next_server(&self) -> usize {
        self.servers.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl ClientBuilder {
    /// A further API instance. Calls start with each in turn, and go to the next one after a failure.
    #[must_use]
    pub fn server(mut self, base_url: &str) -> Self {
        self.base_urls.push(base_url.to_owned());
        self
    }

    /// The caller's bearer token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// How calls are repeated.
    #[must_use]
    pub fn policy(self, policy: RetryPolicy) -> Self {
        Self { policy, ..self }
    }

    /// How calls wait for an outcome.
    #[must_use]
    pub fn polling(self, polling: Polling) -> Self {
        Self { polling, ..self }
    }

    /// How long a response may take, in addition to the time that the request lets the server wait. Default 10 s.
    #[must_use]
    pub fn response_timeout(self, response_timeout: Duration) -> Self {
        Self { response_timeout, ..self }
    }

    /// How many idle connections to each server are kept. Default 512.
    #[must_use]
    pub fn max_idle_connections(self, max_idle: usize) -> Self {
        Self { max_idle, ..self }
    }

    /// The client. Opens no connection yet.
    #[must_use]
    pub fn build(self) -> Client {
        let Self { base_urls, token, policy, polling, response_timeout, max_idle } = self;
        let all = base_urls.into_iter().map(|base_url| Server::new(base_url, max_idle)).collect();
        let servers = Arc::new(Servers { all, next: AtomicUsize::new(0) });
        Client { servers, token, policy, polling, response_timeout }
    }
}
