//! The names of the stack's processes.

use std::fmt;

/// A process of the stack. Indices start at 0; displayed as `kafka`, `kafka-1`, `api-0`, `worker-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Child {
    /// The first broker (and KRaft controller).
    Kafka,
    /// Another broker, from 1.
    Broker(usize),
    /// Redis.
    Redis,
    /// The Postgres postmaster, with all its backends.
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
