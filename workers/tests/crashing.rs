//! A worker that dies between any two effects: the next one finishes what was begun, and nothing is given twice.

#![cfg(feature = "crash-points")]
#![cfg_attr(feature = "crash-points", expect(clippy::unwrap_used, reason = "tests"))]

mod shop;

use std::time::{Duration, Instant};

use local_stack::Child;
use shop::open;
use workers::crash_points::Point;

const WORKER: Child = Child::Worker(0);

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_worker_dies_every_claim_is_decided_once_and_told() {
    let mut shop = open(1, Vec::new()).await;
    let mut ids = Vec::new();
    let mut users = 0;
    for point in Point::ALL {
        if [Point::BeforeReemit, Point::AfterReemit].contains(point) {
            // Something must have been written and not told. (Not `AfterWrite`: that write may only have moved the watermark.)
            ids.extend(crash(&shop, Point::AfterEmitSent, &mut users).await);
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
    shop.until("holds lapse though whoever asked for the time is dead", lapsed, 80).await;
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
    if [Point::BeforeTick, Point::AfterTick].contains(&point) {
        let hold = "update stampede.coupons set hold_seconds = 1 where coupon_id = $1";
        sqlx::query(hold).bind(&coupon_id).execute(&shop.pool).await.unwrap();
    }
    if point == Point::BeforeLetters {
        shop.send_raw(&coupon_id, b"rubbish", "?", "?");
    }
    let mut ids = shop.claim(&coupon_id, *users..*users + 40);
    *users += 40;
    shop.stack.start_child(WORKER).await.unwrap();
    if let Point::BeforeRelease | Point::AfterThrowAway | Point::AfterReadBack = point {
        shop.stack.wait_healthy(WORKER).await.unwrap();
        all_are_decided(shop, &coupon_id).await;
    }
    match point {
        Point::BeforeRelease | Point::AfterThrowAway => shop.stack.terminate(WORKER).unwrap(),
        Point::AfterReadBack => {
            // The next write is refused by the fence: the row is read back to see who has changed it.
            let take = "select stampede.take_over(partition, 'somebody', gen_random_uuid()) from stampede.partitions";
            sqlx::raw_sql(take).execute(&shop.pool).await.unwrap();
            ids.extend(shop.claim(&coupon_id, *users..*users + 40));
            *users += 40;
        }
        _ => {}
    }
    let died = shop.stack.wait_exit(WORKER, Duration::from_secs(300)).await;
    assert!(died.as_ref().is_ok_and(|status| !status.success()), "{}: {died:?}", point.name());
    ids
}

async fn all_are_decided(shop: &shop::Shop, coupon_id: &str) {
    let sql =
        "select count(*) from stampede.claims join stampede.coupons using (coupon_no) where coupon_id = $1";
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        let decided: i64 = sqlx::query_scalar(sql).bind(coupon_id).fetch_one(&shop.pool).await.unwrap();
        if decided == 40 {
            return;
        }
        assert!(Instant::now() < until, "{decided} of 40 claims of {coupon_id} are decided");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
