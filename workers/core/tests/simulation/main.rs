//! The seeded simulation: one partition's machine against log, stock and ledger in memory, which fail in every
//! way that the real ones can. Each seed plays at least 200 records and three crashes; safety is checked at every
//! step, what was promised once everything is at rest. A seed that fails is printed with the command that plays it
//! again and prints its trace.
//!
//! Reading order: [`world`] and [`schedule`] (what happens), [`owner`], [`perform`] and [`loading`] (calls and
//! answers), [`ledger`], [`redis`], [`log`], [`broker`] (what is there), [`reference`], [`checks`], [`quiet`],
//! [`settled`] (what must be true), [`plan`], [`setup`], [`early`], [`traffic`] (where a run comes from), [`coverage`]
//! (whether it went there).

mod broker;
mod checks;
mod coverage;
mod early;
mod ledger;
mod loading;
mod log;
mod owner;
mod perform;
mod plan;
#[cfg(feature = "planted-bugs")]
mod planted;
mod quiet;
mod redis;
mod reference;
mod rng;
mod schedule;
mod settled;
mod setup;
mod traffic;
mod world;

use coverage::Coverage;
use plan::{Flaw, Setup};
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

/// How many seeds find a planted mistake, at most.
const FOUND_WITHIN: u64 = 1_000;
/// In so many seeds, everything is seen so often at least.
const COVERING_SEEDS: u64 = 500;
const LEAST_COVERED: u64 = 10;

/// One whole run. A panic of the machine is a broken promise like any other.
fn play(setup: Setup) -> Result<(), String> {
    let run = std::panic::AssertUnwindSafe(|| World::new(setup).run());
    std::panic::catch_unwind(run).unwrap_or_else(|_| Err("the machine panicked".into()))
}

/// Plays seeds from 1 on all processors; the lowest one that failed, and what it broke.
fn first_failure(seeds: u64, setup_of: impl Fn(u64) -> Setup + Sync) -> Option<(u64, String)> {
    let (next, lowest) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let search = || {
            let mut found = None;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > seeds || seed > lowest.load(Ordering::Relaxed) {
                    return found;
                }
                if let Err(broken) = play(setup_of(seed)) {
                    lowest.fetch_min(seed, Ordering::Relaxed);
                    found = found.or(Some((seed, broken)));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let found = workers.into_iter().filter_map(|worker| worker.join().expect("panics are caught"));
        found.min_by_key(|(seed, _)| *seed)
    })
}

#[expect(clippy::disallowed_methods, reason = "the tests are told by their environment what to play")]
fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a seed, or a number of seeds, is a whole number"))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "only to say how long it took: no run knows the time")]
fn ten_thousand_seeds_keep_every_invariant() {
    let seeds = number_from_env("STAMPEDE_SEEDS").unwrap_or(10_000);
    let started = std::time::Instant::now();
    let failure = first_failure(seeds, Setup::of);
    println!("{seeds} seeds in {:.1} s", started.elapsed().as_secs_f64());
    if let Some((seed, broken)) = failure {
        println!("seed {seed} breaks {broken}");
        println!("STAMPEDE_SEED={seed} cargo test -p coupon-core --test simulation -- replay --nocapture");
        assert_eq!(seed, 0, "an invariant is broken: {broken}");
    }
}

/// A run that goes nowhere proves nothing: every transition and every reason is played, and not by accident.
#[test]
fn every_transition_and_every_reason_is_played() {
    let mut coverage = Coverage::default();
    for seed in 1..=COVERING_SEEDS {
        let mut world = World::new(Setup::of(seed));
        assert_eq!(world.run(), Ok(()), "seed {seed}");
        coverage.add(&world.reference.coverage);
    }
    coverage.seen.iter().for_each(|(what, times)| println!("{times:8} {what}"));
    coverage.reasons.iter().for_each(|((kind, reason), times)| println!("{times:8} {kind} {reason}"));
    assert_eq!(coverage.missing(LEAST_COVERED), Vec::<String>::new());
}

/// Plays many seeds and sorts what they break; for work on the machine.
#[test]
fn survey() {
    let Some(seeds) = number_from_env("STAMPEDE_SURVEY") else { return };
    let mut kinds = std::collections::BTreeMap::<String, (u64, u64)>::new();
    for seed in 1..=seeds {
        if let Err(broken) = play(Setup::of(seed)) {
            let kind = broken.chars().filter(|c| !c.is_ascii_digit()).take(55).collect();
            kinds.entry(kind).or_insert((0, seed)).0 += 1;
        }
    }
    kinds.iter().for_each(|(kind, (times, first))| println!("{times:6} first {first:6}: {kind}"));
}

/// Plays one seed again and prints what happens in it.
#[test]
fn replay() {
    let Some(seed) = number_from_env("STAMPEDE_SEED") else { return };
    let mut world = World::new(Setup { traced: true, ..Setup::of(seed) });
    println!("{:?}\n{:?}", world.plan, world.config);
    let result = world.run();
    world.trace.iter().flatten().for_each(|line| println!("{line}"));
    assert_eq!(result, Ok(()), "seed {seed}");
}

#[test]
fn the_same_seed_plays_the_same_run() {
    for seed in 1..=100 {
        let trace = || {
            let mut world = World::new(Setup { traced: true, ..Setup::of(seed) });
            let result = world.run();
            (world.trace, result)
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

/// A mistake is found by a seed that breaks something with it, and nothing without it.
fn assert_found(what: &str, setup_of: impl Fn(u64) -> Setup) {
    let breaks = |seed| play(setup_of(seed)).err().filter(|_| play(Setup::of(seed)).is_ok());
    let found = (1..=FOUND_WITHIN).find_map(|seed| Some((seed, breaks(seed)?)));
    let (seed, broken) = found.expect("the mistake was not found");
    println!("{what}: found by seed {seed}: {broken}");
}

#[test]
fn a_ledger_that_ignores_the_fence_is_found_out() {
    assert_found("fence ignored", |seed| Setup { flaw: Flaw::FenceIgnored, ..Setup::of(seed) });
}

#[test]
fn a_ledger_that_does_not_count_its_writes_is_found_out() {
    assert_found("write number not counted", |seed| Setup {
        flaw: Flaw::WriteNumberNotCounted,
        ..Setup::of(seed)
    });
}
