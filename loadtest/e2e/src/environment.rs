//! A test's view of a stack: clients, coupons, users, counters, and the check at the end.
//!
//! Coupons and users carry the test's name, so that tests can share a stack and a violation can be traced to a test:
//! a method that takes a user `ann` sends the requests of `LABEL.ann` ([`Environment::user`]).

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use checker::{CheckConfig, History, Invariant, Report, Watch, check, settle};
use load_support::tokens::Tokens;
use local_stack::{Child, Stack};
use redis::aio::MultiplexedConnection;
use schemas::partition_for;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use stampede_client::Client;

use crate::stacks::{self, Lease, StackKind};
use crate::wait::{TIMEOUT, until};
use crate::{Coupon, request};

/// Partitions of the request topic.
pub const PARTITIONS: i32 = 8;
/// Both workers of a stack.
pub const WORKERS: [Child; 2] = [Child::Worker(0), Child::Worker(1)];
/// Both APIs of a stack.
pub const APIS: [Child; 2] = [Child::Api(0), Child::Api(1)];
/// The longest part of a test's name that coupons and users carry: a coupon id has 64 characters at most.
const LABEL_LENGTH: usize = 52;

/// A stack, clients, and the history of what they sent and received.
pub struct Environment {
    /// The stack.
    pub stack: Arc<Stack>,
    /// The client of the stack's APIs. It has no token.
    pub client: Client,
    /// What the clients of this test sent and received.
    pub history: Arc<History>,
    /// Signs access tokens.
    pub tokens: Tokens,
    label: String,
    /// Partitions in which no coupon is created unless a test selects one.
    reserved_partitions: &'static [i32],
}

/// The environment of a test that has a stack to itself.
pub struct OwnStack {
    environment: Environment,
    watch: Watch,
    /// Children that run with variables of this test's own.
    changed: Mutex<BTreeSet<Child>>,
    _lease: Lease,
}

impl Deref for OwnStack {
    type Target = Environment;

    fn deref(&self) -> &Environment {
        &self.environment
    }
}

impl OwnStack {
    /// Waits for a healthy stack. It belongs to the caller until it is dropped.
    pub async fn of(kind: StackKind) -> Self {
        let lease = Lease::of(kind).await;
        stacks::heal(&lease.stack).await;
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("test").rsplit("::").next().unwrap_or_default();
        let environment = Environment::on(&lease.stack, Arc::default(), name);
        let watch = Watch::begin(&environment.stack.endpoints().postgres_url);
        Self { environment, watch, changed: Mutex::default(), _lease: lease }
    }

    /// Replaces the history, for a test that wants it in a file.
    pub fn record_to(&mut self, history: History) {
        self.environment.history = Arc::new(history);
    }

    /// Restarts one of our programs with these variables. [`Self::heal`] restarts it without them.
    pub async fn restart_with(&self, child: Child, variables: &[(&str, &str)]) {
        if self.stack.is_running(child) {
            self.stack.stop_child(child).await.unwrap();
        }
        self.start_with(child, variables).await;
        self.stack.wait_healthy(child).await.unwrap();
    }

    /// Starts one of our programs with these variables and does not wait until it is healthy.
    pub async fn start_with(&self, child: Child, variables: &[(&str, &str)]) {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.stack.set_env(child, owned.collect()).unwrap();
        self.note_variables(child, variables.is_empty());
        self.stack.start_child(child).await.unwrap();
    }

    fn note_variables(&self, child: Child, usual: bool) {
        let mut changed = self.changed.lock().unwrap();
        if usual {
            changed.remove(&child);
        } else {
            changed.insert(child);
        }
    }

    /// Everything runs with its usual variables, nothing is frozen.
    pub async fn heal(&self) {
        let changed = std::mem::take(&mut *self.changed.lock().unwrap());
        let stopped = changed.into_iter().map(async |child| {
            self.stack.set_env(child, Vec::new()).unwrap();
            if self.stack.is_running(child) {
                self.stack.stop_child(child).await.unwrap();
            }
        });
        futures::future::join_all(stopped).await;
        stacks::heal(&self.stack).await;
    }

    /// Ends the test: heals the stack, waits until nothing is left to do, and expects every invariant to hold.
    pub async fn finish(self) -> Report {
        self.heal().await;
        let mut report = self.settled_check().await;
        self.watch.end(&mut report).await;
        expect_clean(&report);
        report
    }
}

impl Environment {
    /// A view of `stack` for the test of this name.
    pub(crate) fn on(stack: &Arc<Stack>, history: Arc<History>, test: &str) -> Self {
        Self {
            client: request::client(&stack.endpoints().apis),
            history,
            tokens: Tokens::new(stack.jwt_secret(), Duration::from_secs(3600)),
            stack: Arc::clone(stack),
            label: label(test),
            reserved_partitions: &[],
        }
    }

    pub(crate) fn reserving(self, partitions: &'static [i32]) -> Self {
        Self { reserved_partitions: partitions, ..self }
    }

    /// The id of a user of this test.
    pub fn user(&self, name: &str) -> String {
        format!("{}.{name}", self.label)
    }

    /// An access token of a user with the role `user`.
    pub fn token(&self, user: &str) -> String {
        self.tokens.issue(&self.user(user), "user").unwrap()
    }

    /// An access token of an administrator.
    pub fn admin(&self) -> String {
        self.tokens.issue(&self.user("admin"), "admin").unwrap()
    }

    /// An Idempotency-Key that no other request of this test has.
    pub(crate) fn new_key(&self) -> String {
        static KEYS: AtomicU32 = AtomicU32::new(0);
        format!("key-{}", KEYS.fetch_add(1, Ordering::Relaxed))
    }

    /// A new connection to Postgres.
    pub async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.stack.endpoints().postgres_url).await.unwrap()
    }

    /// A new connection to Redis.
    pub async fn redis(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.stack.endpoints().redis_url).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// A new coupon with so many codes, which can be claimed now.
    pub async fn coupon(&self, codes: u64, claims_per_user: u64) -> Coupon<'_> {
        self.stocked(codes, json!({"limits": {"claims_per_user": claims_per_user}})).await
    }

    /// A new coupon with these fields over the usual ones, and so many codes.
    pub async fn stocked(&self, codes: u64, fields: Value) -> Coupon<'_> {
        let coupon = self.empty_coupon(fields).await;
        self.generate(&coupon.id, codes).await;
        coupon
    }

    /// A new coupon without codes, with these fields over the usual ones.
    pub async fn empty_coupon(&self, fields: Value) -> Coupon<'_> {
        let mut body = json!({
            "name": "A sale", "discount": {"type": "PERCENTAGE", "value": "10.00"},
        });
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        if body["id"].is_null() {
            body["id"] = json!(self.coupon_id(|partition| !self.reserved_partitions.contains(&partition)));
        }
        let reply = self.post(0, "/v1/coupons", &self.admin(), &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        Coupon::new(self, body["id"].as_str().unwrap().to_owned())
    }

    /// The id of a coupon that does not exist yet, in a partition that fits.
    pub fn coupon_id(&self, fits: impl Fn(i32) -> bool) -> String {
        static COUPONS: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = COUPONS.fetch_add(1, Ordering::Relaxed);
            let id = format!("{}-{n}", self.label);
            if fits(partition_for(id.as_bytes(), PARTITIONS)) {
                return id;
            }
        }
    }

    /// Generates codes and waits until they are stock.
    pub async fn generate(&self, coupon: &str, codes: u64) {
        let path = format!("/v1/coupons/{coupon}/codes/generate");
        let reply = self.post(0, &path, &self.admin(), &json!({"count": codes})).await;
        assert_eq!(reply.status, 202, "{}", reply.body);
        let job = format!("/v1/jobs/{}", reply.json()["job_id"].as_str().unwrap());
        until("the codes are stock", async || {
            self.get(0, &job, &self.admin()).await.json()["state"] == "applied"
        })
        .await;
    }

    /// The live counters of a coupon.
    pub async fn counts(&self, coupon: &str) -> Value {
        let reply = self.get(0, &format!("/v1/coupons/{coupon}"), &self.token("reader")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["counts"].clone()
    }

    /// The sum of a metric over its labels in one of our programs; `label` selects lines that contain it.
    pub async fn metric(&self, child: Child, name: &str, label: &str) -> f64 {
        let endpoints = self.stack.endpoints();
        let probe = match child {
            Child::Worker(n) => &endpoints.worker_probes[n],
            Child::Api(n) => &endpoints.api_probes[n],
            _ => panic!("{child} has no metrics"),
        };
        let metrics = request::get_probe(probe, "/metrics").await.unwrap();
        let lines = metrics.body.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The sum of a metric over both workers.
    pub async fn worker_metric(&self, name: &str, label: &str) -> f64 {
        let [one, other] = WORKERS.map(|worker| self.metric(worker, name, label));
        one.await + other.await
    }

    /// How often a text occurs in the logs of these children.
    pub fn count_in_logs(&self, children: &[Child], text: &str) -> usize {
        let logs =
            children.iter().map(|child| std::fs::read(self.stack.log_file(*child)).unwrap_or_default());
        logs.map(|log| String::from_utf8_lossy(&log).matches(text).count()).sum()
    }

    /// The partition of a coupon.
    pub fn partition_of(&self, coupon: &str) -> i32 {
        partition_for(coupon.as_bytes(), PARTITIONS)
    }

    /// Waits until the record at this position is consumed and everything that it caused is published.
    pub async fn until_published(&self, partition: i32, offset: i64) {
        let mut postgres = self.postgres().await;
        let mut wanted = None;
        until("the record is consumed and its outcome published", async || {
            let sql = "select next_offset, next_emit_seq - 1, emitted_seq from stampede.partitions where partition = $1";
            let row = sqlx::query_as::<_, (i64, i64, i64)>(sql).bind(partition);
            let (next_offset, written, published) = row.fetch_one(&mut postgres).await.unwrap();
            if next_offset > offset && wanted.is_none() {
                wanted = Some(written);
            }
            wanted.is_some_and(|wanted| published >= wanted)
        })
        .await;
    }

    /// Waits until everything that Postgres has recorded in this partition by now is published.
    pub async fn until_all_published(&self, partition: i32) {
        self.until_published(partition, i64::MIN).await;
    }

    /// Waits until nothing is left to do, and checks. Nothing must be sent meanwhile.
    pub async fn settled_check(&self) -> Report {
        let config = CheckConfig::settled(&self.stack.endpoints());
        settle(&config, TIMEOUT).await.unwrap();
        check(&config, Some(&self.history)).await.unwrap()
    }

    /// Waits until nothing is left to do.
    pub async fn settle(&self) {
        settle(&CheckConfig::settled(&self.stack.endpoints()), TIMEOUT).await.unwrap();
    }
}

/// What coupons and users carry of a test's name.
pub(crate) fn label(test: &str) -> String {
    test.chars().take(LABEL_LENGTH).collect()
}

/// Every invariant was checked and holds, and no code was given to two users.
pub(crate) fn expect_clean(report: &Report) {
    assert!(report.is_clean() && report.given_twice == 0, "\n{report}");
    for invariant in Invariant::ALL {
        let checked = report.line(invariant).not_applicable.is_none();
        assert!(checked || invariant == Invariant::I11, "\n{report}");
    }
}
