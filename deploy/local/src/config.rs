//! What a stack consists of.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::programs::Programs;
use crate::proxy::ProxiedLink;

/// Configuration of a stack. Use [`StackConfig::full`] or [`StackConfig::servers_only`] with struct update syntax.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Directory of all data and logs. `None`: a temporary directory, removed at the end in every case.
    pub data_dir: Option<PathBuf>,
    /// Deletes the data of an earlier stack in `data_dir`.
    pub fresh: bool,
    /// Our own programs. `None`: the three servers only.
    pub programs: Option<Programs>,
    /// Address the APIs listen on.
    pub api_host: IpAddr,
    /// Port of `api-0`; `None`: a free port. All other ports are free ports.
    pub api_port: Option<u16>,
    /// Number of `ingest-api` processes.
    pub api_instances: usize,
    /// Number of `workers` processes.
    pub workers: usize,
    /// Partitions of each topic; applies at the first start on a data directory only.
    pub partitions: u32,
    /// Number of Kafka brokers, each of them a controller as well; topics have as many replicas, up to three.
    pub brokers: usize,
    /// Heap of each broker in MiB.
    pub kafka_heap_mb: u32,
    /// Added to each broker's `server.properties`; overrides the defaults.
    pub kafka_properties: Vec<(String, String)>,
    /// Session timeout of consumer groups; 1 s or more.
    pub group_session_timeout: Duration,
    /// Heartbeat interval of consumer groups; 100 ms or more.
    pub group_heartbeat: Duration,
    /// Added to Postgres' settings; overrides the defaults.
    pub postgres_settings: Vec<(String, String)>,
    /// Size in MB of a separate disk for the tables of Postgres, which a test can fill; needs root. `None`: no such disk.
    pub postgres_disk_mb: Option<u32>,
    /// Added to Redis' settings (names without dashes); overrides the defaults.
    pub redis_settings: Vec<(String, String)>,
    /// Added to the environment of every `ingest-api`.
    pub api_env: Vec<(String, String)>,
    /// Added to the environment of every `workers` process.
    pub worker_env: Vec<(String, String)>,
    /// Connections between our programs and a server that pass through a proxy: see [`crate::Stack::proxy`].
    pub proxied_links: Vec<ProxiedLink>,
    /// How long each child may take to become healthy.
    pub startup_timeout: Duration,
    /// Receives messages about starts, exits and restarts.
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
            proxied_links: Vec::new(),
            startup_timeout: Duration::from_secs(300),
            report: Reporter::silent(),
        }
    }

    /// The servers, one `ingest-api` and two workers, on free ports, with temporary data.
    #[must_use]
    pub fn full(programs: Programs) -> Self {
        Self { programs: Some(programs), api_instances: 1, workers: 2, ..Self::servers_only() }
    }
}

/// Receives messages about the stack, one line each: "kafka is up after 2.9 s".
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&str) + Send + Sync>);

impl Reporter {
    /// Discards messages.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Writes messages to standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(|line| eprintln!("{line}"))
    }

    /// Passes each line (without its end) to `write`.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(crate) fn report(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
