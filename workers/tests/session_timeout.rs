//! The session timeout of workers, with both group protocols: workers that do not respond are replaced, and join again
//! when they resume, even if their client has failed permanently by then.

#![expect(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::{Harness, start, start_with};
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

const OWNED: [&str; 2] = [
    "select count(*) from stampede.partitions where owner = 'worker-0'",
    "select count(*) from stampede.partitions where owner = 'worker-1'",
];

/// How often a worker has replaced the client that joins the group.
fn rejoins(harness: &Harness, worker: usize) -> u32 {
    let address = harness.stack.endpoints().worker_probes[worker].replace("http://", "");
    let mut probe = TcpStream::connect(&address).unwrap();
    probe.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut metrics = String::new();
    probe.read_to_string(&mut metrics).unwrap();
    let name = "stampede_kafka_clients_recreated_total{client=\"membership\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().unwrap())
}

/// The group has room for one member. The broker rejects every other one, which librdkafka treats as a fatal error: its
/// client never joins again.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_client_has_failed_permanently_joins_again_with_a_new_one() {
    let one_member = ("group.consumer.max.size".to_owned(), "1".to_owned());
    let mut harness = start_with(2, Vec::new(), vec![one_member]).await;
    harness.coupon("summer", 1_000).await;
    let mut ids = harness.claim("summer", 0..100);
    harness.settle(&ids);
    let [member, other] = if harness.count(OWNED[0]).await > 0 { [0, 1] } else { [1, 0] };

    harness.stack.freeze(Child::Worker(member)).unwrap();
    ids.extend(harness.claim("summer", 100..200));
    harness.until("the rejected worker owns all partitions", OWNED[other], 8).await;
    assert!(rejoins(&harness, other) > 0);
    harness.settle(&ids);

    // The first one is rejected now, after it has owned partitions.
    harness.stack.resume(Child::Worker(member)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while rejoins(&harness, member) == 0 {
        assert!(Instant::now() < deadline, "the client was not replaced");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    harness.stack.kill(Child::Worker(other)).unwrap();
    ids.extend(harness.claim("summer", 200..300));
    harness.until("the resumed worker owns all partitions again", OWNED[member], 8).await;
    harness.settle(&ids);
    assert_eq!(harness.won(&ids), 300);
    assert!(rejoins(&harness, member) > 0, "still the same process");
    harness.close().await;
}
