//! End-to-end tests: the real stack, through the public API, each ending with the checker.
//!
//! One after another: each has the machine and a stack to itself, so that what it sees is what it did, and the
//! checker can expect a stack with nothing left to do. Tests of one file share a stack, which is healed between
//! them, and replaced after a failure.
//!
//! Reading order: `support/` (the stack, clients, a sale under load), `forged.rs` and `checker.rs` (that
//! planted violations are seen), `verify.rs` (the checker as a program), `claims.rs`, `poison.rs`, `letters.rs`
//! (replaying it), `worker_faults.rs`, `server_faults.rs`, `front_faults.rs`, `line_faults.rs`, `group_faults.rs`,
//! `load_faults.rs`, `broker_faults.rs`, `disk_faults.rs`, `operator.rs` and `backup.rs` (clear stops and repairs); and
//! for the life of a code `life.rs` (its transitions), `lapses.rs`, `life_reasons.rs`, `life_named.rs`,
//! `life_shared.rs`, `life_limits.rs`, `money.rs`, `life_input.rs`, `life_faults.rs`, `life_crashes.rs`. Last: `bench.rs`
//! (that every arm of the benchmark runs), `headline.rs` (the large runs, small), `fire.rs` (many faults in a row).

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod backup;
mod bench;
mod broker_faults;
mod checker;
mod claims;
mod disk_faults;
mod fire;
mod forged;
mod front_faults;
mod group_faults;
mod headline;
mod lapses;
mod letters;
mod life;
mod life_crashes;
mod life_faults;
mod life_input;
mod life_limits;
mod life_named;
mod life_reasons;
mod life_shared;
mod line_faults;
mod load_faults;
mod money;
mod operator;
mod poison;
mod server_faults;
mod support;
mod verify;
mod worker_faults;
