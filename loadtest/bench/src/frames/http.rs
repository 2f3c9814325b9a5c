//! The frame of the arms that send HTTP requests as clients do: an `ingest-api` of their own, requests of users with a
//! token each, responses by status.
//!
//! The caller's CPU is reported beside that of the programs: it is part of what a request costs on this machine, and shows
//! whether the generator was the bottleneck.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use local_stack::Child;

use crate::BenchError;
use crate::arm::{Arm, Sample};
use crate::host::cpu;
use crate::host::environment::{Environment, used};
use crate::load::backlog::user_name;
use crate::load::http_load::{Load, Pace, Responses, run};
use crate::load::worker_run::{SETTLE_WITHIN, blocking, stocked};
use load_support::tokens::Tokens;

/// Connections of the arms that measure the highest rate.
pub const CONNECTIONS: usize = 256;
/// Users with a token of their own, at most. When all have sent a request, the first sends again.
const USERS: u64 = 200_000;
/// Fewer requests give no meaningful figure.
const LEAST: u64 = 500;
/// Bound on a measurement.
const LIMIT: Duration = Duration::from_secs(120);
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// An arm: HTTP requests to an API.
pub struct HttpArm {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does and guarantees, in one line.
    pub about: &'static str,
    /// It takes one in so many of the claims: a response costs more than a record in a backlog.
    pub share: u64,
    /// Measures about this many requests.
    pub measure: for<'a> fn(&'a mut Environment, u64) -> Measuring<'a>,
}

/// A measurement in progress.
pub type Measuring<'a> = LocalBoxFuture<'a, Result<Sample, BenchError>>;

impl Arm for HttpArm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn requests(&self, claims: u64) -> u64 {
        (claims / self.share).max(LEAST).min(claims)
    }

    fn run<'a>(&'a self, env: &'a mut Environment, requests: u64) -> Measuring<'a> {
        (self.measure)(env, requests)
    }
}

/// An `ingest-api`, and a coupon that users claim through it.
pub struct ApiUnderTest {
    child: Child,
    address: SocketAddr,
    users: Arc<Vec<Box<[u8]>>>,
    /// Users that have sent a claim.
    sent: u64,
}

impl ApiUnderTest {
    /// Creates a coupon with `codes` codes and starts an API with these environment variables. A worker runs.
    ///
    /// # Errors
    /// When a server does not start, or the coupon cannot be created.
    pub async fn open(
        env: &mut Environment,
        codes: u64,
        wait: bool,
        environment: &[(&str, u64)],
    ) -> Result<Self, BenchError> {
        let coupon = env.name();
        stocked(env, vec![coupon.clone()], codes).await?;
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.to_string()));
        let child = env.stack.spawn_api(environment.collect()).await?;
        env.stack.wait_healthy(child).await?;
        let address = address_of(env, child)?;
        let users = Arc::new(claims(env.stack.jwt_secret(), &coupon, wait, codes)?);
        Ok(Self { child, address, users, sent: 0 })
    }

    /// Sends claims of `count` users that have not sent one yet.
    ///
    /// # Errors
    /// When the API cannot be reached.
    pub async fn send(
        &mut self,
        connections: usize,
        pace: Pace,
        count: u64,
    ) -> Result<Responses, BenchError> {
        let (address, users, first) = (self.address, Arc::clone(&self.users), self.sent);
        self.sent += count;
        let send = move || {
            let load = Load { address, connections, pace, requests: &users, first, count, limit: LIMIT };
            Ok(run(&load)?)
        };
        blocking(send).await
    }

    /// The same, with the CPU time by program.
    ///
    /// # Errors
    /// The same.
    pub async fn send_and_measure(
        &mut self,
        env: &mut Environment,
        connections: usize,
        pace: Pace,
        count: u64,
    ) -> Result<(Responses, Used), BenchError> {
        env.quiesce().await?;
        let before = cpu(env);
        let responses = self.send(connections, pace, count).await?;
        Ok((responses, used(&before, &cpu(env))))
    }

    /// Waits until every accepted request is decided, stops the API, and runs the checker. A worker must run.
    ///
    /// # Errors
    /// A violation voids the figure.
    pub async fn close(self, env: &mut Environment) -> Result<(), BenchError> {
        env.settle(SETTLE_WITHIN).await?;
        env.stack.stop_child(self.child).await?;
        env.check().await
    }
}

/// CPU time by program.
pub type Used = Vec<(&'static str, Duration)>;

fn cpu(env: &Environment) -> Used {
    let mut cpu = env.cpu();
    cpu.push(("caller", cpu::of_this_process()));
    cpu
}

fn address_of(env: &Environment, child: Child) -> Result<SocketAddr, BenchError> {
    let endpoints = env.stack.endpoints();
    let Child::Api(at) = child else { return Err(BenchError::Lost) };
    let address = endpoints.apis.get(at).and_then(|url| url.strip_prefix("http://"));
    address.and_then(|address| address.parse().ok()).ok_or(BenchError::Lost)
}

/// Serialised claims of any code, one of each user.
///
/// # Errors
/// When a token cannot be signed.
pub fn claims(jwt_secret: &str, coupon: &str, wait: bool, users: u64) -> Result<Vec<Box<[u8]>>, BenchError> {
    let tokens = Tokens::new(jwt_secret, TOKEN_LIFETIME);
    let wait = if wait { "?wait=30" } else { "" };
    let claim = |n| {
        let token = tokens.issue(&user_name(n), "user")?;
        let request = format!(
            "POST /v1/coupons/{coupon}/claims{wait} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        Ok(request.into_bytes().into_boxed_slice())
    };
    (0..users.clamp(LEAST, USERS)).map(claim).collect()
}

/// Succeeds if every request has a response with one of these statuses.
///
/// # Errors
/// [`BenchError::Responses`], with the counts by status.
pub fn only(responses: &Responses, fine: &[u16]) -> Result<(), BenchError> {
    if responses.without_response == 0 && responses.counts.keys().all(|status| fine.contains(status)) {
        return Ok(());
    }
    let mut found: Vec<String> =
        responses.counts.iter().map(|(status, count)| format!("{count} × {status}")).collect();
    found.push(format!("{} without a response", responses.without_response));
    Err(BenchError::Responses { found: found.join(", ") })
}

/// The sample of the responses with this status.
#[must_use]
pub fn sample(responses: &Responses, status: u16, cpu: Used) -> Sample {
    Sample {
        requests: responses.count(status),
        took: Some(responses.took),
        p50: Some(responses.percentile(status, 50)),
        p99: Some(responses.percentile(status, 99)),
        cpu,
        ..Sample::default()
    }
}
