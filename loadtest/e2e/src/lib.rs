//! End-to-end tests: the real stack (Kafka, Redis, Postgres, our programs), through the public API. Every test ends
//! with the checker.
//!
//! The tests are four targets, by what they do to a stack:
//!
//! - `tests/shared`: tests that inject no fault. They share one stack and run side by side; each asserts what it
//!   received itself, and the checker reads everything once, after the last of them.
//! - `tests/faults`: tests that injure a stack. A test has a stack to itself, and the checker reads it when the test
//!   ends; healed, the stack is used again by the next test of its kind.
//! - `tests/checker`: the checker finds planted violations, in fixtures without workers.
//! - `tests/programs`: the command-line programs: repairs, dead letters, benchmark, fault runs.
//!
//! Reading order: [`stacks`] (which stack a test gets), [`environment`] (a test's view of it: coupons, users, counters,
//! the final check), [`request`] (one request of a client), [`outcome`] (requests until they are decided),
//! [`coupon`] (where the codes of a coupon are visible), [`claimants`] and [`mixed_load`] (many users at a time),
//! [`kafka`] and [`foreign_producer`] (records that the API did not write), [`operator`] and [`verify`] (commands), [`wait`],
//! [`group`] (the runner of `tests/shared`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

pub mod claimants;
pub mod coupon;
pub mod environment;
pub mod foreign_producer;
pub mod group;
#[expect(clippy::disallowed_types, reason = "a few records at a time: throughput does not matter")]
pub mod kafka;
pub mod mixed_load;
pub mod operator;
pub mod outcome;
pub mod request;
pub mod stacks;
pub mod verify;
pub mod wait;

pub use checker::ApiResponse;
pub use claimants::Claimants;
pub use coupon::Coupon;
pub use environment::Environment;
pub use load_support::orders;
pub use request::{Reply, Request};
pub use stacks::StackKind;
pub use stampede_client::transport::{HttpRequest, Method, header, path_segment};
pub use stampede_client::{Operation, Order};
