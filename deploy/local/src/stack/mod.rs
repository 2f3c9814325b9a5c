//! Start and stop of a stack.
//!
//! Start: directory, executables, ports; then the three servers in parallel, then our own programs in parallel. A start
//! returns when all are healthy. Stop: in the order in which work flows, so that no process calls one that has stopped:
//! APIs, workers, Kafka, Postgres, Redis.

mod control;
mod health;
mod proxies;
mod supervisor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use nix::sys::signal::Signal;

use crate::child::Child;
use crate::config::StackConfig;
use crate::context::StackContext;
use crate::data::{DataDir, Ports, Secrets};
use crate::endpoints::Endpoints;
use crate::error::StackError;
use crate::process::{Process, Watchdog, end_postgres_in, lock, remove_shared_memory};
use crate::programs::{Programs, ServerPrograms};
use crate::proxy::{ProxiedLink, Proxy};
use crate::servers::{disk, kafka, postgres, redis, stampede};
use proxies::Proxies;

pub use supervisor::Supervisor;

/// How long a child may take to end after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Running processes with their data. Dropping it kills the remaining processes and removes a temporary directory.
pub struct Stack {
    inner: Arc<Inner>,
}

/// The state that a stack shares with its supervisors.
struct Inner {
    context: Arc<StackContext>,
    children: Mutex<BTreeMap<Child, ChildEntry>>,
    /// Set when the stop begins: no child is started any more.
    closing: AtomicBool,
    /// Number of supervisors, which restart children that exit.
    supervisors: AtomicU32,
    /// Held while another worker or API is registered.
    registering: tokio::sync::Mutex<()>,
    proxies: Proxies,
    watchdog: Mutex<Option<Watchdog>>,
}

/// A registered child, running or not.
#[derive(Default)]
struct ChildEntry {
    process: Option<Process>,
    /// Whether it should run: an exit is then unexpected.
    wanted: bool,
    restarts: u32,
    extra_env: Vec<(String, String)>,
    /// Held while it is being started, so that two callers do not start it twice.
    starting: Arc<tokio::sync::Mutex<()>>,
}

impl Stack {
    /// Starts everything and waits until it is healthy.
    ///
    /// # Errors
    /// When a program is missing, a port or the directory is taken, or a child does not come up. Children that were
    /// started are killed.
    pub async fn start(config: StackConfig) -> Result<Self, StackError> {
        let stack = Self { inner: Arc::new(Inner::set_up(config)?) };
        let inner = &stack.inner;
        try_join_all(server_children(&inner.context.config).map(|child| inner.bring_up(child))).await?;
        let config = &inner.context.config;
        let workers = (0..config.workers).map(Child::Worker);
        let apis = (0..config.api_instances).map(Child::Api);
        let own: Vec<Child> =
            if config.programs.is_some() { workers.chain(apis).collect() } else { Vec::new() };
        for child in &own {
            inner.register(*child, inner.default_env(*child))?;
        }
        try_join_all(own.into_iter().map(|child| inner.bring_up(child))).await?;
        Ok(stack)
    }

    /// The addresses of the present children; `spawn_worker` and `spawn_api` add to them.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        let context = &self.inner.context;
        let children = self.children();
        let apis = || children.iter().copied().filter(|child| matches!(child, Child::Api(_)));
        let workers = children.iter().copied().filter(|child| matches!(child, Child::Worker(_)));
        Endpoints {
            kafka: kafka::bootstrap(context),
            postgres_url: postgres::url(&context.secrets.postgres, context.port(postgres::PORT)),
            redis_url: redis::url(context.port(redis::PORT)),
            apis: apis().map(|child| stampede::api_url(context, child)).collect(),
            api_probes: apis().map(|child| stampede::probe_url(context, child)).collect(),
            worker_probes: workers.map(|child| stampede::probe_url(context, child)).collect(),
        }
    }

    /// The secret that signs access tokens; issuer and audience are `stampede`.
    #[must_use]
    pub fn jwt_secret(&self) -> &str {
        &self.inner.context.secrets.jwt
    }

    /// The configured number of partitions of the request topic.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.inner.context.config.partitions
    }

    /// The directory of all data and logs.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.inner.context.dir.path()
    }

    /// The log of a child.
    #[must_use]
    pub fn log_file(&self, child: Child) -> PathBuf {
        self.inner.context.dir.log_file(child)
    }

    /// All children, running or not.
    #[must_use]
    pub fn children(&self) -> Vec<Child> {
        lock(&self.inner.children).keys().copied().collect()
    }

    /// The executables of `ingest-api` and `workers`; `None` for a stack of servers only.
    #[must_use]
    pub fn programs(&self) -> Option<Programs> {
        self.inner.context.config.programs.clone()
    }

    /// The environment variables of an `ingest-api` or a worker, in addition to those of the launcher.
    #[must_use]
    pub fn environment(&self, child: Child) -> Vec<(String, String)> {
        let extra = lock(&self.inner.children).get(&child).map(|entry| entry.extra_env.clone());
        let extra = extra.unwrap_or_else(|| self.inner.default_env(child));
        stampede::environment(&self.inner.context, child, &extra)
    }

    /// The controls of the proxy on this link; `None` if the configuration does not list the link.
    #[must_use]
    pub fn proxy(&self, link: ProxiedLink) -> Option<Proxy> {
        self.inner.proxies.get(link).cloned()
    }

    /// Stops all children in order. A second call does nothing.
    ///
    /// # Errors
    /// When a child did not stop in time and was killed, except one of several brokers. No process is left in any case.
    pub async fn stop(&self) -> Result<(), StackError> {
        if self.inner.closing.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let mut killed = Vec::new();
        let children = self.children();
        let rank = |child: &Child| stop_rule(*child).step;
        for step in 0..STOP_STEPS {
            let in_step = children.iter().copied().filter(|child| rank(child) == step);
            let stopped = in_step.map(|child| async move { (child, self.inner.stop_process(child).await) });
            let stopped = futures::future::join_all(stopped).await;
            let disorderly =
                stopped.into_iter().filter(|(child, orderly)| !orderly && !may_be_killed(*child));
            killed.extend(disorderly.map(|(child, _)| child.to_string()));
        }
        self.inner.clean_up();
        if killed.is_empty() {
            return Ok(());
        }
        Err(StackError::DidNotStop { children: killed.join(", "), logs: self.data_dir().join("logs") })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        self.inner.kill_all();
        self.inner.clean_up();
    }
}

const STOP_STEPS: u8 = 5;

/// How a child is stopped.
struct StopRule {
    /// Position in the order of the stop, from 0.
    step: u8,
    signal: Signal,
    timeout: Duration,
}

const fn stop_rule(child: Child) -> StopRule {
    let (step, signal, seconds) = match child {
        Child::Api(_) => (0, Signal::SIGTERM, 60),
        Child::Worker(_) => (1, Signal::SIGTERM, 60),
        Child::Kafka | Child::Broker(_) => (2, Signal::SIGTERM, 60),
        // After SIGTERM, Postgres would wait for its clients.
        Child::Postgres => (3, Signal::SIGINT, 60),
        Child::Redis => (4, Signal::SIGTERM, 30),
    };
    StopRule { step, signal, timeout: Duration::from_secs(seconds) }
}

/// Whether a child that is killed at the end of a stop has stopped as expected. The last of several brokers may be without
/// a quorum by then: it waits for a controller to confirm its shutdown, for minutes.
const fn may_be_killed(child: Child) -> bool {
    matches!(child, Child::Broker(_))
}

/// The names of a child's ports.
fn port_names(config: &StackConfig, child: Child) -> Vec<String> {
    match child {
        Child::Kafka | Child::Broker(_) => kafka::port_names(config, child),
        Child::Redis => vec![redis::PORT.to_owned()],
        Child::Postgres => vec![postgres::PORT.to_owned()],
        Child::Api(_) => vec![stampede::port_name(child), stampede::probe_port_name(child)],
        Child::Worker(_) => vec![stampede::probe_port_name(child)],
    }
}

/// Kafka, Postgres and Redis.
fn server_children(config: &StackConfig) -> impl Iterator<Item = Child> + use<> {
    [Child::Redis, Child::Postgres].into_iter().chain(kafka::brokers(config))
}

impl Inner {
    /// Everything before the first child is started.
    fn set_up(config: StackConfig) -> Result<Self, StackError> {
        let servers = ServerPrograms::find()?;
        let dir = match &config.data_dir {
            Some(path) => DataDir::open(path, config.fresh)?,
            None => DataDir::temporary()?,
        };
        let watchdog = Watchdog::start(dir.path(), dir.is_temporary())?;
        let secrets = Secrets::load_or_create(&dir.join("secrets.json"))?;
        let mut ports = Ports::load(dir.join("ports.json"));
        if let (Some(port), Some(_)) = (config.api_port, &config.programs) {
            ports.reserve_exactly(&stampede::port_name(Child::Api(0)), config.api_host, port)?;
        }
        Proxies::reserve(&config, &mut ports)?;
        for name in server_children(&config).flat_map(|child| port_names(&config, child)) {
            ports.reserve(&name)?;
        }
        let proxies = Proxies::open(&config, &mut ports)?;
        let inner = Self {
            context: Arc::new(StackContext { dir, config, servers, secrets, ports: Mutex::new(ports) }),
            children: Mutex::default(),
            closing: AtomicBool::new(false),
            supervisors: AtomicU32::new(0),
            registering: tokio::sync::Mutex::default(),
            proxies,
            watchdog: Mutex::new(Some(watchdog)),
        };
        for child in server_children(&inner.context.config) {
            inner.register(child, Vec::new())?;
        }
        Ok(inner)
    }

    /// Registers a child and reserves its ports, so that it can be started and has an address.
    fn register(&self, child: Child, extra_env: Vec<(String, String)>) -> Result<(), StackError> {
        let mut ports = lock(&self.context.ports);
        for name in port_names(&self.context.config, child) {
            ports.reserve(&name)?;
        }
        drop(ports);
        lock(&self.children).insert(child, ChildEntry { extra_env, ..ChildEntry::default() });
        Ok(())
    }

    fn default_env(&self, child: Child) -> Vec<(String, String)> {
        match child {
            Child::Api(_) => self.context.config.api_env.clone(),
            Child::Worker(_) => self.context.config.worker_env.clone(),
            Child::Kafka | Child::Broker(_) | Child::Redis | Child::Postgres => Vec::new(),
        }
    }

    async fn bring_up(&self, child: Child) -> Result<(), StackError> {
        let begun = Instant::now();
        self.start_process(child).await?;
        self.wait_healthy(child, true).await?;
        self.context
            .config
            .report
            .report(&format!("{child} is up after {:.1} s", begun.elapsed().as_secs_f32()));
        Ok(())
    }

    /// Stops a child and waits; kills it after a timeout. Returns whether it ended by itself.
    async fn stop_process(&self, child: Child) -> bool {
        let process = {
            let mut children = lock(&self.children);
            let Some(entry) = children.get_mut(&child) else { return true };
            entry.wanted = false;
            entry.process.clone()
        };
        let Some(process) = process.filter(|process| process.exit().is_none()) else { return true };
        let rule = stop_rule(child);
        process.signal(rule.signal);
        // A frozen child does not handle signals.
        self.signal_all(child, Signal::SIGCONT).ok();
        if process.ended_within(rule.timeout).await.is_some() {
            return true;
        }
        process.signal(Signal::SIGKILL);
        process.ended_within(KILL_TIMEOUT).await;
        false
    }

    /// Kills all children; for `Drop`, which cannot wait long.
    fn kill_all(&self) {
        let processes: Vec<(Child, Process)> = lock(&self.children)
            .iter_mut()
            .filter_map(|(child, entry)| {
                entry.wanted = false;
                entry.process.clone().map(|process| (*child, process))
            })
            .filter(|(_, process)| process.exit().is_none())
            .collect();
        for (child, process) in &processes {
            let signal = if *child == Child::Postgres { Signal::SIGQUIT } else { Signal::SIGKILL };
            process.signal(signal);
            self.signal_all(*child, Signal::SIGCONT).ok();
        }
        let deadline = Instant::now() + Duration::from_secs(8);
        for (_, process) in processes {
            if !process.ended_by(deadline) {
                process.signal(Signal::SIGKILL);
                process.ended_by(Instant::now() + Duration::from_secs(2));
            }
        }
    }

    /// After the last child has ended: removes orphaned backends, the temporary directory and the watchdog.
    fn clean_up(&self) {
        let mut watchdog = lock(&self.watchdog);
        if watchdog.is_none() {
            return;
        }
        let postgres = postgres::home(&self.context);
        end_postgres_in(&postgres, Duration::from_secs(2));
        remove_shared_memory(&postgres);
        if self.context.config.postgres_disk_mb.is_some() {
            disk::remove(self.context.dir.path());
        }
        self.context.dir.remove_if_temporary();
        drop(watchdog.take());
    }
}
