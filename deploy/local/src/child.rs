//! The names of the stack's processes, and where they listen.

use std::fmt;

/// One process of the stack. Indices start at 0; displayed as `kafka`, `kafka-1`, `api-0`, `worker-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Child {
    /// The first broker (and KRaft controller).
    Kafka,
    /// Another broker, from 1.
    Broker(usize),
    /// The stock.
    Redis,
    /// The ledger; means the postmaster and with it all its backends.
    Postgres,
    /// An `ingest-api`.
    Api(usize),
    /// A `workers` process.
    Worker(usize),
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka => f.write_str("kafka"),
            Self::Broker(index) => write!(f, "kafka-{index}"),
            Self::Redis => f.write_str("redis"),
            Self::Postgres => f.write_str("postgres"),
            Self::Api(index) => write!(f, "api-{index}"),
            Self::Worker(index) => write!(f, "worker-{index}"),
        }
    }
}

/// Where everything listens. URLs have no slash at their end, but for Redis' and Postgres' own forms.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Bootstrap addresses, `127.0.0.1:port`, with commas.
    pub kafka: String,
    /// URL of the database `stampede`, as superuser.
    pub postgres_url: String,
    /// `redis://127.0.0.1:port/`.
    pub redis_url: String,
    /// Base URL of each `ingest-api`, by index.
    pub apis: Vec<String>,
    /// Base URL of each `ingest-api`'s probes: `/healthz`, `/readyz`, `/metrics`.
    pub api_probes: Vec<String>,
    /// Base URL of each worker's probes.
    pub worker_probes: Vec<String>,
}
