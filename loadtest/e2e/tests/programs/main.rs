//! The command-line programs, on stacks of their own: repairs and dead letters (`workers`), the checker during a sale,
//! the benchmark and the fault runs (`loadtest`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod backup;
mod bench;
mod dead_letters;
mod fire;
mod headline;
mod live_check;
mod repairs;
