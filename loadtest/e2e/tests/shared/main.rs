//! Tests that inject no fault. They share one stack and run side by side: see [`e2e::group`].
//!
//! A test sees only its own coupons and users. It does not wait for the whole stack to be idle, and it counts only
//! records and metrics that are its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::ExitCode;

use e2e::group;

mod claims;
mod foreign_requests;
mod idempotency;
mod lapses;
mod limits;
mod malformed_records;
mod money;
mod named_claims;
mod races;
mod rejections;
mod shared_codes;
mod transitions;
mod tutorial;

fn main() -> ExitCode {
    group::run(&[
        // The longest first.
        lapses::TESTS,
        rejections::TESTS,
        money::TESTS,
        claims::TESTS,
        named_claims::TESTS,
        shared_codes::TESTS,
        limits::TESTS,
        races::TESTS,
        idempotency::TESTS,
        foreign_requests::TESTS,
        malformed_records::TESTS,
        transitions::TESTS,
        tutorial::TESTS,
    ])
}
