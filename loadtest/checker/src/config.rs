//! What a check reads, and what it expects.

use local_stack::Endpoints;

/// The default consumer group of the workers.
pub const WORKERS: &str = "stampede-workers";

/// The sources of a check, and whether the stack is expected to be settled.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// Bootstrap servers.
    pub kafka: String,
    /// Connects as a user that may read the schema `stampede`.
    pub postgres_url: String,
    /// The server of the cache lists; `None`: they are not read.
    pub redis_url: Option<String>,
    /// The workers' consumer group.
    pub group: String,
    /// Base URLs of the workers' probe ports; may be empty.
    pub worker_probes: Vec<String>,
    /// Base URLs of the APIs' probe ports; may be empty.
    pub api_probes: Vec<String>,
    /// Whether unfinished work is a violation: every record is consumed, every outcome published.
    pub settled: bool,
}

impl CheckConfig {
    /// A stack that has no work left.
    #[must_use]
    pub fn settled(endpoints: &Endpoints) -> Self {
        Self {
            kafka: endpoints.kafka.clone(),
            postgres_url: endpoints.postgres_url.clone(),
            redis_url: Some(endpoints.redis_url.clone()),
            group: WORKERS.to_owned(),
            worker_probes: endpoints.worker_probes.clone(),
            api_probes: endpoints.api_probes.clone(),
            settled: true,
        }
    }

    /// A stack under load.
    #[must_use]
    pub fn running(endpoints: &Endpoints) -> Self {
        Self { settled: false, ..Self::settled(endpoints) }
    }
}
