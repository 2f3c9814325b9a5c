//! A worker that dies between any two effects: the next one finishes what was begun, and nothing is given twice.

#![cfg(feature = "crash-points")]
#![cfg_attr(feature = "crash-points", expect(clippy::unwrap_used, reason = "tests"))]

mod shop;

use std::time::Duration;

use local_stack::Child;
use shop::open;
use workers::crash_points::Point;

const WORKER: Child = Child::Worker(0);

/// Passed only after a write without an answer: the fault runs with a broken connection go there.
const ELSEWHERE: [Point; 1] = [Point::AfterReadBack];

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_worker_dies_every_claim_is_decided_once_and_told() {
    let mut shop = open(1, Vec::new()).await;
    let mut ids = Vec::new();
    let mut users = 0;
    for point in Point::ALL.iter().filter(|point| !ELSEWHERE.contains(point)) {
        if *point == Point::BeforeReemit {
            // Something must have been written and not told.
            ids.extend(crash(&shop, Point::AfterWrite, &mut users).await);
        }
        ids.extend(crash(&shop, *point, &mut users).await);
    }
    shop.stack.set_env(WORKER, Vec::new()).unwrap();
    shop.stack.restart(WORKER).await.unwrap();
    shop.settle(&ids);
    assert_eq!(shop.won(&ids), ids.len(), "there was a code for everybody");
    let given = shop.count("select count(distinct (coupon_no, number)) from stampede.claims").await;
    assert_eq!(usize::try_from(given).unwrap(), ids.len());
    let lapsed = "select count(*) from stampede.claims where state = 4 and lapsed_ms is not null";
    shop.until("holds lapse though whoever asked for the time is dead", lapsed, 40).await;
    shop.until("everything told is recorded as told", "select count(*) from stampede.outbox", 0).await;
    shop.close().await;
}

/// Starts the worker so that it dies at this point, and gives it something to do.
async fn crash(shop: &shop::Shop, point: Point, users: &mut u32) -> Vec<String> {
    shop.stack.stop_child(WORKER).await.unwrap();
    let die = vec![("STAMPEDE_CRASH_AT".to_owned(), point.name().to_owned())];
    shop.stack.set_env(WORKER, die).unwrap();
    let coupon_id = format!("coupon-{users}");
    shop.coupon(&coupon_id, 2_000).await;
    if point == Point::AfterTick {
        let hold = "update stampede.coupons set hold_seconds = 1 where coupon_id = $1";
        sqlx::query(hold).bind(&coupon_id).execute(&shop.pool).await.unwrap();
    }
    let ids = shop.claim(&coupon_id, *users..*users + 40);
    *users += 40;
    shop.stack.start_child(WORKER).await.unwrap();
    if point == Point::BeforeRelease {
        shop.stack.wait_healthy(WORKER).await.unwrap();
        shop.stack.terminate(WORKER).unwrap();
    }
    let died = shop.stack.wait_exit(WORKER, Duration::from_secs(300)).await;
    assert!(died.as_ref().is_ok_and(|status| !status.success()), "{}: {died:?}", point.name());
    ids
}
