//! Workers that die, freeze and come back in the middle of a sale: faults 1 to 4, 28, 48, 50 and 51.

use local_stack::Child;
use redis::AsyncCommands as _;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::crowd::Tally;
use crate::support::field::SETTLES_WITHIN;
use crate::support::{Crowd, Field, Kind};

const ARMED: Child = Child::Worker(0);
const OTHER: Child = Child::Worker(1);
/// Longer than a session of the group, and than it takes to start a worker.
const PAUSE: Duration = Duration::from_secs(4);

/// Everybody has an answer, and every code has one holder.
async fn expect_all_codes_given(field: &Field, crowd: &Crowd, tally: Tally, codes: usize) {
    assert_eq!(tally.won + tally.sold_out + tally.rejected + tally.lost, crowd.users, "{tally:?}");
    field.checked().await;
    let counts = field.counts(&crowd.coupon).await;
    assert_eq!(
        (counts["claimed"].as_u64(), counts["available"].as_u64()),
        (Some(codes as u64), Some(0)),
        "{tally:?}"
    );
}

/// Waits until every partition has been taken over by this worker.
async fn owns_everything(field: &Field, worker: Child) {
    let mut postgres = field.postgres().await;
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let sql = "select count(*) from stampede.partitions where owner is distinct from $1";
        let others: i64 =
            sqlx::query_scalar(sql).bind(worker.to_string()).fetch_one(&mut postgres).await.unwrap();
        if others == 0 {
            return;
        }
        assert!(Instant::now() < until, "{others} partitions are not {worker}'s");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a worker holds somewhere because it was told to.
async fn is_pausing(field: &Field, worker: Child, pauses_before: usize) {
    let until = Instant::now() + SETTLES_WITHIN;
    while pauses(field, worker) == pauses_before {
        assert!(Instant::now() < until, "{worker} does not get where it should pause");
        sleep(Duration::from_millis(20)).await;
    }
}

fn pauses(field: &Field, worker: Child) -> usize {
    let log = std::fs::read_to_string(field.stack.log_file(worker)).unwrap();
    log.matches("pausing, as set by STAMPEDE_PAUSE_AT").count()
}

/// The only worker dies at this place, for the n-th time that anybody gets there, in the middle of a sale; then the
/// other one takes over.
async fn dies_at(place: &str) {
    let field = Field::enter(Kind::Faulty).await;
    field.stack.stop_child(OTHER).await.unwrap();
    let coupon = field.coupon(200, 1).await;
    field.restart_with(ARMED, &[("STAMPEDE_CRASH_AT", place)]).await;
    let crowd = Crowd::new(&coupon, 400);
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        let ended = field.stack.wait_exit(ARMED, SETTLES_WITHIN).await.unwrap();
        assert_eq!(ended.signal(), Some(nix::libc::SIGABRT), "it crashed where it was told to: {ended}");
        field.stack.restart(OTHER).await.unwrap();
    });
    expect_all_codes_given(&field, &crowd, tally, 200).await;
    field.restart_with(ARMED, &[]).await;
    field.leave().await;
}

#[tokio::test]
async fn fault_1_a_worker_dies_after_popping_codes_and_before_the_write() {
    dies_at("after-pop:2").await;
}

#[tokio::test]
async fn fault_2_a_worker_dies_after_the_write_and_before_telling_anybody() {
    dies_at("after-write:4").await;
}

#[tokio::test]
async fn fault_2_a_worker_dies_in_the_middle_of_telling() {
    dies_at("amid-publish:3").await;
}

#[tokio::test]
async fn fault_3_a_worker_dies_after_telling_and_before_the_watermark() {
    dies_at("after-publish-acknowledged:3").await;
}

#[tokio::test]
async fn fault_27_a_worker_dies_while_it_fills_a_list() {
    dies_at("amid-refill").await;
}

#[tokio::test]
async fn fault_4_a_worker_that_froze_past_its_session_and_goes_on_hurts_nobody() {
    let field = Field::enter(Kind::Faulty).await;
    let coupons = [field.coupon(150, 1).await, field.coupon(150, 1).await, field.coupon(150, 1).await];
    let crowds = coupons.each_ref().map(|coupon| Crowd::new(coupon, 300));
    let sale = futures::future::join_all(crowds.iter().map(|crowd| crowd.run(&field)));
    let (tallies, ()) = tokio::join!(sale, async {
        for (frozen, heir, when) in [(ARMED, OTHER, 30), (OTHER, ARMED, 60)] {
            crowds[0].answered(when).await;
            field.stack.freeze(frozen).unwrap();
            owns_everything(&field, heir).await;
            field.stack.resume(frozen).unwrap();
        }
    });
    for (crowd, tally) in crowds.iter().zip(tallies) {
        expect_all_codes_given(&field, crowd, tally, 150).await;
    }
    field.leave().await;
}

#[tokio::test]
async fn fault_28_whatever_an_old_owner_pops_from_its_old_lists_hurts_nobody() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(2_000, 1).await;
    let crowd = Crowd::new(&coupon, 2_200);
    let client = redis::Client::open(field.stack.endpoints().redis_url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        crowd.answered(300).await;
        let lists: Vec<String> = redis.keys("*").await.unwrap();
        assert!(!lists.is_empty(), "a coupon under load has its codes in Redis");
        for worker in [ARMED, OTHER] {
            field.stack.kill(worker).unwrap();
        }
        for worker in [ARMED, OTHER] {
            field.stack.restart(worker).await.unwrap();
        }
        // The lists as the old owner would go on popping from them.
        let mut popped = 0;
        for list in lists {
            while redis.lpop::<_, Option<Vec<u8>>>(&list, None).await.unwrap().is_some() {
                popped += 1;
            }
        }
        assert!(popped > 0, "there was something left to pop");
    });
    expect_all_codes_given(&field, &crowd, tally, 2_000).await;
    field.leave().await;
}

/// Breaks the insertion of claims while a sale is on: `condition` says which claim is refused how.
async fn with_a_trigger_on_claims(field: &Field, body: &'static str, crowd: &Arc<Crowd>) -> Tally {
    let mut postgres = field.postgres().await;
    let create = format!(
        "create sequence stampede.planted_calls;
         create function stampede.planted() returns trigger language plpgsql as $$ begin {body} return new; end $$;
         create trigger planted before insert on stampede.claims for each row execute function stampede.planted()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut postgres).await.unwrap();
    let tally = crowd.run(field).await;
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted;
                  drop sequence stampede.planted_calls";
    sqlx::raw_sql(remove).execute(&mut postgres).await.unwrap();
    tally
}

#[tokio::test]
async fn fault_50_a_batch_that_fails_while_the_next_one_is_decided_is_decided_again_with_it() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(500, 1).await;
    let crowd = Crowd::new(&coupon, 700);
    // Once each, in the middle of batches, and late enough for the next batch to be decided meanwhile: a count that
    // does not match, and a deadlock.
    let body = "case nextval('stampede.planted_calls')
                when 40 then perform pg_sleep(0.3); raise exception 'planted' using errcode = 'SP002';
                when 150 then perform pg_sleep(0.3); raise exception 'planted' using errcode = '40P01';
                when 260 then perform pg_sleep(0.3); raise exception 'planted' using errcode = 'SP002';
                else null; end case;";
    let failed = async || {
        let mut failed = [0.0; 2];
        for worker in [ARMED, OTHER] {
            failed[0] += field.metric(worker, "stampede_writes_total", "mismatch").await;
            failed[1] += field.metric(worker, "stampede_writes_total", "retry").await;
        }
        failed
    };
    let before = failed().await;
    let tally = with_a_trigger_on_claims(&field, body, &crowd).await;
    let after = failed().await;
    assert!(after[0] >= before[0] + 2.0 && after[1] >= before[1] + 1.0, "{before:?} {after:?}");
    expect_all_codes_given(&field, &crowd, tally, 500).await;
    assert_eq!(tally.won + tally.lost, 500, "{tally:?}");
    field.leave().await;
}

#[tokio::test]
async fn a_claim_that_postgres_refuses_as_data_stands_alone_in_the_end() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(300, 1).await;
    let crowd = Crowd::new(&coupon, 300);
    let body = "if new.user_id like '%-user-77' then
                    raise exception 'planted' using errcode = '22021';
                end if;";
    let tally = with_a_trigger_on_claims(&field, body, &crowd).await;
    assert_eq!((tally.won, tally.rejected), (299, 1), "{tally:?}");
    let report = field.leave().await;
    assert!(report.dead_letters > 0, "\n{report}");
}

#[tokio::test]
async fn fault_51_a_takeover_that_comes_late_does_not_keep_what_went_elsewhere() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(400, 1).await;
    let crowd = Crowd::new(&coupon, 600);
    let fenced = async || {
        let [one, other] = [ARMED, OTHER].map(|worker| field.metric(worker, "stampede_fenced_total", ""));
        one.await + other.await
    };
    let before = fenced().await;
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        crowd.answered(100).await;
        // The call of a worker that was assigned everything once: it lay somewhere, and arrives now. Nobody will act
        // on its answer; the owners are shut out, and are still the ones to whom the group assigns the partitions.
        let late = "select stampede.take_over(partition, 'somebody late', gen_random_uuid()) from stampede.partitions";
        sqlx::raw_sql(late).execute(&mut field.postgres().await).await.unwrap();
    });
    expect_all_codes_given(&field, &crowd, tally, 400).await;
    assert!(fenced().await > before, "the owner was shut out, and took over again");
    field.leave().await;
}

#[tokio::test]
async fn a_worker_that_froze_before_its_takeover_lets_go_of_what_went_elsewhere() {
    let field = Field::enter(Kind::Faulty).await;
    let coupons = [field.coupon(100, 1).await, field.coupon(100, 1).await];
    // Its first takeover is held while it is frozen past its session; when it goes on, everything is another's.
    field.stack.stop_child(OTHER).await.unwrap();
    field.stack.stop_child(ARMED).await.unwrap();
    let pause = vec![("STAMPEDE_PAUSE_AT".to_owned(), format!("before-takeover:{}", PAUSE.as_millis()))];
    field.stack.set_env(ARMED, pause).unwrap();
    let pauses_before = pauses(&field, ARMED);
    field.stack.start_child(ARMED).await.unwrap();
    is_pausing(&field, ARMED, pauses_before).await;
    let over = Instant::now() + PAUSE;
    let crowds = coupons.each_ref().map(|coupon| Crowd::new(coupon, 200));
    let sale = futures::future::join_all(crowds.iter().map(|crowd| crowd.run(&field)));
    let (tallies, ()) = tokio::join!(sale, async {
        field.stack.freeze(ARMED).unwrap();
        field.stack.restart(OTHER).await.unwrap();
        owns_everything(&field, OTHER).await;
        sleep_until(over).await;
        field.stack.resume(ARMED).unwrap();
    });
    for (crowd, tally) in crowds.iter().zip(tallies) {
        expect_all_codes_given(&field, crowd, tally, 100).await;
    }
    field.restart_with(ARMED, &[]).await;
    field.leave().await;
}

async fn lists(field: &Field) -> Vec<String> {
    let client = redis::Client::open(field.stack.endpoints().redis_url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis.keys("stampede:stock:*").await.unwrap()
}

/// Waits until every list of codes in Redis belongs to an ownership of now, or is one of these (whose owners were
/// killed in other tests): who let go has thrown its lists away.
async fn only_present_owners_have_lists(field: &Field, before: &[String]) {
    let mut postgres = field.postgres().await;
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let sql = "select replace(nonce::text, '-', '') from stampede.partitions where nonce is not null";
        let nonces: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut postgres).await.unwrap();
        let mut left = lists(field).await;
        left.retain(|list| !before.contains(list) && !nonces.iter().any(|nonce| list.contains(nonce)));
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "lists of owners that have gone: {left:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn fault_48_every_process_is_restarted_in_order_under_load_and_nothing_is_lost() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(3_000, 1).await;
    let crowd = Crowd::new(&coupon, 4_000);
    let before = lists(&field).await;
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        for (n, child) in [ARMED, Child::Api(0), OTHER, Child::Api(1)].into_iter().enumerate() {
            crowd.answered(400 + 500 * n).await;
            // An orderly end: within its time, with nothing killed.
            field.stack.stop_child(child).await.unwrap();
            field.stack.restart(child).await.unwrap();
        }
    });
    expect_all_codes_given(&field, &crowd, tally, 3_000).await;
    only_present_owners_have_lists(&field, &before).await;
    field.leave().await;
}
