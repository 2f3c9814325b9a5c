//! Everything that can go wrong on purpose. A new scenario is an `async fn` and a line in [`all`].
//!
//! Injecting ends when the harm is done and the way back is open: from then on the time of recovery runs. Whatever a
//! scenario leaves to chance, its dice decide, so that a seed replays it.

mod crash;
mod input;
mod kafka;
mod keys;
mod life;
mod lines;
mod log;
mod overload;
mod postgres;
mod redis;
pub(crate) mod skew;
mod tokens;
mod worker;

use futures::future::BoxFuture;

use super::dice::Dice;
use super::field::{Field, Trouble};

/// Does the harm. An error says that it could not be done, and nothing about Stampede.
pub type Inject = for<'a> fn(&'a Field, &'a mut Dice) -> BoxFuture<'a, Result<(), Trouble>>;

/// Something that can go wrong on purpose.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is called, in lists and figures.
    pub name: &'static str,
    /// Which faults of the list of faults it stands for.
    pub faults: &'static [u8],
    /// What it cannot do without.
    pub needs: &'static [Need],
    /// Does it.
    pub inject: Inject,
}

/// What a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Another worker that takes over.
    TwoWorkers,
    /// Another instance to go to.
    TwoApis,
    /// Programs that were built with the feature `crash-points`.
    CrashPoints,
    /// A C compiler.
    Compiler,
}

impl Need {
    /// Why it cannot be had, if so. Whether programs have crash points shows only when they do not crash.
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
        /// All scenarios there are.
        #[must_use]
        pub fn all() -> Vec<Scenario> {
            vec![$(Scenario {
                name: $name,
                faults: &[$($fault),*],
                needs: &[$(Need::$need),*],
                inject: |field, dice| Box::pin($inject(field, dice)),
            }),*]
        }
    };
}

scenarios! {
    "kill-worker" [1, 2, 3] (TwoWorkers) worker::kill;
    "lose-worker" [1, 2, 3] (TwoWorkers) worker::lose;
    "kill-all-workers" [1, 2, 3] () worker::kill_all;
    "freeze-worker" [4] (TwoWorkers) worker::freeze;
    "freeze-in-mid-write" [5] (TwoWorkers) worker::freeze_in_mid_write;
    "rebalance-storm" [6] (TwoWorkers) worker::storm;
    "slow-worker" [7] (TwoWorkers) worker::slow;
    "rolling-restart" [48] () worker::rolling_restart;
    "late-takeover" [51] () worker::late_takeover;
    "skewed-clocks" [41] (Compiler) skew::skew_clocks;
    "crash-before-telling" [1, 27] (CrashPoints) crash::before_the_write;
    "crash-while-telling" [2, 3] (CrashPoints) crash::after_the_write;
    "crash-at-takeover" [1, 51] (CrashPoints) crash::at_takeover;
    "crash-at-leaving" [48] (CrashPoints) crash::at_leaving;
    "crash-api" [47] (CrashPoints, TwoApis) crash::api;
    "crash-api-at-loading" [47] (CrashPoints, TwoApis) crash::api_at_loading;
    "kill-api" [47] (TwoApis) worker::kill_api;
    "kill-broker" [8] () kafka::kill;
    "freeze-broker" [9, 10] () kafka::freeze;
    "delete-group" [11] () kafka::delete_group;
    "group-ahead" [11] () kafka::commit_ahead;
    "lost-acknowledgements" [9] () lines::lost_acknowledgements;
    "bad-line-to-kafka" [8, 9] () lines::bad_line_to_kafka;
    "foreign-producer" [15, 30, 31] () log::foreign_producer;
    "newer-schema" [49] () log::newer_schema;
    "postgres-immediate" [16] () postgres::immediate;
    "kill-postgres" [16] () postgres::kill;
    "freeze-postgres" [17] () postgres::freeze;
    "cut-connections" [17] () postgres::cut_connections;
    "lost-commits" [17] () lines::lost_commits;
    "bad-line-to-postgres" [17, 20] () lines::bad_line_to_postgres;
    "row-lock" [19] () postgres::lock_rows;
    "connections-exhausted" [20] () postgres::exhaust_connections;
    "failing-batches" [50] () postgres::fail_batches;
    "flush-redis" [22] () redis::flush;
    "kill-redis" [23] () redis::kill;
    "redis-evicts" [24] () redis::evict;
    "lists-in-disorder" [25] () redis::disorder;
    "freeze-redis" [26] () redis::freeze;
    "lost-pops" [26] () lines::lost_pops;
    "bad-line-to-redis" [23, 26] () lines::bad_line_to_redis;
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
    "somebody-elses-code" [38] () life::somebody_elses_code;
    "redeem-out-of-turn" [39] () life::redeem_out_of_turn;
    "backlog" [42] () overload::backlog;
    "sold-out-crowd" [43] () overload::sold_out_crowd;
    "hot-coupon" [44] () overload::hot_coupon;
    "no-room" [10] () overload::no_room;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_stands_for_a_fault() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len());
        for scenario in all {
            assert!(!scenario.faults.is_empty(), "{}", scenario.name);
            assert!(scenario.faults.iter().all(|fault| (1..=51).contains(fault)), "{}", scenario.name);
            let plain = scenario.name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(plain, "{}", scenario.name);
        }
    }

    #[test]
    fn the_readme_says_of_every_scenario_and_every_fault_where_it_is() {
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
    fn what_cannot_be_had_is_said() {
        assert_eq!(Need::TwoWorkers.missing(1, 2), Some("needs two workers"));
        assert_eq!(Need::TwoWorkers.missing(2, 1), None);
        assert_eq!(Need::TwoApis.missing(2, 1), Some("needs two APIs"));
    }
}
