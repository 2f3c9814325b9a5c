//! The real stack on one machine: Kafka (KRaft), Redis, Postgres, `ingest-api` and `workers` as child processes.
//!
//! The launcher behind `deploy/run` and every integration test use this crate. It guarantees:
//! - [`Stack::start`] returns a healthy stack within a bounded time, or a one-line error with the reason;
//! - a child that is started again keeps its port and its data;
//! - no child outlives the launcher: not after an orderly stop, not after a panic, not after SIGKILL.
//!
//! Reading order: [`config`] (what a stack consists of), `stack` (start and stop; within it `control` injects faults,
//! `supervisor` restarts children, `proxies` opens the proxies), `servers` (one file per server, `stampede` for our own
//! two programs), `proxy` (network faults), `context` (what children are launched from), then `process` (spawning,
//! signals, exits, clean-up), `programs` (finding and building executables), `data` (directory, ports, secrets).
//! [`testing`] shares one stack within a test binary.

pub mod config;
pub mod testing;

mod child;
mod context;
mod data;
mod endpoints;
mod error;
mod process;
mod programs;
mod proxy;
mod servers;
mod stack;

pub use child::Child;
pub use config::{Reporter, StackConfig};
pub use data::default_data_dir;
pub use endpoints::Endpoints;
pub use error::StackError;
pub use process::shutdown_signal;
pub use programs::{Profile, Programs, cargo_build};
pub use proxy::{ProxiedLink, Proxy};
pub use servers::{Admin, can_mount};
pub use stack::{Stack, Supervisor};
