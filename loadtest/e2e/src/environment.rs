//! The field that a test plays on: a stack of its own for as long as it runs, and the history of what it sent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use checker::{CheckConfig, History, Invariant, Report, Watch, check, settle};
use load_support::tokens::Tokens;
use local_stack::{Child, ProxiedLink, Stack, StackConfig, testing};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Mutex, MutexGuard};

/// How long a stack may take to get over whatever was done to it. Generous: it is a bound, not an expectation.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(300);

/// Which stack a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Two APIs and two workers that nobody hurts.
    Calm,
    /// The same, to be hurt; a group that notices within a second.
    Faulty,
    /// Like the calm one, new, and hurt beyond healing: nobody plays on it afterwards, and nobody can check it, because
    /// its log or its ledger no longer tells the whole story.
    Doomed,
    /// The same as `Faulty`, with a proxy on every line from our programs to the servers.
    Lines,
    /// The same as `Faulty`, with three brokers.
    Brokers,
    /// The same as `Faulty`, with the tables of Postgres on a small disk.
    SmallDisk,
}

/// Tests run one after another; here lies the stack of the last one, if it is fit for another.
static LAST: Mutex<Option<(Kind, Arc<Stack>)>> = Mutex::const_new(None);
static COUPONS: AtomicU32 = AtomicU32::new(0);

/// Waits for its turn, and holds it: for a test that starts stacks of its own.
pub(crate) async fn alone() -> impl Sized {
    let mut last = LAST.lock().await;
    if let Some((_, stack)) = last.take() {
        stack.stop().await.unwrap();
    }
    last
}

/// A stack, clients, and what they sent and heard.
pub(crate) struct Field {
    kind: Kind,
    last: MutexGuard<'static, Option<(Kind, Arc<Stack>)>>,
    pub(crate) stack: Arc<Stack>,
    pub(crate) http: reqwest::Client,
    pub(crate) history: History,
    pub(crate) tokens: Tokens,
    watch: Option<Watch>,
}

impl Field {
    /// Waits for its turn, and has the machine without any stack, for a test that brings its own.
    pub(crate) async fn alone() -> impl Sized {
        let mut last = LAST.lock().await;
        if let Some((_, stack)) = last.take() {
            stack.stop().await.unwrap();
        }
        last
    }

    /// Waits for its turn, and for a healthy stack.
    pub(crate) async fn enter(kind: Kind) -> Self {
        let mut last = LAST.lock().await;
        let stack = match last.take() {
            Some((had, stack)) if had == kind && kind != Kind::Doomed => stack,
            other => {
                if let Some((_, other)) = other {
                    other.stop().await.unwrap();
                }
                start(kind).await
            }
        };
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).pool_max_idle_per_host(256);
        let tokens = Tokens::new(stack.jwt_secret(), Duration::from_secs(3600));
        let watch = Some(Watch::begin(&stack.endpoints().postgres_url));
        let (http, history) = (http.build().unwrap(), History::new());
        let field = Self { kind, last, stack, http, history, tokens, watch };
        field.heal().await;
        field
    }

    /// Everything runs, nothing is frozen.
    pub(crate) async fn heal(&self) {
        for link in ProxiedLink::ALL {
            if let Some(line) = self.stack.proxy(link) {
                line.clear_faults();
            }
        }
        for child in self.stack.children() {
            if self.stack.is_running(child) {
                self.stack.resume(child).unwrap();
            }
            self.stack.restart(child).await.unwrap();
        }
    }

    /// Starts a program of ours anew, with this in its environment.
    pub(crate) async fn restart_with(&self, child: Child, environment: &[(&str, &str)]) {
        if self.stack.is_running(child) {
            self.stack.stop_child(child).await.unwrap();
        }
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.stack.set_env(child, environment.collect()).unwrap();
        self.stack.restart(child).await.unwrap();
    }

    /// An access token of a user.
    pub(crate) fn token(&self, user: &str) -> String {
        self.tokens.issue(user, "user").unwrap()
    }

    pub(crate) fn admin(&self) -> String {
        self.tokens.issue("admin", "admin").unwrap()
    }

    pub(crate) async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.stack.endpoints().postgres_url).await.unwrap()
    }

    /// A new coupon with so many codes, which can be claimed now.
    pub(crate) async fn coupon(&self, codes: u64, claims_per_user: u64) -> String {
        let id = self.coupon_of(json!({"limits": {"claims_per_user": claims_per_user}})).await;
        self.generate(&id, codes).await;
        id
    }

    /// A new coupon without codes, with these fields over the usual ones.
    pub(crate) async fn coupon_of(&self, fields: Value) -> String {
        let n = COUPONS.fetch_add(1, Ordering::Relaxed);
        let mut body = json!({
            "id": format!("sale-{}-{n}", std::process::id()), "name": "A sale",
            "discount": {"type": "PERCENTAGE", "value": "10.00"},
        });
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = self.post(0, "/v1/coupons", &self.admin(), &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        body["id"].as_str().unwrap().to_owned()
    }

    /// Generates codes and waits until they are stock.
    pub(crate) async fn generate(&self, coupon: &str, codes: u64) {
        let path = format!("/v1/coupons/{coupon}/codes/generate");
        let reply = self.post(0, &path, &self.admin(), &json!({"count": codes})).await;
        assert_eq!(reply.status, 202, "{}", reply.body);
        let job = format!("/v1/jobs/{}", reply.json()["job_id"].as_str().unwrap());
        let until = tokio::time::Instant::now() + SETTLES_WITHIN;
        loop {
            let state = self.get(0, &job, &self.admin()).await;
            if state.json()["state"] == "applied" {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "the codes do not become stock: {}", state.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The live counters of a coupon.
    pub(crate) async fn counts(&self, coupon: &str) -> Value {
        let reply = self.get(0, &format!("/v1/coupons/{coupon}"), &self.token("reader")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["counts"].clone()
    }

    /// The sum of a metric over its labels, as a program of ours tells it now; labels may narrow it down.
    pub(crate) async fn metric(&self, child: Child, name: &str, label: &str) -> f64 {
        let endpoints = self.stack.endpoints();
        let probe = match child {
            Child::Worker(n) => &endpoints.worker_probes[n],
            Child::Api(n) => &endpoints.api_probes[n],
            _ => panic!("{child} is none of ours"),
        };
        let metrics = self.send(self.http.get(format!("{probe}/metrics"))).await.unwrap();
        let lines = metrics.body.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Ends the test: waits until nothing is left to do, and expects every invariant to hold.
    pub(crate) async fn leave(mut self) -> Report {
        self.heal().await;
        let mut report = self.checked().await;
        if let Some(watch) = self.watch.take() {
            watch.end(&mut report).await;
        }
        assert!(report.is_clean() && report.given_twice == 0, "\n{report}");
        for invariant in Invariant::ALL {
            assert!(
                report.line(invariant).not_applicable.is_none() || invariant == Invariant::I11,
                "\n{report}"
            );
        }
        report
    }

    /// Waits until nothing is left to do, and checks.
    pub(crate) async fn checked(&self) -> Report {
        let config = CheckConfig::settled(&self.stack.endpoints());
        settle(&config, SETTLES_WITHIN).await.unwrap();
        check(&config, Some(&self.history)).await.unwrap()
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // A stack on which a test has failed is nothing to start another one from.
        if std::thread::panicking() {
            keep_logs(&self.stack);
        } else {
            *self.last = Some((self.kind, Arc::clone(&self.stack)));
        }
    }
}

async fn start(kind: Kind) -> Arc<Stack> {
    let config = StackConfig { api_instances: 2, ..StackConfig::full(testing::programs().await.unwrap()) };
    let faulty = |config| StackConfig {
        group_session_timeout: Duration::from_secs(1),
        group_heartbeat: Duration::from_millis(100),
        ..config
    };
    let config = match kind {
        Kind::Calm | Kind::Doomed => config,
        Kind::Faulty => faulty(config),
        Kind::Lines => {
            // Few connections, so that they can all be taken.
            let postgres_settings = vec![("max_connections".to_owned(), "100".to_owned())];
            StackConfig { proxied_links: ProxiedLink::ALL.to_vec(), postgres_settings, ..faulty(config) }
        }
        Kind::Brokers => {
            StackConfig { brokers: 3, kafka_heap_mb: 256, startup_timeout: SETTLES_WITHIN, ..faulty(config) }
        }
        Kind::SmallDisk => StackConfig { postgres_disk_mb: Some(96), ..faulty(config) },
    };
    Arc::new(Stack::start(config).await.unwrap())
}

/// The logs of a failure outlive the stack's directory.
fn keep_logs(stack: &Stack) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("logs-{}", std::process::id()));
    std::fs::create_dir_all(&kept).unwrap();
    for child in stack.children() {
        let log = stack.log_file(child);
        if let Some(name) = log.file_name() {
            std::fs::copy(&log, kept.join(name)).ok();
        }
    }
    eprintln!("the stack's logs: {}", kept.display());
}
