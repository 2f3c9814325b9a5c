//! The frame of the arms that ask over HTTP, as clients do: an `ingest-api` of their own, requests of users who each
//! have a token of their own, answers by status.
//!
//! The caller's CPU is reported beside that of the programs: it is part of what a request costs on this machine, and
//! says whether the generator was in the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use local_stack::Child;

use super::arm::{Arm, Sample, rank};
use super::backlog::user_name;
use super::drain::{SETTLE_WITHIN, blocking, stocked};
use super::ground::{Ground, used};
use super::http_load::{Answers, Load, Pace, run};
use super::{BenchError, cpu};
use load_support::tokens::Tokens;

/// Connections, where as many requests as possible are to be under way.
pub const CONNECTIONS: usize = 256;
/// Users with a token of their own, at most; they come again when all have come.
const USERS: u64 = 200_000;
/// Fewer requests say nothing.
const LEAST: u64 = 500;
/// No measurement takes longer.
const LIMIT: Duration = Duration::from_secs(120);
const TOKENS_LIVE: Duration = Duration::from_secs(24 * 3600);

/// An arm: what is asked of an API.
pub struct Front {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does and what it guarantees, in a line.
    pub about: &'static str,
    /// It takes one of so many of the claims: an answer costs more than a record in a backlog.
    pub share: u64,
    /// Measures; so many requests, more or less.
    pub measure: for<'a> fn(&'a mut Ground, u64) -> Measuring<'a>,
}

/// A measurement under way.
pub type Measuring<'a> = LocalBoxFuture<'a, Result<Sample, BenchError>>;

impl Arm for Front {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn requests(&self, claims: u64) -> u64 {
        (claims / self.share).max(LEAST).min(claims)
    }

    fn run<'a>(&'a self, ground: &'a mut Ground, requests: u64) -> Measuring<'a> {
        (self.measure)(ground, requests)
    }
}

/// An `ingest-api`, and a coupon that users claim through it.
pub struct Door {
    child: Child,
    address: SocketAddr,
    users: Arc<Vec<Box<[u8]>>>,
    /// Users who have come.
    come: u64,
}

impl Door {
    /// A coupon with so many codes, a user for each, and an API with this in its environment. A worker runs.
    ///
    /// # Errors
    /// When something does not come to pass.
    pub async fn open(
        ground: &mut Ground,
        codes: u64,
        wait: bool,
        environment: &[(&str, u64)],
    ) -> Result<Self, BenchError> {
        let coupon = ground.name();
        stocked(ground, vec![coupon.clone()], codes).await?;
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.to_string()));
        let child = ground.stack.spawn_api(environment.collect()).await?;
        ground.stack.wait_healthy(child).await?;
        let address = address_of(ground, child)?;
        let users = Arc::new(claims(ground.stack.jwt_secret(), &coupon, wait, codes)?);
        Ok(Self { child, address, users, come: 0 })
    }

    /// Sends claims of so many users who have not come yet.
    ///
    /// # Errors
    /// When the API cannot be reached.
    pub async fn ask(&mut self, connections: usize, pace: Pace, count: u64) -> Result<Answers, BenchError> {
        let (address, users, first) = (self.address, Arc::clone(&self.users), self.come);
        self.come += count;
        let asking = move || {
            let load = Load { address, connections, pace, requests: &users, first, count, limit: LIMIT };
            Ok(run(&load)?)
        };
        blocking(asking).await
    }

    /// The same, and what CPU time it cost whom.
    ///
    /// # Errors
    /// The same.
    pub async fn ask_and_look(
        &mut self,
        ground: &mut Ground,
        connections: usize,
        pace: Pace,
        count: u64,
    ) -> Result<(Answers, Used), BenchError> {
        ground.calm().await?;
        let before = cpu(ground);
        let answers = self.ask(connections, pace, count).await?;
        Ok((answers, used(&before, &cpu(ground))))
    }

    /// Waits until everything is decided that was accepted, has the checker read it all, and stops the API. A worker
    /// must run.
    ///
    /// # Errors
    /// A violation voids the figure.
    pub async fn close(self, ground: &mut Ground) -> Result<(), BenchError> {
        ground.settle(SETTLE_WITHIN).await?;
        ground.stack.stop_child(self.child).await?;
        ground.check().await
    }
}

/// CPU time by program.
pub type Used = Vec<(&'static str, Duration)>;

fn cpu(ground: &Ground) -> Used {
    let mut cpu = ground.cpu();
    cpu.push(("caller", cpu::of_this_process()));
    cpu
}

fn address_of(ground: &Ground, child: Child) -> Result<SocketAddr, BenchError> {
    let endpoints = ground.stack.endpoints();
    let Child::Api(at) = child else { return Err(BenchError::Lost) };
    let address = endpoints.apis.get(at).and_then(|url| url.strip_prefix("http://"));
    address.and_then(|address| address.parse().ok()).ok_or(BenchError::Lost)
}

/// Claims of any code, one of each user, as they go over the wire.
///
/// # Errors
/// When a token cannot be signed.
pub fn claims(jwt_secret: &str, coupon: &str, wait: bool, users: u64) -> Result<Vec<Box<[u8]>>, BenchError> {
    let tokens = Tokens::new(jwt_secret, TOKENS_LIVE);
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

/// Every answer has one of these statuses, and there are answers to all.
///
/// # Errors
/// [`BenchError::Answers`], with how many there were of what.
pub fn only(answers: &Answers, fine: &[u16]) -> Result<(), BenchError> {
    if answers.unanswered == 0 && answers.counts.keys().all(|status| fine.contains(status)) {
        return Ok(());
    }
    let mut found: Vec<String> =
        answers.counts.iter().map(|(status, count)| format!("{count} × {status}")).collect();
    found.push(format!("{} without an answer", answers.unanswered));
    Err(BenchError::Answers { found: found.join(", ") })
}

/// What the answers with this status show.
#[must_use]
pub fn sample(answers: &Answers, status: u16, cpu: Used) -> Sample {
    let times = answers.times(status);
    Sample {
        requests: answers.count(status),
        took: Some(answers.took),
        p50: Some(rank(times, 50)),
        p99: Some(rank(times, 99)),
        cpu,
        ..Sample::default()
    }
}
