//! The real stack on one machine: Kafka (KRaft), Redis, Postgres, `ingest-api` and `workers` as child processes.
//!
//! The launcher behind `deploy/run` and every integration test stand on this crate. It promises:
//! - what [`Stack::start`] returns is up and healthy, within a bounded time, or there is one line that says why not;
//! - a child that is started again keeps its port and its data;
//! - nothing outlives the launcher: not after an orderly stop, not after a panic, not after SIGKILL.
//!
//! Reading order: [`config`] (what can be asked for), `stack` (start and stop), `control` (faults on purpose),
//! `supervisor` (children that die are started again), `detours` and `proxy` (lines that fail), `admin` and `disk`
//! (what else can be done to the servers), then one file per server (`kafka`, `postgres`, `redis`, `ours`),
//! and beneath them `process` (spawning, signals, exits), `directory`, `ports`, `watchdog`. [`testing`] shares one stack
//! within a test binary.

pub mod config;
pub mod testing;

mod admin;
mod cargo;
mod child;
mod control;
mod detours;
mod directory;
mod disk;
mod error;
mod found;
mod health;
mod kafka;
mod logs;
mod ours;
mod ports;
mod postgres;
mod process;
mod procfs;
mod programs;
mod proxy;
mod redis;
mod secrets;
mod signals;
mod stack;
mod supervisor;
mod watchdog;

pub use admin::Admin;
pub use cargo::{Profile, cargo_build};
pub use child::{Child, Endpoints};
pub use config::{Reporter, StackConfig, default_data_dir};
pub use detours::Detour;
pub use disk::can_mount;
pub use error::StackError;
pub use programs::Programs;
pub use proxy::Proxy;
pub use signals::interrupted;
pub use stack::Stack;
pub use supervisor::Supervisor;
