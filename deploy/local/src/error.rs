//! The errors of this crate. Every message is one line: what happened, and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use crate::child::Child;

/// An error of the stack. `Display` is one line with the event and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Another process listens on the configured port of the API.
    #[error("port {port} is taken: stop what listens there, or choose another one with --port")]
    PortTaken {
        /// The configured port.
        port: u16,
    },
    /// There is no free port below the range of outgoing connections.
    #[error("no free TCP port found on 127.0.0.1: stop some servers on this machine")]
    NoFreePort,
    /// A program or one of its files is missing on this machine, or too old.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// The missing program or file.
        what: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// Another launcher uses the data directory.
    #[error("{} is in use by another stack: stop that one, or choose another data directory", .0.display())]
    InUse(PathBuf),
    /// The directory has other files: it is not touched.
    #[error("{} holds files that are not Stampede's: choose another data directory, or an empty one", .0.display())]
    NotOurs(PathBuf),
    /// Postgres never runs as root, and the user that runs it cannot reach its data.
    #[error("user {user} cannot reach {}: choose a data directory that this user can reach", dir.display())]
    Unreachable {
        /// The data directory.
        dir: PathBuf,
        /// The user that runs Postgres.
        user: String,
    },
    /// The data directory was created by another major version of Postgres.
    #[error(
        "the data was created by PostgreSQL {created_by}, but {installed} is installed: delete it with --fresh"
    )]
    OtherVersion {
        /// Version in the data directory.
        created_by: String,
        /// Version of the executables.
        installed: String,
    },
    /// A file or process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with the path.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A child exited, or was not healthy in time.
    #[error("{child} did not come up: {reason}; its last line was \"{last_line}\" (log: {})", log.display())]
    DidNotComeUp {
        /// The child.
        child: Child,
        /// How it exited, or how long the start took.
        reason: String,
        /// Last line of its log since it was started.
        last_line: String,
        /// Its log.
        log: PathBuf,
    },
    /// Children did not exit within the time limit.
    #[error("{children} did not stop in time and had to be killed (logs: {})", logs.display())]
    DidNotStop {
        /// Their names.
        children: String,
        /// The directory of the logs.
        logs: PathBuf,
    },
    /// No stack was ever started in this directory.
    #[error("{} has no Stampede stack: start one with deploy/run, or set its directory with --data-dir", .0.display())]
    NoStack(PathBuf),
    /// A child did not exit in time.
    #[error("{child} is still running after {seconds:.1} s")]
    StillRuns {
        /// The child.
        child: Child,
        /// The time limit.
        seconds: f32,
    },
    /// Replicas of a partition were not in sync in time.
    #[error("the brokers are not in sync after {seconds:.1} s: check that all of them are up")]
    OutOfSync {
        /// The time limit.
        seconds: f32,
    },
    /// Kafka rejected an administrative operation.
    #[error("Kafka cannot {what}: {source}")]
    Kafka {
        /// The operation.
        what: &'static str,
        /// Its error.
        source: rdkafka::error::KafkaError,
    },
    /// The stack has no such child, or it is not running.
    #[error("{0} is not running: start it first")]
    NotRunning(Child),
    /// The stack was stopped.
    #[error("the stack has been stopped: start a new one")]
    Stopped,
    /// A helper program (initdb, Kafka's format, cargo) failed.
    #[error("{what} failed: {last_line}")]
    Tool {
        /// The helper program.
        what: &'static str,
        /// Its most relevant output line.
        last_line: String,
    },
}

impl StackError {
    /// For `map_err`: an error of an operation on a path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
