//! The headline run and the memory run with few claims: what they count and assert, not how fast they are.

use benchmark::headline::{HeadlineArgs, headline};
use benchmark::memory::{MemoryArgs, measure};
use load_support::progress::Console;
use local_stack::testing;

use e2e::stacks;

#[tokio::test]
async fn in_a_small_headline_run_every_code_is_given_once_and_every_attempt_has_a_response() {
    let _slot = stacks::slot().await;
    let programs = testing::programs().await.unwrap();
    let args = HeadlineArgs {
        attempts: 3_000,
        codes: 200,
        connections: 32,
        workers: 2,
        json: false,
        programs: None,
    };
    let (headline, report) = headline(&args, programs, &Console::default()).await.unwrap();
    assert!(headline.all_well, "{headline:?}\n{report}");
    assert_eq!((headline.given, headline.given_twice, headline.unanswered), (200, 0, 0));
    for process in ["api-0", "worker-0", "worker-1", "postgres", "kafka"] {
        assert!(headline.peak_mib.get(process).is_some_and(|mib| *mib > 0), "{process}: {headline:?}");
    }
}

#[tokio::test]
async fn a_small_memory_run_processes_its_backlog_within_its_limit() {
    let _slot = stacks::slot().await;
    let programs = testing::programs().await.unwrap();
    let args = MemoryArgs { codes: 20_000, backlog: 5_000, limit_mib: 512, json: false, programs: None };
    let memory = measure(&args, &programs, &Console::default()).await.unwrap();
    assert!(memory.clean && memory.peak_mib <= args.limit_mib, "{memory:?}");
    assert!(memory.idle_mib > 0 && memory.idle_mib <= memory.peak_mib, "{memory:?}");
}
