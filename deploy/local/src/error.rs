//! What can go wrong with the stack. Every message is one line: what happened, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::Child;

/// A failure of the stack. `Display` is one line that says what happened and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// Somebody else listens on the port the API was told to use.
    #[error("port {port} is taken: stop what listens there, or choose another one with --port")]
    PortTaken {
        /// The port asked for.
        port: u16,
    },
    /// No free port was found below the range that outgoing connections use.
    #[error("no free TCP port found on 127.0.0.1: stop some servers on this machine")]
    NoFreePort,
    /// A program or a file that comes with it is not on this machine, or too old.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Another launcher works in the same data directory.
    #[error("{} is in use by another stack: stop that one, or choose another data directory", .0.display())]
    InUse(PathBuf),
    /// The directory holds something, but nothing of ours: it is not touched.
    #[error("{} holds files that are not Stampede's: choose another data directory, or an empty one", .0.display())]
    NotOurs(PathBuf),
    /// Postgres never runs as root, and the user it runs as cannot get to its data.
    #[error("user {user} cannot reach {}: choose a data directory outside closed directories", dir.display())]
    Unreachable {
        /// The data directory.
        dir: PathBuf,
        /// The user that runs Postgres.
        user: String,
    },
    /// The data directory was made by another major version of Postgres.
    #[error("the data was made by PostgreSQL {made_by}, but {found} is installed: drop it with --fresh")]
    OtherVersion {
        /// Version in the data directory.
        made_by: String,
        /// Version of the binaries.
        found: String,
    },
    /// A file or process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A child ended, or was not healthy in time.
    #[error("{child} did not come up: {why}; its last line was \"{last_line}\" (log: {})", log.display())]
    DidNotComeUp {
        /// Which one.
        child: Child,
        /// How it ended, or how long it was waited for.
        why: String,
        /// Last line of its log since it was started.
        last_line: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// A child did not end within the time given.
    #[error("{children} did not stop in time and had to be killed (logs: {})", logs.display())]
    DidNotStop {
        /// Their names.
        children: String,
        /// Where the logs are.
        logs: PathBuf,
    },
    /// No stack was ever started in a directory.
    #[error("{} has no stack of Stampede: start one with deploy/run, or name its directory with --data-dir", .0.display())]
    NoStack(PathBuf),
    /// A child was expected to end, and did not.
    #[error("{child} still runs after {seconds:.1} s")]
    StillRuns {
        /// Which one.
        child: Child,
        /// How long it was waited for.
        seconds: f32,
    },
    /// The brokers were expected to have the same records.
    #[error("the brokers are not in sync after {seconds:.1} s: are all of them up?")]
    OutOfSync {
        /// How long it was waited for.
        seconds: f32,
    },
    /// Kafka refuses what an administrator wants.
    #[error("Kafka does not {what}: {source}")]
    Kafka {
        /// What was wanted.
        what: &'static str,
        /// Its answer.
        source: rdkafka::error::KafkaError,
    },
    /// The stack has no such child, or it does not run.
    #[error("{0} does not run: start it first")]
    NotRunning(Child),
    /// The stack was stopped already.
    #[error("the stack has been stopped: start a new one")]
    Stopped,
    /// A helper (initdb, Kafka's format, cargo) failed.
    #[error("{what} failed: {last_line}")]
    Tool {
        /// Which one.
        what: &'static str,
        /// The most telling line it wrote.
        last_line: String,
    },
}

impl StackError {
    /// For `map_err`: an operation on a path failed.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
