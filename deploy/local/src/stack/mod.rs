//! Start and stop of the whole.
//!
//! Start: the directory, the programs, the ports, then the three servers at once, then our own programs at once; each is
//! waited for. Stop: in the order in which work flows, so that nobody asks somebody who is gone: APIs, workers, Kafka,
//! Postgres, Redis.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use nix::sys::signal::Signal;

use crate::detours::Detours;
use crate::directory::DataDir;
use crate::ports::Ports;
use crate::process::{Process, lock};
use crate::programs::Servers;
use crate::secrets::Secrets;
use crate::watchdog::Watchdog;
use crate::{
    Child, Detour, Endpoints, Programs, Proxy, StackConfig, StackError, disk, kafka, ours, postgres, procfs,
    redis,
};

/// Running processes with their data. Dropping it kills what is left and removes a temporary directory.
pub struct Stack {
    pub(crate) inner: Arc<Inner>,
}

/// What the children need to know.
pub(crate) struct Site {
    pub(crate) dir: DataDir,
    pub(crate) config: StackConfig,
    pub(crate) servers: Servers,
    pub(crate) secrets: Secrets,
    pub(crate) ports: Mutex<Ports>,
}

pub(crate) struct Inner {
    pub(crate) site: Arc<Site>,
    pub(crate) members: Mutex<BTreeMap<Child, Member>>,
    /// Set once, at the beginning of the end: nothing is started any more.
    pub(crate) closing: AtomicBool,
    /// How many supervisors watch; somebody else starts dead children then.
    pub(crate) supervisors: AtomicU32,
    /// Held while another worker or API is made known.
    pub(crate) admitting: tokio::sync::Mutex<()>,
    detours: Detours,
    watchdog: Mutex<Option<Watchdog>>,
}

/// A child as the stack knows it, running or not.
#[derive(Default)]
pub(crate) struct Member {
    pub(crate) process: Option<Process>,
    /// Should run: its death is not what was asked for.
    pub(crate) wanted: bool,
    pub(crate) restarts: u32,
    pub(crate) extra_env: Vec<(String, String)>,
    /// Held while it is being started, so that two callers do not start it twice.
    pub(crate) starting: Arc<tokio::sync::Mutex<()>>,
}

impl Stack {
    /// Starts everything and waits until it is healthy.
    ///
    /// # Errors
    /// When a program is missing, a port or the directory is taken, or a child does not come up; what was started until
    /// then is ended.
    pub async fn start(config: StackConfig) -> Result<Self, StackError> {
        let stack = Self { inner: Arc::new(Inner::set_up(config)?) };
        let inner = &stack.inner;
        try_join_all(server_children(&inner.site.config).map(|child| inner.bring_up(child))).await?;
        let config = &inner.site.config;
        let workers = (0..config.workers).map(Child::Worker);
        let apis = (0..config.api_instances).map(Child::Api);
        let ours: Vec<Child> =
            if config.programs.is_some() { workers.chain(apis).collect() } else { Vec::new() };
        for child in &ours {
            inner.admit(*child, inner.default_env(*child))?;
        }
        try_join_all(ours.into_iter().map(|child| inner.bring_up(child))).await?;
        Ok(stack)
    }

    /// Where everything listens, as of now: `spawn_worker` and `spawn_api` add to it.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        let site = &self.inner.site;
        let children = self.children();
        let apis = || children.iter().copied().filter(|child| matches!(child, Child::Api(_)));
        let workers = children.iter().copied().filter(|child| matches!(child, Child::Worker(_)));
        Endpoints {
            kafka: kafka::bootstrap(site),
            postgres_url: ours::postgres_url(site),
            redis_url: ours::redis_url(site),
            apis: apis().map(|child| ours::api_url(site, child)).collect(),
            api_probes: apis().map(|child| ours::probe_url(site, child)).collect(),
            worker_probes: workers.map(|child| ours::probe_url(site, child)).collect(),
        }
    }

    /// The secret that signs access tokens; issuer and audience are `stampede`.
    #[must_use]
    pub fn jwt_secret(&self) -> &str {
        &self.inner.site.secrets.jwt
    }

    /// Partitions of the request topic, as they were asked for.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.inner.site.config.partitions
    }

    /// Where all data and logs are.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.inner.site.dir.path()
    }

    /// Where a child's output goes.
    #[must_use]
    pub fn log_file(&self, child: Child) -> PathBuf {
        self.inner.site.dir.log_file(child)
    }

    /// All children, running or not.
    #[must_use]
    pub fn children(&self) -> Vec<Child> {
        lock(&self.inner.members).keys().copied().collect()
    }

    /// Where our own two programs are; `None` for a stack of servers only.
    #[must_use]
    pub fn programs(&self) -> Option<Programs> {
        self.inner.site.config.programs.clone()
    }

    /// What an `ingest-api` or a worker is given besides the launcher's own environment.
    #[must_use]
    pub fn environment(&self, child: Child) -> Vec<(String, String)> {
        let extra = lock(&self.inner.members).get(&child).map(|member| member.extra_env.clone());
        let extra = extra.unwrap_or_else(|| self.inner.default_env(child));
        ours::environment(&self.inner.site, child, &extra)
    }

    /// The controls of a line that leads through a proxy; `None` where the configuration names no such detour.
    #[must_use]
    pub fn detour(&self, detour: Detour) -> Option<Proxy> {
        self.inner.detours.get(detour).cloned()
    }

    /// Stops everything in order. May be called again, and does nothing then.
    ///
    /// # Errors
    /// When a child had to be killed because it did not stop in time; all the same nothing is left.
    pub async fn stop(&self) -> Result<(), StackError> {
        if self.inner.closing.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let mut stubborn = Vec::new();
        let children = self.children();
        let rank = |child: &Child| stop_order(*child).0;
        for step in 0..5 {
            let together = children.iter().copied().filter(|child| rank(child) == step);
            let stopped = together.map(|child| async move { (child, self.inner.stop_process(child).await) });
            let stopped = futures::future::join_all(stopped).await;
            stubborn.extend(
                stopped.into_iter().filter(|(_, orderly)| !orderly).map(|(child, _)| child.to_string()),
            );
        }
        self.inner.clear_away();
        if stubborn.is_empty() {
            return Ok(());
        }
        Err(StackError::DidNotStop { children: stubborn.join(", "), logs: self.data_dir().join("logs") })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        self.inner.kill_all();
        self.inner.clear_away();
    }
}

/// Which step of the stop, which signal, and how long it may take. Postgres' SIGTERM would wait for its clients.
pub(crate) fn stop_order(child: Child) -> (u8, Signal, Duration) {
    match child {
        Child::Api(_) => (0, Signal::SIGTERM, Duration::from_secs(60)),
        Child::Worker(_) => (1, Signal::SIGTERM, Duration::from_secs(60)),
        Child::Kafka | Child::Broker(_) => (2, Signal::SIGTERM, Duration::from_secs(60)),
        Child::Postgres => (3, Signal::SIGINT, Duration::from_secs(60)),
        Child::Redis => (4, Signal::SIGTERM, Duration::from_secs(30)),
    }
}

/// The names under which a child's ports are kept.
pub(crate) fn port_names(config: &StackConfig, child: Child) -> Vec<String> {
    match child {
        Child::Kafka | Child::Broker(_) => kafka::port_names(config, child),
        Child::Redis => vec![redis::PORT.to_owned()],
        Child::Postgres => vec![postgres::PORT.to_owned()],
        Child::Api(_) => vec![ours::port_name(child), ours::probe_port_name(child)],
        Child::Worker(_) => vec![ours::probe_port_name(child)],
    }
}

/// The servers that are not ours.
fn server_children(config: &StackConfig) -> impl Iterator<Item = Child> + use<> {
    [Child::Redis, Child::Postgres].into_iter().chain(kafka::brokers(config))
}

impl Inner {
    /// Everything before the first child.
    fn set_up(config: StackConfig) -> Result<Self, StackError> {
        let servers = Servers::find()?;
        let dir = match &config.data_dir {
            Some(path) => DataDir::open(path, config.fresh)?,
            None => DataDir::temporary()?,
        };
        let watchdog = Watchdog::start(&dir)?;
        let secrets = Secrets::load_or_create(&dir.join("secrets.json"))?;
        let mut ports = Ports::load(dir.join("ports.json"));
        if let (Some(port), Some(_)) = (config.api_port, &config.programs) {
            ports.reserve_exactly(&ours::port_name(Child::Api(0)), config.api_host, port)?;
        }
        Detours::reserve(&config, &mut ports)?;
        for name in server_children(&config).flat_map(|child| port_names(&config, child)) {
            ports.reserve(&name)?;
        }
        let detours = Detours::open(&config, &mut ports)?;
        let known: Vec<Child> = server_children(&config).collect();
        let inner = Self {
            site: Arc::new(Site { dir, config, servers, secrets, ports: Mutex::new(ports) }),
            members: Mutex::default(),
            closing: AtomicBool::new(false),
            supervisors: AtomicU32::new(0),
            admitting: tokio::sync::Mutex::default(),
            detours,
            watchdog: Mutex::new(Some(watchdog)),
        };
        for child in known {
            inner.admit(child, Vec::new())?;
        }
        Ok(inner)
    }

    /// Makes a child known, with its ports, so that it can be started and its address told.
    pub(crate) fn admit(&self, child: Child, extra_env: Vec<(String, String)>) -> Result<(), StackError> {
        let mut ports = lock(&self.site.ports);
        for name in port_names(&self.site.config, child) {
            ports.reserve(&name)?;
        }
        drop(ports);
        lock(&self.members).insert(child, Member { extra_env, ..Member::default() });
        Ok(())
    }

    pub(crate) fn default_env(&self, child: Child) -> Vec<(String, String)> {
        match child {
            Child::Api(_) => self.site.config.api_env.clone(),
            Child::Worker(_) => self.site.config.worker_env.clone(),
            Child::Kafka | Child::Broker(_) | Child::Redis | Child::Postgres => Vec::new(),
        }
    }

    async fn bring_up(&self, child: Child) -> Result<(), StackError> {
        let begun = Instant::now();
        self.start_process(child).await?;
        self.wait_healthy(child, true).await?;
        self.site.config.report.say(&format!("{child} is up after {:.1} s", begun.elapsed().as_secs_f32()));
        Ok(())
    }

    /// Asks a child to stop and waits; kills it when it takes too long. Answers whether it went by itself.
    pub(crate) async fn stop_process(&self, child: Child) -> bool {
        let process = {
            let mut members = lock(&self.members);
            let Some(member) = members.get_mut(&child) else { return true };
            member.wanted = false;
            member.process.clone()
        };
        let Some(process) = process.filter(|process| process.exit().is_none()) else { return true };
        let (_, signal, patience) = stop_order(child);
        process.signal(signal);
        // A frozen one does not hear.
        self.signal_all(child, Signal::SIGCONT).ok();
        if process.ended_within(patience).await.is_some() {
            return true;
        }
        process.signal(Signal::SIGKILL);
        process.ended_within(Duration::from_secs(10)).await;
        false
    }

    /// No farewells; for `Drop`, which cannot wait long.
    fn kill_all(&self) {
        let processes: Vec<(Child, Process)> = lock(&self.members)
            .iter_mut()
            .filter_map(|(child, member)| {
                member.wanted = false;
                member.process.clone().map(|process| (*child, process))
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

    /// After the last child: orphaned backends, the temporary directory, the watchdog.
    fn clear_away(&self) {
        let mut watchdog = lock(&self.watchdog);
        if watchdog.is_none() {
            return;
        }
        let postgres = postgres::home(&self.site);
        procfs::end_postgres_in(&postgres, Duration::from_secs(2));
        procfs::remove_shared_memory(&postgres);
        disk::clear_away(&self.site);
        self.site.dir.remove_if_temporary();
        drop(watchdog.take());
    }
}
