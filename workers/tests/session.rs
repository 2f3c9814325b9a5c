//! The session timeout that a worker is told, with either protocol of the group: silent workers are replaced, and
//! those that come back join again.

#![expect(clippy::unwrap_used, reason = "tests")]

mod shop;

use local_stack::Child;
use shop::{Shop, open};

const BOTH_OWN: &str = "select count(distinct owner) from stampede.partitions";

async fn shop_with(protocol: &str) -> Shop {
    let environment = [("STAMPEDE_GROUP_PROTOCOL", protocol), ("STAMPEDE_SESSION_TIMEOUT_MS", "1500")];
    let shop = open(2, environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()).await;
    shop.until("both workers own partitions", BOTH_OWN, 2).await;
    shop
}

/// One worker freezes past its session and wakes; the other one is killed meanwhile or afterwards.
async fn silent_workers_are_replaced_and_join_again(mut shop: Shop) {
    shop.coupon("summer", 1_000).await;
    let mut ids = shop.claim("summer", 0..100);
    shop.settle(&ids);
    shop.stack.freeze(Child::Worker(0)).unwrap();
    ids.extend(shop.claim("summer", 100..200));
    let owned = "select count(*) from stampede.partitions where owner = 'worker-1'";
    shop.until("the other one owns everything", owned, 8).await;
    shop.stack.resume(Child::Worker(0)).unwrap();
    ids.extend(shop.claim("summer", 200..300));
    shop.until("the one that woke has joined again", BOTH_OWN, 2).await;
    shop.stack.kill(Child::Worker(1)).unwrap();
    ids.extend(shop.claim("summer", 300..400));
    let owned = "select count(*) from stampede.partitions where owner = 'worker-0'";
    shop.until("it owns everything after the kill", owned, 8).await;
    shop.settle(&ids);
    assert_eq!(shop.won(&ids), 400);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_classic_protocol_that_froze_is_replaced_and_joins_again() {
    silent_workers_are_replaced_and_join_again(shop_with("classic").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_consumer_protocol_that_froze_is_replaced_and_joins_again() {
    let shop = shop_with("consumer").await;
    // The client cannot read a group's configuration; a broker that refuses to set it makes the worker say so.
    for worker in 0..2 {
        let log = std::fs::read_to_string(shop.stack.log_file(Child::Worker(worker))).unwrap();
        assert!(!log.contains("session timeout stays as it is"), "{log}");
    }
    silent_workers_are_replaced_and_join_again(shop).await;
}
