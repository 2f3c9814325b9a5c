//! Why there is no figure.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use checker::{CheckError, Report};
use local_stack::StackError;
use rdkafka::error::KafkaError;
use schemas::EncodeError;
use thiserror::Error;

use crate::results::readme_plot::ReadmePlotError;

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The name of no arm.
    #[error("no such arm: {name:?}; the arms are {known}")]
    UnknownArm {
        /// The given name.
        name: String,
        /// What there is.
        known: String,
    },
    /// The servers.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The data directory is in memory.
    #[error("{} lies on {name}, where nothing is durable; set TMPDIR to a directory on a disk", path.display())]
    InMemory {
        /// The data directory.
        path: PathBuf,
        /// The file system.
        name: &'static str,
    },
    /// A commit is not durable.
    #[error("Postgres has {name} = {value}: figures are meaningless with that setting")]
    NotDurable {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Postgres refuses.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Redis refuses.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// A partition changed its owner during a measurement.
    #[error("a partition changed its owner during the measurement; the figure is void")]
    Moved,
    /// Kafka refuses.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// A request cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A wrong count.
    #[error("{what}: found {found}, expected {wanted}; the figure is void")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there should be.
        wanted: u64,
        /// How many there are.
        found: i64,
    },
    /// An expected event did not happen in time.
    #[error("{what} within {} s", after.as_secs())]
    Stuck {
        /// What.
        what: &'static str,
        /// For how long it was waited for.
        after: Duration,
    },
    /// The worker makes no progress, or has ended.
    #[error("the worker stopped at {published} of {requests} requests; its last line was \"{last_line}\"")]
    Stopped {
        /// Responses until then.
        published: u64,
        /// Requests there were.
        requests: u64,
        /// Last line of its log.
        last_line: String,
    },
    /// Responses that there should not be.
    #[error("unexpected responses: {found}; the figure is void")]
    Responses {
        /// What there was.
        found: String,
    },
    /// A token cannot be signed.
    #[error("a token cannot be signed: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The checker could not check.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// An invariant is violated.
    #[error("an invariant is violated; the figure is void\n{0}")]
    Broken(Box<Report>),
    /// The plot of the README.
    #[error(transparent)]
    Plot(#[from] ReadmePlotError),
    /// A task was lost.
    #[error("a task of the benchmark was lost")]
    Lost,
    /// Reading /proc, or printing.
    #[error(transparent)]
    Io(#[from] io::Error),
}
