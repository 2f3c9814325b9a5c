//! The session timeout of workers, with both group protocols: workers that do not respond are replaced, and join again
//! when they resume.

#![expect(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Harness, start};
use local_stack::Child;

const BOTH_OWN: &str = "select count(distinct owner) from stampede.partitions";

async fn harness_with(protocol: &str) -> Harness {
    let environment = [("STAMPEDE_GROUP_PROTOCOL", protocol), ("STAMPEDE_SESSION_TIMEOUT_MS", "1500")];
    let harness =
        start(2, environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()).await;
    harness.until("both workers own partitions", BOTH_OWN, 2).await;
    harness
}

/// One worker is frozen beyond its session timeout and resumed; then the other one is killed.
async fn frozen_workers_are_replaced_and_join_again(mut harness: Harness) {
    harness.coupon("summer", 1_000).await;
    let mut ids = harness.claim("summer", 0..100);
    harness.settle(&ids);
    harness.stack.freeze(Child::Worker(0)).unwrap();
    ids.extend(harness.claim("summer", 100..200));
    let owned = "select count(*) from stampede.partitions where owner = 'worker-1'";
    harness.until("the other worker owns all partitions", owned, 8).await;
    harness.stack.resume(Child::Worker(0)).unwrap();
    ids.extend(harness.claim("summer", 200..300));
    harness.until("the resumed worker has joined again", BOTH_OWN, 2).await;
    harness.stack.kill(Child::Worker(1)).unwrap();
    ids.extend(harness.claim("summer", 300..400));
    let owned = "select count(*) from stampede.partitions where owner = 'worker-0'";
    harness.until("it owns all partitions after the kill", owned, 8).await;
    harness.settle(&ids);
    assert_eq!(harness.won(&ids), 400);
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_with_the_classic_protocol_is_replaced_and_joins_again() {
    frozen_workers_are_replaced_and_join_again(harness_with("classic").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_with_the_consumer_protocol_is_replaced_and_joins_again() {
    let harness = harness_with("consumer").await;
    // The client cannot read the configuration of a group; a worker logs that a broker has rejected the change.
    for worker in 0..2 {
        let log = std::fs::read_to_string(harness.stack.log_file(Child::Worker(worker))).unwrap();
        assert!(!log.contains("session timeout stays as it is"), "{log}");
    }
    frozen_workers_are_replaced_and_join_again(harness).await;
}
