//! The faults that a run injects. A new scenario is an `async fn` and a line in [`all`].
//!
//! A scenario returns when the fault has been applied and nothing prevents recovery any more: recovery time counts from
//! then on. All random choices come from its generator, so that a seed replays it.

mod crash;
mod foreign_producer;
mod input;
mod kafka;
mod keys;
mod links;
mod misuse;
mod overload;
mod postgres;
mod redis;
pub(crate) mod skew;
mod tokens;
mod worker;

use futures::future::BoxFuture;

use super::environment::{Environment, FaultError};
use super::rng::Rng;

/// Injects the fault. An error means that the fault could not be injected; it is no finding about Stampede.
pub type Inject = for<'a> fn(&'a Environment, &'a mut Rng) -> BoxFuture<'a, Result<(), FaultError>>;

/// A fault that can be injected.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name in lists and figures.
    pub name: &'static str,
    /// The numbers of the faults that it covers, in the table of loadtest/README.md.
    pub faults: &'static [u8],
    /// What it requires.
    pub needs: &'static [Need],
    /// The injection.
    pub inject: Inject,
}

/// A requirement of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A second worker that can take over.
    TwoWorkers,
    /// A second API instance for the clients.
    TwoApis,
    /// Programs built with the feature `crash-points`.
    CrashPoints,
    /// A C compiler.
    Compiler,
}

impl Need {
    /// Why the requirement is not met; `None` if it is. Missing crash points show only when no crash happens.
    #[must_use]
    pub fn missing(self, workers: usize, apis: usize) -> Option<&'static str> {
        match self {
            Self::TwoWorkers if workers < 2 => Some("needs two workers"),
            Self::TwoApis if apis < 2 => Some("needs two APIs"),
            Self::Compiler if !skew::has_compiler() => Some("needs a C compiler (cc)"),
            _ => None,
        }
    }
}

macro_rules! scenarios {
    ($($name:literal [$($fault:literal),*] ($($need:ident),*) $inject:path;)*) => {
        /// All scenarios.
        #[must_use]
        pub fn all() -> Vec<Scenario> {
            vec![$(Scenario {
                name: $name,
                faults: &[$($fault),*],
                needs: &[$(Need::$need),*],
                inject: |env, rng| Box::pin($inject(env, rng)),
            }),*]
        }
    };
}

scenarios! {
    "kill-worker" [1, 2, 3] (TwoWorkers) worker::kill;
    "remove-worker" [1, 2, 3] (TwoWorkers) worker::remove;
    "kill-all-workers" [1, 2, 3] () worker::kill_all;
    "freeze-worker" [4] (TwoWorkers) worker::freeze;
    "freeze-in-mid-write" [5] (TwoWorkers) worker::freeze_in_mid_write;
    "rebalance-storm" [6] (TwoWorkers) worker::storm;
    "slow-worker" [7] (TwoWorkers) worker::slow;
    "rolling-restart" [48] () worker::rolling_restart;
    "late-takeover" [51] () worker::late_takeover;
    "skewed-clocks" [41] (Compiler) skew::skew_clocks;
    "crash-before-publishing" [1, 27] (CrashPoints) crash::before_the_write;
    "crash-while-publishing" [2, 3] (CrashPoints) crash::after_the_write;
    "crash-at-takeover" [1, 51] (CrashPoints) crash::at_takeover;
    "crash-at-hand-over" [48] (CrashPoints) crash::at_hand_over;
    "crash-api" [47] (CrashPoints, TwoApis) crash::api;
    "crash-api-while-loading" [47] (CrashPoints, TwoApis) crash::api_while_loading;
    "kill-api" [47] (TwoApis) worker::kill_api;
    "kill-broker" [8] () kafka::kill;
    "freeze-broker" [9, 10] () kafka::freeze;
    "delete-group" [11] () kafka::delete_group;
    "group-ahead" [11] () kafka::commit_ahead;
    "lost-acknowledgements" [9] () links::lost_acknowledgements;
    "bad-link-to-kafka" [8, 9] () links::bad_link_to_kafka;
    "foreign-producer" [15, 30, 31] () foreign_producer::foreign_records;
    "newer-schema" [49] () foreign_producer::newer_schema;
    "postgres-immediate" [16] () postgres::immediate;
    "kill-postgres" [16] () postgres::kill;
    "freeze-postgres" [17] () postgres::freeze;
    "cut-connections" [17] () postgres::cut_connections;
    "lost-commits" [17] () links::lost_commits;
    "bad-link-to-postgres" [17, 20] () links::bad_link_to_postgres;
    "row-lock" [19] () postgres::lock_rows;
    "connections-exhausted" [20] () postgres::exhaust_connections;
    "failing-batches" [50] () postgres::fail_batches;
    "flush-redis" [22] () redis::flush;
    "kill-redis" [23] () redis::kill;
    "redis-evicts" [24] () redis::evict;
    "corrupted-lists" [25] () redis::corrupt_lists;
    "freeze-redis" [26] () redis::freeze;
    "lost-pops" [26] () links::lost_pops;
    "bad-link-to-redis" [23, 26] () links::bad_link_to_redis;
    "foreign-pops" [28] () redis::pop;
    "wrong-types" [29] () redis::wrong_types;
    "hostile-text" [30] () input::hostile_text;
    "huge-body" [32] () input::huge_body;
    "deep-json" [33] () input::deep_json;
    "odd-amounts" [37] () input::odd_amounts;
    "bad-tokens" [40] () tokens::bad_tokens;
    "key-other-body" [34] () keys::with_another_body;
    "key-a-hundred-times" [35] () keys::a_hundred_times;
    "key-on-two-coupons" [36] () keys::on_two_coupons;
    "code-of-another-user" [38] () misuse::code_of_another_user;
    "redeem-out-of-order" [39] () misuse::redeem_out_of_order;
    "backlog" [42] () overload::backlog;
    "sold-out-claims" [43] () overload::claims_of_a_sold_out_coupon;
    "hot-coupon" [44] () overload::hot_coupon;
    "admission-limit" [10] () overload::admission_limit;
    "black-hole" [52] () links::black_hole;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_has_a_unique_name_and_covers_a_fault() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len());
        for scenario in all {
            assert!(!scenario.faults.is_empty(), "{}", scenario.name);
            assert!(scenario.faults.iter().all(|fault| (1..=62).contains(fault)), "{}", scenario.name);
            let plain = scenario.name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(plain, "{}", scenario.name);
        }
    }

    #[test]
    fn the_readme_lists_every_scenario_and_every_fault() {
        let readme = include_str!("../../../README.md");
        let (_, readme) = readme.split_once("### Which fault is where").expect("the table is there");
        for scenario in all() {
            let name = format!("`{}`", scenario.name);
            for fault in scenario.faults {
                let row = readme.lines().find(|line| line.starts_with(&format!("| {fault} |")));
                assert!(
                    row.is_some_and(|row| row.contains(&name)),
                    "{name} is not in the row of fault {fault}"
                );
            }
        }
        for fault in 1..=51 {
            assert!(readme.contains(&format!("\n| {fault} |")), "fault {fault} has no row");
        }
    }

    #[test]
    fn a_requirement_that_is_not_met_is_named() {
        assert_eq!(Need::TwoWorkers.missing(1, 2), Some("needs two workers"));
        assert_eq!(Need::TwoWorkers.missing(2, 1), None);
        assert_eq!(Need::TwoApis.missing(2, 1), Some("needs two APIs"));
    }
}
