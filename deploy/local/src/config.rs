//! What a stack can be asked for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Detour, Programs};

/// What to start. Use [`StackConfig::full`] or [`StackConfig::servers_only`] with struct update syntax.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Where all data and logs go. `None`: a temporary directory, removed at the end whatever happens.
    pub data_dir: Option<PathBuf>,
    /// Drops what an earlier stack left in `data_dir`.
    pub fresh: bool,
    /// Our own programs. `None`: the three servers only.
    pub programs: Option<Programs>,
    /// Address the APIs listen on.
    pub api_host: IpAddr,
    /// Port of `api-0`; `None`: a free one. Every other port is always a free one.
    pub api_port: Option<u16>,
    /// How many `ingest-api` to start.
    pub api_instances: usize,
    /// How many `workers` to start.
    pub workers: usize,
    /// Partitions of the request topic; only the first start on a data directory uses it.
    pub partitions: u32,
    /// How many Kafka brokers to start, each of them a controller as well; topics have as many replicas, up to three.
    pub brokers: usize,
    /// Heap of each broker in MiB.
    pub kafka_heap_mb: u32,
    /// Added to each broker's `server.properties`, or replacing what is there.
    pub kafka_properties: Vec<(String, String)>,
    /// How long the broker waits for a silent consumer before it gives its partitions away; 1 s or more.
    pub group_session_timeout: Duration,
    /// How often a consumer has to be heard; 100 ms or more.
    pub group_heartbeat: Duration,
    /// Added to Postgres' settings, or replacing them.
    pub postgres_settings: Vec<(String, String)>,
    /// Megabytes of the disk on which Postgres has its tables, to be filled; `None`: where everything is. Needs root.
    pub postgres_disk_mb: Option<u32>,
    /// Added to Redis' settings (without dashes), or replacing them.
    pub redis_settings: Vec<(String, String)>,
    /// Added to the environment of every `ingest-api`.
    pub api_env: Vec<(String, String)>,
    /// Added to the environment of every worker.
    pub worker_env: Vec<(String, String)>,
    /// Lines on which a proxy stands between our programs and a server: see [`crate::Stack::detour`].
    pub detours: Vec<Detour>,
    /// How long each child may take to become healthy.
    pub patience: Duration,
    /// Where lines about starts, deaths and restarts go.
    pub report: Reporter,
}

impl StackConfig {
    /// Kafka, Redis and Postgres, on free ports, with temporary data.
    #[must_use]
    pub fn servers_only() -> Self {
        Self {
            data_dir: None,
            fresh: false,
            programs: None,
            api_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            api_port: None,
            api_instances: 0,
            workers: 0,
            partitions: 8,
            brokers: 1,
            kafka_heap_mb: 512,
            kafka_properties: Vec::new(),
            group_session_timeout: Duration::from_secs(6),
            group_heartbeat: Duration::from_millis(250),
            postgres_settings: Vec::new(),
            postgres_disk_mb: None,
            redis_settings: Vec::new(),
            api_env: Vec::new(),
            worker_env: Vec::new(),
            detours: Vec::new(),
            patience: Duration::from_secs(300),
            report: Reporter::silent(),
        }
    }

    /// The servers, one `ingest-api` and two workers, on free ports, with temporary data.
    #[must_use]
    pub fn full(programs: Programs) -> Self {
        Self { programs: Some(programs), api_instances: 1, workers: 2, ..Self::servers_only() }
    }
}

/// Where a launcher keeps its data if it is not told: `/var/lib/stampede` for root, because Postgres' own user must get
/// there, and `$XDG_DATA_HOME/stampede` (by default below `~/.local/share`) for everybody else.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/stampede");
    }
    xdg_dir("XDG_DATA_HOME", ".local/share").join("stampede")
}

/// Where `deploy/provision` keeps what it fetches: `$STAMPEDE_CACHE`, by default below `$XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn cache_dir() -> PathBuf {
    match std::env::var_os("STAMPEDE_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => xdg_dir("XDG_CACHE_HOME", ".cache").join("stampede"),
    }
}

fn xdg_dir(variable: &str, below_home: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os(variable).filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from).join(below_home)
}

/// Where lines about the stack go: "kafka is up after 2.9 s".
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&str) + Send + Sync>);

impl Reporter {
    /// Says nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Writes to standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(|line| eprintln!("{line}"))
    }

    /// Hands each line (without its end) to `write`.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(crate) fn say(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
