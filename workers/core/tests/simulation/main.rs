//! The seeded simulation: the machine of one partition, against log, ledger, Redis and broker in memory, with every fault
//! that the real services can have. Each run has at least 200 records and three crashes. Safety is checked at every
//! step; liveness and completeness are checked once the run is quiescent. A failing seed is printed with the command
//! that replays it and prints its trace.
//!
//! `STAMPEDE_SEEDS` sets the number of seeds. The test prints the number that ran.
//!
//! Reading order:
//! 1. [`seeds`]: which seeds run. [`plan`]: what a seed decides. [`rng`]: its random numbers.
//! 2. [`run`]: one run, from the first record to the last deadline. [`owner`]: one machine, as its driver sees it.
//! 3. [`environment`]: the services. [`initial_state`]: their contents before the run. [`traffic`]: new records.
//! 4. [`reference`]: the sequential model with which every batch is compared. [`checks`]: the other invariants.
//! 5. [`coverage`]: what the runs have covered. [`planted_bugs`]: bugs that the simulation must find.

mod checks;
mod coverage;
mod environment;
mod initial_state;
mod owner;
mod plan;
mod planted_bugs;
mod reference;
mod rng;
mod run;
mod seeds;
mod traffic;

use coverage::Coverage;
use plan::RunConfig;
use run::Run;

/// In this many seeds, everything must occur at least this often.
const COVERING_SEEDS: u64 = 500;
const MIN_COVERED: u64 = 10;
const REPEATED_SEEDS: u64 = 100;

#[test]
#[expect(clippy::disallowed_methods, reason = "measures the duration of the test; no run reads the clock")]
fn every_seed_keeps_every_invariant() {
    let seeds = seeds::number();
    let started = std::time::Instant::now();
    let failure = seeds::first_failure(seeds, RunConfig::new);
    seeds::report(&format!("simulation: {seeds} seeds in {:.1} s", started.elapsed().as_secs_f64()));
    if let Some((seed, violation)) = failure {
        println!("seed {seed} violates {violation}");
        println!("STAMPEDE_SEED={seed} cargo test -p coupon-core --test simulation -- replay --nocapture");
        assert_eq!(seed, 0, "an invariant is violated: {violation}");
    }
}

/// Runs that cover little prove little.
#[test]
fn every_transition_and_every_reason_occurs() {
    let mut coverage = Coverage::default();
    for seed in 1..=COVERING_SEEDS {
        let mut run = Run::new(RunConfig::new(seed));
        assert_eq!(run.play(), Ok(()), "seed {seed}");
        coverage.add(&run.reference.coverage);
    }
    coverage.labels.iter().for_each(|(label, times)| println!("{times:8} {label}"));
    coverage.reasons.iter().for_each(|((kind, reason), times)| println!("{times:8} {kind} {reason}"));
    assert_eq!(coverage.missing(MIN_COVERED), Vec::<String>::new());
}

/// For work on the machine: plays `STAMPEDE_SURVEY` seeds and groups their violations.
#[test]
fn survey() {
    let Some(seeds) = seeds::from_env("STAMPEDE_SURVEY") else { return };
    let mut groups = std::collections::BTreeMap::<String, (u64, u64)>::new();
    for seed in 1..=seeds {
        if let Err(violation) = seeds::play(RunConfig::new(seed)) {
            let group = violation.chars().filter(|c| !c.is_ascii_digit()).take(55).collect();
            groups.entry(group).or_insert((0, seed)).0 += 1;
        }
    }
    groups.iter().for_each(|(group, (times, first))| println!("{times:6} first {first:6}: {group}"));
}

/// Replays the seed `STAMPEDE_SEED` and prints its trace.
#[test]
fn replay() {
    let Some(seed) = seeds::from_env("STAMPEDE_SEED") else { return };
    let mut run = Run::new(RunConfig { traced: true, ..RunConfig::new(seed) });
    println!("{:?}\n{:?}", run.plan, run.config);
    let result = run.play();
    run.trace.iter().flatten().for_each(|line| println!("{line}"));
    let result =
        result.and_then(|()| checks::final_state::check(&run.environment, &run.reference, run.crashes));
    assert_eq!(result, Ok(()), "seed {seed}");
}

#[test]
fn the_same_seed_plays_the_same_run() {
    for seed in 1..=REPEATED_SEEDS {
        let trace = || {
            let mut run = Run::new(RunConfig { traced: true, ..RunConfig::new(seed) });
            run.record();
            let result = run.play();
            (run.trace, run.recorded, result)
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
