//! Ownership of partitions: everything between the consumer group's assignment and the state machine of the core.
//!
//! Reading order: [`assignments`] runs one task per assigned partition; [`partition_owner`] is that task, one ownership
//! after another; [`driver`] is the loop of one ownership, with [`write_task`] beside it for calls that change the
//! ledger, and [`cache_lists`] to know which lists it created in Redis. [`status`] holds the status of every partition
//! for readiness and metrics, with its [`progress`]; [`stalls`] finds partitions whose records wait without progress.

pub mod assignments;
mod cache_lists;
pub mod driver;
mod partition_owner;
mod progress;
pub mod stalls;
pub mod status;
mod write_task;
