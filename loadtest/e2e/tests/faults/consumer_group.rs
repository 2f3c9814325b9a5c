//! A consumer group in disorder: faults 6, 7 and 11. Ownership is decided in Postgres, so the state of the group decides
//! nothing.

use std::time::Duration;

use futures::future::join_all;
use local_stack::Admin;
use schemas::topics::REQUESTS;
use tokio::time::sleep;

use e2e::environment::{OwnStack, WORKERS};
use e2e::wait::until;
use e2e::{ApiResponse, Claimants, Request, StackKind};

const GROUP: &str = "stampede-workers";

#[tokio::test]
async fn fault_6_workers_that_leave_and_join_every_second_lose_nothing() {
    const CODES: usize = 1_000;
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupons = [env.coupon(CODES as u64, 1).await, env.coupon(CODES as u64, 1).await];
    let claimants = coupons.each_ref().map(|coupon| Claimants::new(&coupon.id, CODES + 200));
    let sale = join_all(claimants.iter().map(|claimants| claimants.run(&env)));
    let (tallies, ()) = tokio::join!(sale, async {
        for n in 0..9 {
            // One worker leaves before the other one has rejoined; every third one is killed.
            let (leaving, joining) = (WORKERS[n % 2], WORKERS[(n + 1) % 2]);
            if n % 3 == 2 {
                env.stack.kill(leaving).ok();
            } else {
                env.stack.terminate(leaving).ok();
            }
            sleep(Duration::from_millis(500)).await;
            env.stack.start_child(joining).await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
        env.heal().await;
    });
    for (claimants, tally) in claimants.iter().zip(tallies) {
        claimants.expect_all_claimed(&env, tally, CODES).await;
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_7_a_worker_that_exceeds_max_poll_interval_loses_its_partitions_and_rejoins() {
    const CODES: usize = 600;
    const PAUSING: &str = "pausing, as set by STAMPEDE_PAUSE_AT";
    const EXCEEDED: &str = "Application maximum poll interval";
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupons = join_all([0; 4].map(|_| env.coupon(CODES as u64, 1))).await;
    let claimants: Vec<_> = coupons.iter().map(|coupon| Claimants::new(&coupon.id, CODES + 100)).collect();
    // The consumer thread pauses for longer than the poll interval; its client notices and leaves the group, while the
    // rest of the worker continues to write. Alone at first, so that it owns every partition.
    let [slow, successor] = WORKERS;
    env.stack.stop_child(successor).await.unwrap();
    let variables =
        [("STAMPEDE_MAX_POLL_INTERVAL_MS", "2000"), ("STAMPEDE_PAUSE_AT", "after-commit-offset:8000:3")];
    env.restart_with(slow, &variables).await;
    let before = [PAUSING, EXCEEDED].map(|text| env.count_in_logs(&[slow], text));
    let sale = join_all(claimants.iter().map(|claimants| claimants.run(&env)));
    let (tallies, ()) = tokio::join!(sale, async {
        until(PAUSING, async || env.count_in_logs(&[slow], PAUSING) > before[0]).await;
        env.stack.start_child(successor).await.unwrap();
        until(EXCEEDED, async || env.count_in_logs(&[slow], EXCEEDED) > before[1]).await;
        let mut postgres = env.postgres().await;
        for worker in [successor, slow] {
            until("it owns partitions", async || {
                let sql = "select count(*) from stampede.partitions where owner = $1";
                let own = sqlx::query_scalar::<_, i64>(sql).bind(worker.to_string());
                own.fetch_one(&mut postgres).await.unwrap() > 0
            })
            .await;
        }
    });
    for (claimants, tally) in claimants.iter().zip(tallies) {
        claimants.expect_all_claimed(&env, tally, CODES).await;
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_11_the_committed_offset_of_the_group_decides_nothing() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(60, 1).await;
    let partition = env.partition_of(&coupon.id);
    let admin = Admin::new(&env.stack.endpoints().kafka).unwrap();
    for round in ["ahead", "deleted"] {
        let stopped = WORKERS.map(|worker| env.stack.stop_child(worker));
        join_all(stopped).await.into_iter().for_each(Result::unwrap);
        // Records that no worker has consumed.
        let users: Vec<String> = (0..30).map(|n| format!("{round}-{n}")).collect();
        let claims = users.iter().map(|user| env.send(Request::claim(user, &coupon.id).key("k").wait(0)));
        assert!(join_all(claims).await.iter().all(|reply| reply.status == 202));
        // The committed offset claims that they were consumed, or does not exist.
        if round == "ahead" {
            admin.commit(GROUP, REQUESTS, partition, 1_000_000).await.unwrap();
            assert_eq!(admin.committed(GROUP, REQUESTS, partition).await.unwrap(), Some(1_000_000));
        } else {
            admin.delete_group(GROUP).await.unwrap();
            assert_eq!(admin.committed(GROUP, REQUESTS, partition).await.unwrap(), None);
        }
        for worker in WORKERS {
            env.stack.start_child(worker).await.unwrap();
        }
        let claims = users.iter().map(|user| env.final_response(Request::claim(user, &coupon.id).key("k")));
        let responses = join_all(claims).await;
        let are_accepted = responses.iter().all(|response| matches!(response, ApiResponse::Accepted { .. }));
        assert!(are_accepted, "{round}: {responses:?}");
        until("the committed offset is correct again", async || {
            let committed = admin.committed(GROUP, REQUESTS, partition).await.unwrap();
            let sql = "select next_offset from stampede.partitions where partition = $1";
            let next = sqlx::query_scalar::<_, i64>(sql).bind(partition);
            committed == Some(next.fetch_one(&mut env.postgres().await).await.unwrap())
        })
        .await;
    }
    assert_eq!(env.counts(&coupon.id).await["claimed"], 60);
    env.finish().await;
}
