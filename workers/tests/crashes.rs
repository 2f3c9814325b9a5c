//! A worker that is killed between any two effects: the next one completes its work, and no code is claimed twice.

#![cfg(feature = "crash-points")]
#![cfg_attr(feature = "crash-points", expect(clippy::unwrap_used, reason = "tests"))]

mod harness;

use std::time::{Duration, Instant};

use harness::{Harness, start};
use local_stack::Child;
use workers::crash_points::{CrashPoint as _, Point};

const WORKER: Child = Child::Worker(0);

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_is_decided_once_and_published_wherever_a_worker_is_killed() {
    let mut harness = start(1, Vec::new()).await;
    let mut ids = Vec::new();
    let mut users = 0;
    for point in Point::ALL {
        if [Point::BeforeRepublish, Point::AfterRepublish].contains(point) {
            // A batch must have been written and not published. (Not `AfterWrite`: that write may only have moved the watermark.)
            ids.extend(crash(&harness, Point::AfterPublishSent, &mut users).await);
        }
        ids.extend(crash(&harness, *point, &mut users).await);
    }
    harness.stack.set_env(WORKER, Vec::new()).unwrap();
    harness.stack.restart(WORKER).await.unwrap();
    harness.settle(&ids);
    assert_eq!(harness.won(&ids), ids.len(), "there is a code for every claim");
    let given = harness.count("select count(distinct (coupon_no, number)) from stampede.claims").await;
    assert_eq!(usize::try_from(given).unwrap(), ids.len());
    let lapsed = "select count(*) from stampede.claims where state = 4 and lapsed_ms is not null";
    harness.until("holds lapse although the worker that produced the tick was killed", lapsed, 80).await;
    harness
        .until("everything published is recorded as published", "select count(*) from stampede.outbox", 0)
        .await;
    harness.close().await;
}

/// Starts the worker with this crash point, and produces requests.
async fn crash(harness: &Harness, point: Point, users: &mut u32) -> Vec<String> {
    harness.stack.stop_child(WORKER).await.unwrap();
    let die = vec![("STAMPEDE_CRASH_AT".to_owned(), point.name().to_owned())];
    harness.stack.set_env(WORKER, die).unwrap();
    let coupon_id = format!("coupon-{users}");
    harness.coupon(&coupon_id, 2_000).await;
    if [Point::BeforeTick, Point::AfterTick].contains(&point) {
        let hold = "update stampede.coupons set hold_seconds = 1 where coupon_id = $1";
        sqlx::query(hold).bind(&coupon_id).execute(&harness.pool).await.unwrap();
    }
    if point == Point::BeforeEvents {
        harness.send_raw(&coupon_id, b"invalid", "?", "?");
    }
    let mut ids = harness.claim(&coupon_id, *users..*users + 40);
    *users += 40;
    harness.stack.start_child(WORKER).await.unwrap();
    if let Point::BeforeRelease | Point::AfterDeleteLists | Point::AfterReadBack = point {
        harness.stack.wait_healthy(WORKER).await.unwrap();
        wait_until_decided(harness, &coupon_id).await;
    }
    match point {
        Point::BeforeRelease | Point::AfterDeleteLists => harness.stack.terminate(WORKER).unwrap(),
        Point::AfterReadBack => {
            // The fence rejects the next write: the row is read back to find its owner.
            let take =
                "select stampede.take_over(partition, 'another', gen_random_uuid()) from stampede.partitions";
            sqlx::raw_sql(take).execute(&harness.pool).await.unwrap();
            ids.extend(harness.claim(&coupon_id, *users..*users + 40));
            *users += 40;
        }
        _ => {}
    }
    let exit = harness.stack.wait_exit(WORKER, Duration::from_secs(300)).await;
    assert!(exit.as_ref().is_ok_and(|status| !status.success()), "{}: {exit:?}", point.name());
    ids
}

async fn wait_until_decided(harness: &Harness, coupon_id: &str) {
    let sql =
        "select count(*) from stampede.claims join stampede.coupons using (coupon_no) where coupon_id = $1";
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        let decided: i64 = sqlx::query_scalar(sql).bind(coupon_id).fetch_one(&harness.pool).await.unwrap();
        if decided == 40 {
            return;
        }
        assert!(Instant::now() < until, "{decided} of 40 claims of {coupon_id} are decided");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
