//! Faults while claims are locked, redeemed and lapse: faults 5, 13, 25, 39, 41 and 42, and takeovers that no request
//! causes. Crashes of a worker are in `crash_points.rs`.

use std::path::Path;
use std::time::Duration;

use fire::skewed_clock;
use futures::future::join_all;
use local_stack::{Admin, Child};
use redis::AsyncCommands as _;
use schemas::topics::REQUESTS;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use e2e::coupon::rules;
use e2e::environment::{APIS, OwnStack, WORKERS};
use e2e::foreign_producer::ForeignProducer;
use e2e::kafka::Record;
use e2e::mixed_load::MixedLoad;
use e2e::outcome::{count, result_of};
use e2e::wait::until_equal;
use e2e::{Environment, Operation, Request, StackKind, orders};

/// The worker that owns the partition of this coupon.
async fn owner(env: &Environment, coupon: &str) -> Option<Child> {
    let sql = "select owner from stampede.partitions where partition = $1";
    let owner = sqlx::query_scalar::<_, Option<String>>(sql).bind(env.partition_of(coupon));
    let owner = owner.fetch_one(&mut env.postgres().await).await.unwrap();
    WORKERS.into_iter().find(|worker| Some(worker.to_string()) == owner)
}

#[tokio::test]
async fn fault_5_a_worker_that_was_frozen_during_a_write_and_continues_changes_nothing() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.stocked(6, rules(&json!({"hold_seconds": 3, "lock_seconds": 60}))).await;
    // While this sleeps, the write has neither committed nor failed.
    let plant = "create function stampede.planted() returns trigger language plpgsql as
                 $$ begin if new.user_id like '%.slow' then perform pg_sleep(2); end if; return new; end $$;
                 create trigger planted before insert on stampede.redemptions
                 for each row execute function stampede.planted()";
    sqlx::raw_sql(plant).execute(&mut env.postgres().await).await.unwrap();
    let codes = [coupon.claim("slow").await, coupon.claim("ann").await, coupon.claim("bob").await];
    let locked = env.decide(Request::new("bob", Operation::lock_for(&codes[2], "order-3"))).await;
    assert_eq!(result_of(&locked), "accepted", "{locked}");
    let former = owner(&env, &coupon.id).await.unwrap();
    let successor = WORKERS.into_iter().find(|worker| *worker != former).unwrap();
    let slow = env.decide(Request::new("slow", orders::redeem(&codes[0], "order-1")));
    let (slow, ()) = tokio::join!(slow, async {
        let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like '%write_batch%'";
        until_equal(1_i64, async || {
            sqlx::query_scalar(sleeping).fetch_one(&mut env.postgres().await).await.unwrap()
        })
        .await;
        env.stack.freeze(former).unwrap();
        until_equal(Some(successor), async || owner(&env, &coupon.id).await).await;
        // The successor lets the hold of ann lapse and accepts redemptions, before the former owner has received the
        // result of its own write.
        let redeemed = env.decide(Request::new("bob", orders::redeem(&codes[2], "order-3"))).await;
        assert_eq!(result_of(&redeemed), "accepted", "{redeemed}");
        coupon.until_counts([4, 0, 0, 2, 0]).await;
        env.stack.resume(former).unwrap();
    });
    assert_eq!(result_of(&slow), "accepted", "{slow}");
    let again = env.decide(Request::new("carl", Operation::claim_code(&coupon.id, &codes[1]))).await;
    assert_eq!(result_of(&again), "accepted", "{again}");
    for code in [&codes[0], &codes[2]] {
        assert_eq!(coupon.events_of(code).await, Vec::<String>::new());
    }
    coupon.until_counts([4, 0, 0, 2, 0]).await;
    assert_eq!(coupon.events_of(&codes[1]).await, ["hold_lapsed", "hold_lapsed"], "of ann and of carl");
    let remove = "drop trigger planted on stampede.redemptions; drop function stampede.planted";
    sqlx::raw_sql(remove).execute(&mut env.postgres().await).await.unwrap();
    env.finish().await;
}

/// Two coupons are sold while entries are planted at the head of their lists again and again, made of the first entries
/// of the coupon's own list and of the other coupon's. Every claimed code is one of its coupon's and is claimed once.
async fn with_planted_list_entries(entries: impl Fn(&[String], &[String]) -> Vec<String>) {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupons = [env.stocked(150, rules(&json!({}))).await, env.stocked(150, rules(&json!({}))).await];
    let mut redis = env.redis().await;
    let (mut claimed, mut planted) = ([Vec::new(), Vec::new()], 0);
    for round in 0..4 {
        let users: Vec<String> = (0..25).map(|n| format!("user-{round}-{n}")).collect();
        for (coupon, claimed) in coupons.iter().zip(&mut claimed) {
            let named = coupon.code(150 - round).await;
            let (any, by_name) = tokio::join!(
                join_all(users.iter().map(|user| coupon.claim(user))),
                env.decide(Request::new("by-name", Operation::claim_code(&coupon.id, &named))),
            );
            assert_eq!(by_name["code"], named, "{by_name}");
            claimed.extend(any.into_iter().chain([named]));
        }
        // Each coupon has a list at first. A list that its owner distrusts is deleted; the next one comes when needed.
        let lists = match round {
            0 => [coupons[0].lists(&mut redis).await, coupons[1].lists(&mut redis).await],
            _ => [coupons[0].current_lists(&mut redis).await, coupons[1].current_lists(&mut redis).await],
        };
        for (own, other) in [(0, 1), (1, 0)] {
            let Some(other) = lists[other].last() else { continue };
            let other: Vec<String> = redis.lrange(other, 0, 2).await.unwrap();
            for list in &lists[own] {
                let own: Vec<String> = redis.lrange(list, 0, 2).await.unwrap();
                for entry in entries(&own, &other).iter().rev() {
                    // A list that was deleted meanwhile is not created again.
                    planted += redis.lpush_exists::<_, _, i64>(list, entry).await.unwrap();
                }
            }
        }
    }
    assert!(planted > 0, "there was a list to plant in");
    for (coupon, mut claimed) in coupons.iter().zip(claimed) {
        let sql = "select count(distinct k.code) from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no) where c.coupon_id = $1 and k.code = any ($2)";
        let own = sqlx::query_scalar::<_, i64>(sql).bind(&coupon.id).bind(&claimed);
        let own = own.fetch_one(&mut env.postgres().await).await.unwrap();
        assert_eq!(own, 4 * 26, "codes of the coupon among {claimed:?}");
        claimed.sort_unstable();
        claimed.dedup();
        assert_eq!(claimed.len(), 4 * 26, "every code is claimed once");
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_25_duplicate_codes_in_a_list_are_given_to_one_user_each() {
    with_planted_list_entries(|own, _| own.to_vec()).await;
}

#[tokio::test]
async fn fault_25_codes_of_another_coupon_in_a_list_are_never_given() {
    with_planted_list_entries(|_, other| other.iter().cloned().chain(["7".to_owned()]).collect()).await;
}

#[tokio::test]
async fn fault_25_a_foreign_code_under_the_next_number_of_a_list_is_never_given() {
    with_planted_list_entries(|own, other| {
        let number = own.first().and_then(|entry| entry.split_once('|')).map_or("", |(number, _)| number);
        let code = other.first().and_then(|entry| entry.split_once('|')).map_or("PLANTED", |(_, code)| code);
        vec![format!("{number}|{code}")]
    })
    .await;
}

#[tokio::test]
async fn fault_13_partitions_that_are_added_to_the_topic_change_nothing() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let load = MixedLoad::new(&env).await;
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let before = coupon.claim("ann").await;
    let outcomes = load.during(async {
        load.rounds(20).await;
        let admin = Admin::new(&env.stack.endpoints().kafka).unwrap();
        admin.add_partitions(REQUESTS, 12).await.expect("the topic has twelve partitions");
        // All clients see them: after a restart they fetch the metadata, and the group assigns the new partitions.
        for child in WORKERS.into_iter().chain([APIS[0]]) {
            env.stack.stop_child(child).await.unwrap();
            env.stack.restart(child).await.unwrap();
        }
        load.rounds(40).await;
    });
    assert!(outcomes.await.contains_key("redeem accepted"));
    // A claim from before is found in its partition, and a new claim as well.
    env.accepted("ann", orders::redeem(&before, "order-1")).await;
    let after = coupon.claim("bob").await;
    env.accepted("bob", Operation::lock(&after)).await;
    assert_eq!(coupon.counts().await, [0, 0, 1, 1, 0]);
    // A record in a new partition is never decided.
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    let lost = producer.request("unlock", "bob", Some(&after));
    producer.produce(&Record { partition: 11, ..producer.record(&lost) }).await;
    producer.until_decided().await;
    env.settle().await;
    assert_eq!(producer.result(&lost).await, None);
    assert_eq!(coupon.counts().await, [0, 0, 1, 1, 0]);
    env.finish().await;
}

#[tokio::test]
async fn fault_42_a_request_appended_in_time_is_in_time_however_long_the_backlog_is() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let fields = json!({"hold_seconds": 60, "lock_seconds": 2, "requires_lock": true,
        "limits": {"claims_per_user": null}});
    let coupon = env.stocked(3_000, fields).await;
    let (in_time, late) = (coupon.claim("ann").await, coupon.claim("bob").await);
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    for worker in WORKERS {
        env.stack.stop_child(worker).await.unwrap();
    }
    let send = async |user: &'static str, operation: Operation<'_>| {
        let reply = env.send(Request::new(user, operation).wait(0)).await;
        assert_eq!(reply.status, 202, "{}", reply.body);
        reply
    };
    // The locks and a redemption in time; a long backlog; a redemption after the lock has ended.
    let early = [
        send("ann", Operation::lock_for(&in_time, "order-1")).await,
        send("bob", Operation::lock_for(&late, "order-2")).await,
        send("ann", orders::redeem(&in_time, "order-1")).await,
    ];
    let lock_ends = Instant::now() + Duration::from_millis(2_100);
    let backlog: Vec<_> = (0..1_500).map(|n| producer.request("claim", &format!("user-{n}"), None)).collect();
    join_all(backlog.iter().map(|request| producer.send(request))).await;
    sleep_until(lock_ends).await;
    let too_late = send("bob", orders::redeem(&late, "order-2")).await;
    for worker in WORKERS {
        env.stack.start_child(worker).await.unwrap();
    }
    for (reply, user, wanted) in [
        (&early[0], "ann", "accepted"),
        (&early[1], "bob", "accepted"),
        (&early[2], "ann", "accepted"),
        (&too_late, "bob", "lock_lapsed"),
    ] {
        let outcome = env.outcome_of(reply, Request::new(user, Operation::lock(&late))).await;
        assert_eq!(result_of(&outcome), wanted, "{outcome}");
    }
    producer.until_decided().await;
    assert_eq!(coupon.events_of(&late).await, ["lock_lapsed"]);
    assert_eq!(coupon.events_of(&in_time).await, Vec::<String>::new());
    assert_eq!(coupon.counts().await, [1_498, 1_501, 0, 1, 0]);
    env.finish().await;
}

#[tokio::test]
async fn a_lapse_that_is_due_while_a_partition_has_no_owner_is_written_by_the_next_owner_without_a_request() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let mut coupons = Vec::new();
    for _ in 0..6 {
        coupons.push(env.stocked(3, rules(&json!({"hold_seconds": 2, "lock_seconds": 2}))).await);
    }
    let claims = coupons.iter().map(|coupon| async {
        let codes = [coupon.claim("ann").await, coupon.claim("bob").await];
        env.decide(Request::new("bob", Operation::lock(&codes[1]))).await;
        codes
    });
    let codes = join_all(claims).await;
    for worker in WORKERS {
        env.stack.kill(worker).unwrap();
    }
    // Some holds end before a worker owns their partition again, the others before or after. No record states it.
    for worker in WORKERS {
        env.stack.restart(worker).await.unwrap();
    }
    for (coupon, codes) in coupons.iter().zip(codes) {
        coupon.until_counts([3, 0, 0, 0, 0]).await;
        assert_eq!(coupon.events_of(&codes[0]).await, ["hold_lapsed"]);
        let mut both = coupon.events_of(&codes[1]).await;
        both.sort_unstable();
        assert_eq!(both, ["hold_lapsed", "lock_lapsed"]);
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_41_workers_whose_clocks_are_an_hour_off_let_nothing_lapse_early_or_late() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let library = skewed_clock(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let restarts = WORKERS.into_iter().zip(["3600", "-3600"]).map(|(worker, seconds)| {
        let variables = [("LD_PRELOAD", library.to_str().unwrap()), ("SKEW_SECONDS", seconds)];
        let env = &env;
        async move { env.restart_with(worker, &variables).await }
    });
    join_all(restarts).await;
    // Enough coupons for both workers. Of each, one code is held and one locked: one of them for long, one briefly.
    let mut coupons = Vec::new();
    for (hold, lock) in [(2, 60), (60, 2)].into_iter().cycle().take(12) {
        coupons.push(env.stocked(2, rules(&json!({"hold_seconds": hold, "lock_seconds": lock}))).await);
    }
    let claims = coupons.iter().map(|coupon| async {
        let codes = [coupon.claim("ann").await, coupon.claim("bob").await];
        let locked = env.decide(Request::new("bob", Operation::lock(&codes[1]))).await;
        assert_eq!(result_of(&locked), "accepted", "{locked}");
        codes
    });
    let codes = join_all(claims).await;
    for (n, (coupon, [first, second])) in coupons.iter().zip(&codes).enumerate() {
        if n.is_multiple_of(2) {
            // The hold of ann has ended; the lock of bob has not, and its code may be redeemed.
            coupon.until_counts([1, 0, 1, 0, 0]).await;
            coupon.expect("ann", first, ("-", "hold_lapsed", [1, 0, 1, 0, 0])).await;
            env.accepted("bob", orders::redeem(second, "order-1")).await;
        } else {
            // The lock of bob has ended; the holds have not.
            coupon.until_counts([0, 2, 0, 0, 0]).await;
            coupon.expect("bob", second, ("CLAIMED", "valid", [0, 2, 0, 0, 0])).await;
            env.accepted("ann", orders::redeem(first, "order-1")).await;
        }
    }
    // Both clocks are wrong, and each worker has decided something: a partition's time less the worker's own.
    for (worker, sign) in WORKERS.into_iter().zip([-1.0, 1.0]) {
        let ahead = env.metric(worker, "stampede_partition_time_ahead_seconds", "").await;
        assert!(ahead * sign > 3_000.0, "{worker} is off by {ahead}");
    }
    env.heal().await;
    std::fs::remove_file(library).ok();
    env.finish().await;
}

#[tokio::test]
async fn fault_39_a_redemption_after_the_lapse_is_rejected_although_the_workers_are_killed_meanwhile() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let fields = json!({"hold_seconds": 2, "lock_seconds": 1, "requires_lock": true});
    let coupon = env.stocked(30, rules(&fields)).await;
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let each = async |user: &str| {
        let code = coupon.claim(user).await;
        env.decide(Request::new(user, Operation::lock(&code))).await;
        until_equal(true, async || {
            matches!(&*coupon.validation(user, &code).await, "lock_lapsed" | "hold_lapsed")
        })
        .await;
        env.decide(Request::new(user, orders::redeem(&code, "order"))).await
    };
    let (redemptions, ()) = tokio::join!(join_all(users.iter().map(|user| each(user))), async {
        for worker in WORKERS {
            env.stack.kill(worker).unwrap();
            env.stack.restart(worker).await.unwrap();
        }
    });
    let late = ["lock_lapsed", "hold_lapsed", "not_locked"].map(|reason| count(&redemptions, reason));
    assert_eq!(late.iter().sum::<usize>(), 30, "{redemptions:?}");
    coupon.until_counts([30, 0, 0, 0, 0]).await;
    env.finish().await;
}
