//! Faults: processes that die or freeze, connections that fail, servers that lose data or are overloaded.
//!
//! A test has a stack to itself ([`e2e::environment::OwnStack`]). It ends with [`OwnStack::finish`], which heals the
//! stack and expects every invariant to hold.
//!
//! [`OwnStack::finish`]: e2e::environment::OwnStack::finish

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod black_holes;
mod broker_clock;
mod brokers;
mod connections;
mod consumer_group;
mod crash_points;
mod frozen_postgres;
mod full_disk;
mod overload;
mod servers;
mod slow_statements;
mod transitions;
mod workers;
