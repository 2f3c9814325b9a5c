//! Which seeds run: their number, the search for the first failing one on all processors, and the search for a bug.

use crate::checks::final_state;
use crate::plan::RunConfig;
use crate::run::Run;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of seeds, unless `STAMPEDE_SEEDS` is set.
const DEFAULT_SEEDS: u64 = 2_500;
/// Every planted bug is found within this many seeds. Few need more than one: `STAMPEDE_SURVEY` prints the rates.
const MAX_SEEDS_TO_FIND_A_BUG: u64 = 500;
const _: () = assert!(MAX_SEEDS_TO_FIND_A_BUG <= DEFAULT_SEEDS);

/// The number of seeds to run.
pub(crate) fn number() -> u64 {
    from_env("STAMPEDE_SEEDS").unwrap_or(DEFAULT_SEEDS)
}

#[expect(clippy::disallowed_methods, reason = "the number of seeds is a parameter of the test run")]
pub(crate) fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a seed, or a number of seeds, is a whole number"))
}

/// Prints a line to stderr even if the test passes: the test harness captures the output of `println!`.
pub(crate) fn report(line: &str) {
    let _closed_stderr = writeln!(std::io::stderr(), "{line}");
}

/// One whole run with its final check. A panic of the machine is a violation.
pub(crate) fn play(config: RunConfig) -> Result<(), String> {
    let run = std::panic::AssertUnwindSafe(|| {
        let mut run = Run::new(config);
        run.play()?;
        final_state::check(&run.environment, &run.reference, run.crashes)
    });
    std::panic::catch_unwind(run).unwrap_or_else(|_| Err("the machine panicked".into()))
}

/// Plays seeds from 1 on all processors. Returns the lowest failing seed and its violation.
pub(crate) fn first_failure(
    seeds: u64,
    config_of: impl Fn(u64) -> RunConfig + Sync,
) -> Option<(u64, String)> {
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
                if let Err(violation) = play(config_of(seed)) {
                    lowest.fetch_min(seed, Ordering::Relaxed);
                    found = found.or(Some((seed, violation)));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let found = workers.into_iter().filter_map(|worker| worker.join().expect("panics are caught"));
        found.min_by_key(|(seed, _)| *seed)
    })
}

/// Asserts that a bug is found: some seed fails with it and passes without it.
pub(crate) fn assert_found(bug: &str, config_of: impl Fn(u64) -> RunConfig) {
    let violation = |seed| play(config_of(seed)).err().filter(|_| play(RunConfig::new(seed)).is_ok());
    let found = (1..=MAX_SEEDS_TO_FIND_A_BUG).find_map(|seed| Some((seed, violation(seed)?)));
    let (seed, violation) = found.expect("no seed finds the bug");
    println!("{bug}: found by seed {seed}: {violation}");
}
