//! Why a check returns no report.

use std::time::Duration;

use thiserror::Error;

use crate::kafka::TopicReadError;
use crate::postgres::SnapshotError;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Postgres cannot be read.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Kafka cannot be read.
    #[error(transparent)]
    Kafka(#[from] TopicReadError),
    /// Postgres cannot be checked.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The stack still has work.
    #[error("not settled after {waited:?}: {remaining}")]
    NotSettled {
        /// The time limit that has passed.
        waited: Duration,
        /// The work that remains.
        remaining: String,
    },
    /// A task of the check panicked.
    #[error("the check itself failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<rdkafka::error::KafkaError> for CheckError {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self::Kafka(error.into())
    }
}
