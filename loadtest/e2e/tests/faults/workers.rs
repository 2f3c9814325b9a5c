//! Workers that die, freeze and return during a sale: faults 1 to 4, 27, 28, 48, 50 and 51.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use local_stack::Child;
use redis::AsyncCommands as _;
use tokio::time::{Instant, sleep_until};

use e2e::claimants::Tally;
use e2e::environment::{APIS, OwnStack, WORKERS};
use e2e::wait::{TIMEOUT, until};
use e2e::{Claimants, Environment, StackKind};

const ARMED: Child = WORKERS[0];
const OTHER: Child = WORKERS[1];
/// Longer than a session of the group and than the start of a worker.
const PAUSE: Duration = Duration::from_secs(4);
const PAUSING: &str = "pausing, as set by STAMPEDE_PAUSE_AT";

/// Waits until this worker has taken over every partition.
async fn until_owner_of_all(env: &Environment, worker: Child) {
    let mut postgres = env.postgres().await;
    until("every partition is taken over", async || {
        let sql = "select count(*) from stampede.partitions where owner is distinct from $1";
        let others = sqlx::query_scalar::<_, i64>(sql).bind(worker.to_string());
        others.fetch_one(&mut postgres).await.unwrap() == 0
    })
    .await;
}

/// The only worker dies at the n-th passage of a crash point during a sale; then the other worker takes over. Passages are
/// counted from the start of the process, so its takeover must find no deadline of an earlier test to process.
async fn dies_during_a_sale_at(crash_point: &str) {
    let env = OwnStack::of(StackKind::WithoutDeadlines).await;
    env.stack.stop_child(OTHER).await.unwrap();
    let coupon = env.coupon(200, 1).await;
    env.stack.stop_child(ARMED).await.unwrap();
    env.start_with(ARMED, &[("STAMPEDE_CRASH_AT", crash_point)]).await;
    env.stack.wait_healthy(ARMED).await.unwrap();
    let claimants = Claimants::new(&coupon.id, 400);
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        let exit = env.stack.wait_exit(ARMED, TIMEOUT).await.unwrap();
        assert_eq!(exit.signal(), Some(nix::libc::SIGABRT), "the worker crashes at {crash_point}: {exit}");
        env.stack.restart(OTHER).await.unwrap();
    });
    claimants.expect_all_claimed(&env, tally, 200).await;
    env.finish().await;
}

#[tokio::test]
async fn fault_1_a_worker_dies_after_popping_codes_and_before_the_write() {
    dies_during_a_sale_at("after-pop:2").await;
}

#[tokio::test]
async fn fault_2_a_worker_dies_after_the_write_and_before_publishing() {
    dies_during_a_sale_at("after-write:4").await;
}

#[tokio::test]
async fn fault_2_a_worker_dies_while_publishing() {
    dies_during_a_sale_at("amid-publish:3").await;
}

#[tokio::test]
async fn fault_3_a_worker_dies_after_publishing_and_before_the_watermark() {
    dies_during_a_sale_at("after-publish-acknowledged:3").await;
}

#[tokio::test]
async fn fault_27_a_worker_dies_while_it_refills_a_list() {
    dies_during_a_sale_at("amid-refill").await;
}

#[tokio::test]
async fn fault_4_a_worker_that_was_frozen_past_its_session_and_continues_changes_nothing() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupons = [env.coupon(150, 1).await, env.coupon(150, 1).await, env.coupon(150, 1).await];
    let claimants = coupons.each_ref().map(|coupon| Claimants::new(&coupon.id, 300));
    let sale = join_all(claimants.iter().map(|claimants| claimants.run(&env)));
    let (tallies, ()) = tokio::join!(sale, async {
        for (frozen, successor, when) in [(ARMED, OTHER, 30), (OTHER, ARMED, 60)] {
            claimants[0].until_done(when).await;
            env.stack.freeze(frozen).unwrap();
            until_owner_of_all(&env, successor).await;
            env.stack.resume(frozen).unwrap();
        }
    });
    for (claimants, tally) in claimants.iter().zip(tallies) {
        claimants.expect_all_claimed(&env, tally, 150).await;
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_28_pops_of_a_former_owner_from_its_old_lists_change_nothing() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(2_000, 1).await;
    let claimants = Claimants::new(&coupon.id, 2_200);
    let mut redis = env.redis().await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        claimants.until_done(300).await;
        let lists: Vec<String> = redis.keys("*").await.unwrap();
        assert!(!lists.is_empty(), "a coupon under load has codes in Redis");
        for worker in WORKERS {
            env.stack.kill(worker).unwrap();
        }
        for worker in WORKERS {
            env.stack.restart(worker).await.unwrap();
        }
        // As the former owner would continue to pop from its lists.
        let mut popped = 0;
        for list in lists {
            while redis.lpop::<_, Option<Vec<u8>>>(&list, None).await.unwrap().is_some() {
                popped += 1;
            }
        }
        assert!(popped > 0, "the old lists still contain codes");
    });
    claimants.expect_all_claimed(&env, tally, 2_000).await;
    env.finish().await;
}

/// Runs a sale while a trigger with this body fires before each inserted claim.
async fn with_a_trigger_on_claims(
    env: &Environment,
    body: &'static str,
    claimants: &Arc<Claimants>,
) -> Tally {
    let mut postgres = env.postgres().await;
    let create = format!(
        "create sequence stampede.planted_calls;
         create function stampede.planted() returns trigger language plpgsql as $$ begin {body} return new; end $$;
         create trigger planted before insert on stampede.claims for each row execute function stampede.planted()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut postgres).await.unwrap();
    let tally = claimants.run(env).await;
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted;
                  drop sequence stampede.planted_calls";
    sqlx::raw_sql(remove).execute(&mut postgres).await.unwrap();
    tally
}

#[tokio::test]
async fn fault_50_a_batch_that_fails_while_the_next_one_is_decided_is_decided_again_with_it() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(500, 1).await;
    let claimants = Claimants::new(&coupon.id, 700);
    // Once each, in the middle of a batch, and late enough for the next batch to be decided meanwhile: a count that does
    // not match, and a deadlock.
    let body = "case nextval('stampede.planted_calls')
                when 40 then perform pg_sleep(0.3); raise exception 'planted' using errcode = 'SP002';
                when 150 then perform pg_sleep(0.3); raise exception 'planted' using errcode = '40P01';
                when 260 then perform pg_sleep(0.3); raise exception 'planted' using errcode = 'SP002';
                else null; end case;";
    let failed = async || {
        let mismatched = env.worker_metric("stampede_writes_total", "mismatch").await;
        [mismatched, env.worker_metric("stampede_writes_total", "retry").await]
    };
    let before = failed().await;
    let tally = with_a_trigger_on_claims(&env, body, &claimants).await;
    let after = failed().await;
    assert!(after[0] >= before[0] + 2.0 && after[1] >= before[1] + 1.0, "{before:?} {after:?}");
    claimants.expect_all_claimed(&env, tally, 500).await;
    assert_eq!(tally.won + tally.lost, 500, "{tally:?}");
    env.finish().await;
}

#[tokio::test]
async fn a_claim_that_postgres_rejects_as_data_is_isolated_and_becomes_a_dead_letter() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(300, 1).await;
    let claimants = Claimants::new(&coupon.id, 300);
    let body = "if new.user_id like '%.user-77' then
                    raise exception 'planted' using errcode = '22021';
                end if;";
    let tally = with_a_trigger_on_claims(&env, body, &claimants).await;
    assert_eq!((tally.won, tally.rejected), (299, 1), "{tally:?}");
    let report = env.finish().await;
    assert!(report.dead_letters > 0, "\n{report}");
}

#[tokio::test]
async fn fault_51_a_takeover_that_arrives_late_keeps_no_partition_of_another_owner() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(400, 1).await;
    let claimants = Claimants::new(&coupon.id, 600);
    let fenced = async || env.worker_metric("stampede_fenced_total", "").await;
    let before = fenced().await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        claimants.until_done(100).await;
        // The delayed call of a worker to which everything was assigned once. No process acts on its result: the owners
        // are fenced, and the partitions are still assigned to them.
        let late = "select stampede.take_over(partition, 'a late worker', gen_random_uuid()) from stampede.partitions";
        sqlx::raw_sql(late).execute(&mut env.postgres().await).await.unwrap();
    });
    claimants.expect_all_claimed(&env, tally, 400).await;
    assert!(fenced().await > before, "the owner was fenced and took over again");
    env.finish().await;
}

#[tokio::test]
async fn fault_51_a_worker_that_was_frozen_before_its_takeover_releases_the_partitions_of_its_successor() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupons = [env.coupon(100, 1).await, env.coupon(100, 1).await];
    // Its first takeover is delayed while it is frozen past its session. When it continues, another worker owns
    // everything.
    for worker in WORKERS {
        env.stack.stop_child(worker).await.unwrap();
    }
    let paused = env.count_in_logs(&[ARMED], PAUSING);
    let pause = format!("before-takeover:{}", PAUSE.as_millis());
    env.start_with(ARMED, &[("STAMPEDE_PAUSE_AT", &pause)]).await;
    until("the worker pauses", async || env.count_in_logs(&[ARMED], PAUSING) > paused).await;
    let pause_ends = Instant::now() + PAUSE;
    let claimants = coupons.each_ref().map(|coupon| Claimants::new(&coupon.id, 200));
    let sale = join_all(claimants.iter().map(|claimants| claimants.run(&env)));
    let (tallies, ()) = tokio::join!(sale, async {
        env.stack.freeze(ARMED).unwrap();
        env.stack.restart(OTHER).await.unwrap();
        until_owner_of_all(&env, OTHER).await;
        sleep_until(pause_ends).await;
        env.stack.resume(ARMED).unwrap();
    });
    for (claimants, tally) in claimants.iter().zip(tallies) {
        claimants.expect_all_claimed(&env, tally, 100).await;
    }
    env.finish().await;
}

async fn lists(env: &Environment) -> Vec<String> {
    env.redis().await.keys("stampede:stock:*").await.unwrap()
}

/// Waits until every list of codes in Redis belongs to a current owner, or is one of these, whose owners were killed by
/// other tests: a worker that releases a partition deletes its lists.
async fn until_only_current_owners_have_lists(env: &Environment, before: &[String]) {
    let mut postgres = env.postgres().await;
    until("former owners have deleted their lists", async || {
        let sql = "select replace(nonce::text, '-', '') from stampede.partitions where nonce is not null";
        let nonces: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut postgres).await.unwrap();
        let mut left = lists(env).await;
        left.retain(|list| !before.contains(list) && !nonces.iter().any(|nonce| list.contains(nonce)));
        left.is_empty()
    })
    .await;
}

#[tokio::test]
async fn fault_48_a_rolling_restart_of_every_process_under_load_loses_nothing() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(3_000, 1).await;
    let claimants = Claimants::new(&coupon.id, 4_000);
    let before = lists(&env).await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        for (n, child) in [ARMED, APIS[0], OTHER, APIS[1]].into_iter().enumerate() {
            claimants.until_done(400 + 500 * n).await;
            // In time and without a SIGKILL.
            env.stack.stop_child(child).await.unwrap();
            env.stack.restart(child).await.unwrap();
        }
    });
    claimants.expect_all_claimed(&env, tally, 3_000).await;
    until_only_current_owners_have_lists(&env, &before).await;
    env.finish().await;
}
