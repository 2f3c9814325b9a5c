//! The consumer group in disorder: faults 6, 7 and 11. Who owns what is decided in Postgres, so the group can be as wrong
//! as it likes.

use std::time::Duration;

use checker::Told;
use futures::future::join_all;
use local_stack::{Admin, Child};
use schemas::topics::REQUESTS;
use tokio::time::sleep;

use crate::support::faults::{WORKERS, until};
use crate::support::{Ask, Crowd, Field, Kind};

const GROUP: &str = "stampede-workers";

#[tokio::test]
async fn fault_6_workers_that_come_and_go_every_second_lose_nothing() {
    const CODES: usize = 1_000;
    let field = Field::enter(Kind::Faulty).await;
    let coupons = [field.coupon(CODES as u64, 1).await, field.coupon(CODES as u64, 1).await];
    let crowds = coupons.each_ref().map(|coupon| Crowd::new(coupon, CODES + 200));
    let sale = join_all(crowds.iter().map(|crowd| crowd.run(&field)));
    let (tallies, ()) = tokio::join!(sale, async {
        for n in 0..9 {
            // One goes before the one that went last is back; every third one without a farewell.
            let (goes, comes) = (WORKERS[n % 2], WORKERS[(n + 1) % 2]);
            if n % 3 == 2 {
                field.stack.kill(goes).ok();
            } else {
                field.stack.terminate(goes).ok();
            }
            sleep(Duration::from_millis(500)).await;
            field.stack.start_child(comes).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
        field.heal().await;
    });
    for (crowd, tally) in crowds.iter().zip(tallies) {
        field.expect_all_given(crowd, tally, CODES).await;
    }
    field.leave().await;
}

#[tokio::test]
async fn fault_7_a_worker_that_is_too_slow_for_its_group_loses_its_partitions_and_comes_back() {
    const CODES: usize = 600;
    let field = Field::enter(Kind::Faulty).await;
    let coupons = [0; 4].map(|_| field.coupon(CODES as u64, 1));
    let coupons = join_all(coupons).await;
    let crowds: Vec<_> = coupons.iter().map(|coupon| Crowd::new(coupon, CODES + 100)).collect();
    // Its thread does not get around to polling for longer than that; its client notices, and leaves the group, while
    // the rest of the worker goes on writing. Alone at first, so that it is in the middle of everything.
    let [slow, heir] = WORKERS;
    field.stack.stop_child(heir).await.unwrap();
    let settings =
        [("STAMPEDE_MAX_POLL_INTERVAL_MS", "2000"), ("STAMPEDE_PAUSE_AT", "after-commit-offset:8000:3")];
    field.restart_with(slow, &settings).await;
    let told = ["pausing, as set by STAMPEDE_PAUSE_AT", "Application maximum poll interval"];
    let before = told.map(|text| field.logged(&[slow], text));
    let sale = join_all(crowds.iter().map(|crowd| crowd.run(&field)));
    let (tallies, ()) = tokio::join!(sale, async {
        until(told[0], async || field.logged(&[slow], told[0]) > before[0]).await;
        field.stack.start_child(heir).await.unwrap();
        until(told[1], async || field.logged(&[slow], told[1]) > before[1]).await;
        let mut postgres = field.postgres().await;
        for worker in [heir, slow] {
            until("it owns partitions", async || {
                let sql = "select count(*) from stampede.partitions where owner = $1";
                let own = sqlx::query_scalar::<_, i64>(sql).bind(worker.to_string());
                own.fetch_one(&mut postgres).await.unwrap() > 0
            })
            .await;
        }
    });
    for (crowd, tally) in crowds.iter().zip(tallies) {
        field.expect_all_given(crowd, tally, CODES).await;
    }
    field.restart_with(slow, &[]).await;
    field.leave().await;
}

#[tokio::test]
async fn fault_11_what_the_group_has_committed_decides_nothing() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(60, 1).await;
    let partition = field.partition_of(&coupon).await;
    let admin = Admin::new(&field.stack.endpoints().kafka).unwrap();
    for round in ["ahead", "deleted"] {
        let stopped = WORKERS.map(|worker| field.stack.stop_child(worker));
        join_all(stopped).await.into_iter().for_each(Result::unwrap);
        // These are in the log, and nobody has read them.
        let users: Vec<String> = (0..30).map(|n| format!("{round}-{n}")).collect();
        let accepted = join_all(users.iter().map(|user| async {
            let asked = field.history.sent(user, &coupon, Some("k"));
            field.claim_once(asked, Ask::of(user, &coupon).key("k").wait(0)).await.unwrap()
        }));
        assert!(accepted.await.iter().all(|reply| reply.status == 202));
        // What was committed says that they were, or says nothing at all.
        if round == "ahead" {
            admin.commit(GROUP, REQUESTS, partition, 1_000_000).await.unwrap();
            assert_eq!(admin.committed(GROUP, REQUESTS, partition).await.unwrap(), Some(1_000_000));
        } else {
            admin.delete_group(GROUP).await.unwrap();
            assert_eq!(admin.committed(GROUP, REQUESTS, partition).await.unwrap(), None);
        }
        for worker in WORKERS {
            field.stack.start_child(worker).await.unwrap();
        }
        let told = join_all(users.iter().map(|user| field.pursue(Ask::of(user, &coupon).key("k")))).await;
        assert!(told.iter().all(|told| matches!(told, Told::Accepted { .. })), "{round}: {told:?}");
        until("the group's offset is right again", async || {
            let committed = admin.committed(GROUP, REQUESTS, partition).await.unwrap();
            let sql = "select next_offset from stampede.partitions where partition = $1";
            let next = sqlx::query_scalar::<_, i64>(sql).bind(partition);
            committed == Some(next.fetch_one(&mut field.postgres().await).await.unwrap())
        })
        .await;
    }
    assert_eq!(field.counts(&coupon).await["claimed"], 60);
    for child in [Child::Worker(0), Child::Worker(1)] {
        field.stack.wait_healthy(child).await.unwrap();
    }
    field.leave().await;
}
