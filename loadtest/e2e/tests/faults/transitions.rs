//! Faults while codes live: 5, 13, 25, 41, 42, and takeovers that nobody's request helps along. That a worker dies is in
//! `life_crashes.rs`, what foreign producers write in `life_input.rs`.

use std::path::Path;
use std::time::Duration;

use fire::skewed_clock;
use futures::future::join_all;
use local_stack::{Admin, Child};
use redis::AsyncCommands as _;
use schemas::topics::REQUESTS;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::field::SETTLES_WITHIN;
use crate::support::foreigner::Foreigner;
use crate::support::life::{count, word};
use crate::support::lives::Lives;
use crate::support::log::Planted;
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};

const WORKERS: [Child; 2] = [Child::Worker(0), Child::Worker(1)];

/// Which of the workers owns the partition of this coupon.
async fn owner(field: &Field, coupon: &str) -> Option<Child> {
    let sql = "select p.owner from stampede.partitions p join stampede.coupons c using (partition) where c.coupon_id = $1";
    let owner = sqlx::query_scalar::<_, Option<String>>(sql).bind(coupon);
    let owner = owner.fetch_one(&mut field.postgres().await).await.unwrap();
    WORKERS.into_iter().find(|worker| Some(worker.to_string()) == owner)
}

async fn until<T: PartialEq + std::fmt::Debug>(wanted: T, mut found: impl AsyncFnMut() -> T) {
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let now = found().await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < until, "it stays {now:?}, and should become {wanted:?}");
        sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test]
async fn fault_5_a_worker_that_froze_in_the_middle_of_a_write_and_goes_on_changes_nothing() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.stocked(6, rules(&json!({"hold_seconds": 3, "lock_seconds": 60}))).await;
    let sale = Sale::of(&field, &coupon);
    // While this sleeps, the write is neither there nor not there.
    let plant = "create function stampede.planted() returns trigger language plpgsql as
                 $$ begin if new.user_id = 'slow' then perform pg_sleep(2); end if; return new; end $$;
                 create trigger planted before insert on stampede.redemptions
                 for each row execute function stampede.planted()";
    sqlx::raw_sql(plant).execute(&mut field.postgres().await).await.unwrap();
    let codes = [sale.claim("slow").await, sale.claim("ann").await, sale.claim("bob").await];
    let locked = field.see_through(Act::of("bob", Deed::LockFor(&codes[2], "order-3"))).await;
    assert_eq!(word(&locked), "accepted", "{locked}");
    let owner_before = owner(&field, &coupon).await.unwrap();
    let heir = WORKERS.into_iter().find(|worker| *worker != owner_before).unwrap();
    let (slow, ()) = tokio::join!(
        field.see_through(Act::of("slow", Deed::Redeem(&codes[0], "order-1"))),
        async {
            let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like '%write_batch%'";
            until(1_i64, async || {
                sqlx::query_scalar(asleep).fetch_one(&mut field.postgres().await).await.unwrap()
            })
            .await;
            field.stack.freeze(owner_before).unwrap();
            until(Some(heir), async || owner(&field, &coupon).await).await;
            // The heir lets ann's hold lapse, and takes redeems, while the old owner has not heard of its own write.
            let redeemed = field.see_through(Act::of("bob", Deed::Redeem(&codes[2], "order-3"))).await;
            assert_eq!(word(&redeemed), "accepted", "{redeemed}");
            sale.until([4, 0, 0, 2, 0]).await;
            field.stack.resume(owner_before).unwrap();
        }
    );
    assert_eq!(word(&slow), "accepted", "{slow}");
    let again = field.see_through(Act::of("carl", Deed::ClaimNamed(&coupon, &codes[1]))).await;
    assert_eq!(word(&again), "accepted", "{again}");
    for code in [&codes[0], &codes[2]] {
        assert_eq!(sale.lapses(code).await, Vec::<String>::new());
    }
    sale.until([4, 0, 0, 2, 0]).await;
    assert_eq!(sale.lapses(&codes[1]).await, ["hold_lapsed", "hold_lapsed"], "ann's, and carl's");
    let remove = "drop trigger planted on stampede.redemptions; drop function stampede.planted";
    sqlx::raw_sql(remove).execute(&mut field.postgres().await).await.unwrap();
    field.leave().await;
}

/// Two coupons under way, with something planted at the head of their lists again and again: what it is, is made of the
/// first entries of a list and of the other's. Every code goes to one user, and is one of its coupon's.
async fn with_lists_in_disorder(plant: impl Fn(&[String], &[String]) -> Vec<String>) {
    let field = Field::enter(Kind::Faulty).await;
    let coupons = [field.stocked(150, rules(&json!({}))).await, field.stocked(150, rules(&json!({}))).await];
    let sales = coupons.each_ref().map(|coupon| Sale::of(&field, coupon));
    let mut redis = field.redis().await;
    let (mut given, mut planted) = ([Vec::new(), Vec::new()], 0);
    for round in 0..4 {
        let users: Vec<String> = (0..25).map(|n| format!("user-{round}-{n}")).collect();
        for (sale, given) in sales.iter().zip(&mut given) {
            let named = sale.code(150 - round).await;
            let (any, by_name) = tokio::join!(
                join_all(users.iter().map(|user| sale.claim(user))),
                field.see_through(Act::of("by name", Deed::ClaimNamed(sale.coupon, &named))),
            );
            assert_eq!(by_name["code"], named, "{by_name}");
            given.extend(any.into_iter().chain([named]));
        }
        // There is one at first; one that was doubted goes, and the next comes when it is needed.
        let lists = match round {
            0 => [sales[0].lists(&mut redis).await, sales[1].lists(&mut redis).await],
            _ => [sales[0].lists_now(&mut redis).await, sales[1].lists_now(&mut redis).await],
        };
        for (own, other) in [(0, 1), (1, 0)] {
            let Some(other) = lists[other].last() else { continue };
            let other: Vec<String> = redis.lrange(other, 0, 2).await.unwrap();
            for list in &lists[own] {
                let own: Vec<String> = redis.lrange(list, 0, 2).await.unwrap();
                for entry in plant(&own, &other).iter().rev() {
                    // A list that was abandoned and is gone is not made anew.
                    planted += redis.lpush_exists::<_, _, i64>(list, entry).await.unwrap();
                }
            }
        }
    }
    assert!(planted > 0, "there was a list to plant in");
    for (sale, mut given) in sales.into_iter().zip(given) {
        let sql = "select count(distinct k.code) from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no) where c.coupon_id = $1 and k.code = any ($2)";
        let own = sqlx::query_scalar::<_, i64>(sql).bind(sale.coupon).bind(&given);
        let own = own.fetch_one(&mut field.postgres().await).await.unwrap();
        assert_eq!(own, 4 * 26, "of {given:?}, which are its own and given once");
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 4 * 26, "every code went to one user");
    }
    field.leave().await;
}

#[tokio::test]
async fn fault_25_duplicate_codes_in_a_list_are_given_to_nobody_twice() {
    with_lists_in_disorder(|own, _| own.to_vec()).await;
}

#[tokio::test]
async fn fault_25_codes_of_another_coupon_in_a_list_are_given_to_nobody() {
    with_lists_in_disorder(|_, other| other.iter().cloned().chain(["7".to_owned()]).collect()).await;
}

#[tokio::test]
async fn fault_25_a_foreign_code_under_the_number_that_comes_next_is_given_to_nobody() {
    with_lists_in_disorder(|own, other| {
        let number = own.first().and_then(|entry| entry.split_once('|')).map_or("", |(number, _)| number);
        let code = other.first().and_then(|entry| entry.split_once('|')).map_or("FORGED", |(_, code)| code);
        vec![format!("{number}|{code}")]
    })
    .await;
}

#[tokio::test]
async fn fault_13_partitions_that_somebody_adds_change_nothing() {
    let field = Field::enter(Kind::Faulty).await;
    let lives = Lives::of(&field).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let before = sale.claim("ann").await;
    let words = lives.during(async {
        lives.lived(20).await;
        let admin = Admin::new(&field.stack.endpoints().kafka).unwrap();
        admin.add_partitions(REQUESTS, 12).await.expect("the broker has twelve partitions");
        // Everybody hears of them: the clients' metadata is renewed, the group spreads them, the workers start anew.
        for worker in WORKERS {
            field.restart_with(worker, &[]).await;
        }
        field.restart_with(Child::Api(0), &[]).await;
        lives.lived(40).await;
    });
    assert!(words.await.contains_key("redeem accepted"));
    // What was claimed before is found where it was; what is claimed now is, too.
    field.accepted("ann", Deed::Redeem(&before, "order-1")).await;
    let after = sale.claim("bob").await;
    field.accepted("bob", Deed::Lock(&after)).await;
    assert_eq!(sale.counts().await, [0, 0, 1, 1, 0]);
    // A record in a new partition is in nobody's.
    let foreigner = Foreigner::at(&field, &coupon).await;
    let lost = foreigner.request("unlock", "bob", Some(&after));
    foreigner.produce(&Planted { partition: 11, ..foreigner.record(&lost) }).await;
    foreigner.heard(&field).await;
    field.checked().await;
    assert_eq!(foreigner.outcome(&field, &lost).await, None);
    assert_eq!(sale.counts().await, [0, 0, 1, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn fault_42_what_was_appended_in_time_is_in_time_however_long_the_backlog() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field
        .stocked(
            3_000,
            json!({"hold_seconds": 60, "lock_seconds": 2, "requires_lock": true,
        "limits": {"claims_per_user": null}}),
        )
        .await;
    let sale = Sale::of(&field, &coupon);
    let (punctual, late) = (sale.claim("ann").await, sale.claim("bob").await);
    let foreigner = Foreigner::at(&field, &coupon).await;
    for worker in WORKERS {
        field.stack.stop_child(worker).await.unwrap();
    }
    let sent = async |user: &'static str, deed: Deed<'_>| {
        let act = Act::of(user, deed).wait(0);
        let reply = field.act(act).await;
        assert_eq!(reply.status, 202, "{}", reply.body);
        reply
    };
    // The locks, a redeem in their time; a long backlog; a redeem when it is over.
    let early = [
        sent("ann", Deed::LockFor(&punctual, "order-1")).await,
        sent("bob", Deed::LockFor(&late, "order-2")).await,
        sent("ann", Deed::Redeem(&punctual, "order-1")).await,
    ];
    let over = Instant::now() + Duration::from_millis(2_100);
    let backlog: Vec<_> =
        (0..1_500).map(|n| foreigner.request("claim", &format!("user-{n}"), None)).collect();
    join_all(backlog.iter().map(|request| foreigner.send(request))).await;
    tokio::time::sleep_until(over).await;
    let too_late = sent("bob", Deed::Redeem(&late, "order-2")).await;
    for worker in WORKERS {
        field.stack.restart(worker).await.unwrap();
    }
    for (reply, user, wanted) in [
        (&early[0], "ann", "accepted"),
        (&early[1], "bob", "accepted"),
        (&early[2], "ann", "accepted"),
        (&too_late, "bob", "lock_lapsed"),
    ] {
        let outcome = field.outcome_of(reply, Act::of(user, Deed::Lock(&late))).await;
        assert_eq!(word(&outcome), wanted, "{outcome}");
    }
    foreigner.heard(&field).await;
    assert_eq!(sale.lapses(&late).await, ["lock_lapsed"]);
    assert_eq!(sale.lapses(&punctual).await, Vec::<String>::new());
    assert_eq!(sale.counts().await, [1_498, 1_501, 0, 1, 0]);
    field.leave().await;
}

#[tokio::test]
async fn what_lapsed_while_nobody_owned_its_partition_is_written_by_the_next_owner_without_any_request() {
    let field = Field::enter(Kind::Faulty).await;
    let mut coupons = Vec::new();
    for _ in 0..6 {
        coupons.push(field.stocked(3, rules(&json!({"hold_seconds": 2, "lock_seconds": 2}))).await);
    }
    let claims = coupons.iter().map(|coupon| async {
        let sale = Sale::of(&field, coupon);
        let codes = [sale.claim("ann").await, sale.claim("bob").await];
        field.see_through(Act::of("bob", Deed::Lock(&codes[1]))).await;
        codes
    });
    let codes = join_all(claims).await;
    for worker in WORKERS {
        field.stack.kill(worker).unwrap();
    }
    // One lapses before anybody owns its partition again, the others before or after; no record says so.
    for worker in WORKERS {
        field.stack.restart(worker).await.unwrap();
    }
    for (coupon, codes) in coupons.iter().zip(codes) {
        let sale = Sale::of(&field, coupon);
        sale.until([3, 0, 0, 0, 0]).await;
        assert_eq!(sale.lapses(&codes[0]).await, ["hold_lapsed"]);
        let mut both = sale.lapses(&codes[1]).await;
        both.sort_unstable();
        assert_eq!(both, ["hold_lapsed", "lock_lapsed"]);
    }
    field.leave().await;
}

#[tokio::test]
async fn fault_41_workers_whose_clocks_are_an_hour_off_let_nothing_lapse_early_or_late() {
    let field = Field::enter(Kind::Faulty).await;
    let clock = skewed_clock(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    for (worker, seconds) in WORKERS.into_iter().zip(["3600", "-3600"]) {
        field
            .restart_with(worker, &[("LD_PRELOAD", clock.to_str().unwrap()), ("SKEW_SECONDS", seconds)])
            .await;
    }
    // Enough coupons for both workers: of each, one code is held and locked for long, another one briefly.
    let mut coupons = Vec::new();
    for (hold, lock) in [(2, 60), (60, 2)].into_iter().cycle().take(12) {
        coupons.push(field.stocked(2, rules(&json!({"hold_seconds": hold, "lock_seconds": lock}))).await);
    }
    let claims = coupons.iter().map(|coupon| async {
        let sale = Sale::of(&field, coupon);
        let codes = [sale.claim("ann").await, sale.claim("bob").await];
        let locked = field.see_through(Act::of("bob", Deed::Lock(&codes[1]))).await;
        assert_eq!(word(&locked), "accepted", "{locked}");
        codes
    });
    let codes = join_all(claims).await;
    for (n, (coupon, [first, second])) in coupons.iter().zip(&codes).enumerate() {
        let sale = Sale::of(&field, coupon);
        if n.is_multiple_of(2) {
            // Ann's hold is over, bob's lock is not, and may be paid with.
            sale.until([1, 0, 1, 0, 0]).await;
            sale.expect("ann", first, ("-", "hold_lapsed", [1, 0, 1, 0, 0])).await;
            field.accepted("bob", Deed::Redeem(second, "order-1")).await;
        } else {
            // Bob's lock is over, the holds are not.
            sale.until([0, 2, 0, 0, 0]).await;
            sale.expect("bob", second, ("CLAIMED", "valid", [0, 2, 0, 0, 0])).await;
            field.accepted("ann", Deed::Redeem(first, "order-1")).await;
        }
    }
    // Both clocks are wrong indeed, and each has decided something: a partition's time less the worker's own.
    for (worker, sign) in WORKERS.into_iter().zip([-1.0, 1.0]) {
        let ahead = field.metric(worker, "stampede_partition_time_ahead_seconds", "").await;
        assert!(ahead * sign > 3_000.0, "{worker} is off by {ahead}");
    }
    field.restart_with(WORKERS[0], &[]).await;
    field.restart_with(WORKERS[1], &[]).await;
    std::fs::remove_file(clock).ok();
    field.leave().await;
}

#[tokio::test]
async fn fault_39_a_redeem_after_the_lapse_is_too_late_however_the_workers_come_and_go() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon =
        field.stocked(30, rules(&json!({"hold_seconds": 2, "lock_seconds": 1, "requires_lock": true}))).await;
    let sale = Sale::of(&field, &coupon);
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}")).collect();
    let each = async |user: &str| {
        let code = sale.claim(user).await;
        let locked = field.see_through(Act::of(user, Deed::Lock(&code))).await;
        until(true, async || matches!(&*sale.validation(user, &code).await, "lock_lapsed" | "hold_lapsed"))
            .await;
        let told = field.see_through(Act::of(user, Deed::Redeem(&code, "order"))).await;
        (locked, told)
    };
    let (told, ()) = tokio::join!(join_all(users.iter().map(|user| each(user))), async {
        for worker in WORKERS {
            field.stack.kill(worker).unwrap();
            field.stack.restart(worker).await.unwrap();
        }
    });
    let (_, redeems): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    let late = ["lock_lapsed", "hold_lapsed", "not_locked"].map(|word| count(&redeems, word));
    assert_eq!(late.iter().sum::<usize>(), 30, "{redeems:?}");
    sale.until([30, 0, 0, 0, 0]).await;
    field.leave().await;
}
