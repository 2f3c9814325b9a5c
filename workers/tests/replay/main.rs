//! The simulation's ledger repeats what the functions in Postgres do. Here, what simulated runs did to it is repeated on
//! the real functions: every result and, at the end of a run, every row must be the same.
//!
//! The files of the simulation are included, as they are in `workers/core/tests/simulation`. [`database`]: the state
//! before a run, and the calls. [`rows`]: the rows of both sides, as text.
//!
//! `STAMPEDE_REPLAYED_SEEDS` sets the number of runs.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(dead_code, reason = "parts of the simulation are not used here")]

#[path = "../../core/tests/simulation/checks/mod.rs"]
mod checks;
#[path = "../../core/tests/simulation/coverage.rs"]
mod coverage;
mod database;
#[path = "../../core/tests/simulation/environment/mod.rs"]
mod environment;
#[path = "../../core/tests/simulation/initial_state/mod.rs"]
mod initial_state;
#[path = "../../core/tests/simulation/owner.rs"]
mod owner;
#[path = "../../core/tests/simulation/plan.rs"]
mod plan;
#[path = "../../core/tests/simulation/reference/mod.rs"]
mod reference;
#[path = "../../core/tests/simulation/rng.rs"]
mod rng;
mod rows;
#[path = "../../core/tests/simulation/run/mod.rs"]
mod run;
#[path = "../../core/tests/simulation/traffic/mod.rs"]
mod traffic;

use coupon_core::interface::WriteResult;
use database::Database;
use plan::RunConfig;
use run::Run;
use run::recorded::Recorded;

const SEEDS: u64 = 20;
const SEEDS_OF_FULL_TIER: u64 = 300;

fn seeds() -> u64 {
    let number = std::env::var("STAMPEDE_REPLAYED_SEEDS").ok().map(|text| text.parse().unwrap());
    let full = std::env::var("STAMPEDE_TIER").is_ok_and(|tier| tier == "full");
    number.unwrap_or(if full { SEEDS_OF_FULL_TIER } else { SEEDS })
}

#[tokio::test]
async fn the_functions_in_postgres_do_what_the_simulation_assumes() {
    let database = Database::new().await;
    let (mut written, mut rejected) = (0, 0);
    for seed in 1..=seeds() {
        let (calls, fenced) = replay(&database, seed).await;
        (written, rejected) = (written + calls - fenced, rejected + fenced);
    }
    println!("{} seeds, {written} batches written, {rejected} rejected", seeds());
    assert!(written > 500 && rejected > 10, "{written} written, {rejected} rejected");
}

/// Returns the number of batches, and how many of them were rejected.
async fn replay(database: &Database, seed: u64) -> (u64, u64) {
    let mut run = Run::new(RunConfig::new(seed));
    database.reset(&run.environment.ledger).await;
    run.record();
    run.play().unwrap();
    let (mut batches, mut rejected) = (0, 0);
    for (n, call) in run.recorded.take().unwrap().into_iter().enumerate() {
        match call {
            Recorded::TakeOver(nonce, row) => {
                assert_eq!(database.ledger.take_over(nonce).await.unwrap(), row, "seed {seed}, call {n}");
            }
            Recorded::Write { batch, result, coupons, loads } => {
                database.add_catalogue(&run.environment.ledger, coupons, &loads).await;
                let found = database.write(&batch).await;
                assert!(
                    is_same(&found, &result),
                    "seed {seed}, call {n}: {found:?}, not {result:?}, for {batch:?}"
                );
                batches += 1;
                rejected += u64::from(result != WriteResult::Written);
            }
        }
    }
    let (simulated, real) = (rows::of_simulation(&run.environment.ledger), rows::of_postgres(database).await);
    let missing: Vec<_> = simulated.difference(&real).collect();
    let extra: Vec<_> = real.difference(&simulated).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "seed {seed}: Postgres lacks {missing:#?} and has {extra:#?}"
    );
    (batches, rejected)
}

/// The texts of errors differ.
fn is_same(one: &WriteResult, other: &WriteResult) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}
