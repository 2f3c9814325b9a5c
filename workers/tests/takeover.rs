//! How long a partition is without an owner: measured, not asserted (other things run on the machine that runs tests).
//!
//! `cargo test -p workers --test takeover -- --ignored --nocapture` prints, for partitions under a light load, how long
//! after a kill (beyond the session timeout) and after an orderly end the next owner's first outcome comes.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "a measurement needs less of it")]
mod shop;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use local_stack::Child;
use schemas::partition_for;
use shop::{PARTITIONS, Shop, claim, open};

/// As `shop` sets it.
const SESSION: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const RHYTHM: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    InOrder,
}

/// What was sent, and when, by request id.
type Sent = BTreeMap<String, (i32, Instant)>;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_long_a_partition_is_without_an_owner() {
    for codes in [1_000, 100_000] {
        let mut shop = open(2, Vec::new()).await;
        let coupons: Vec<String> = (0..PARTITIONS).map(coupon_of).collect();
        for coupon in &coupons {
            shop.coupon(coupon, codes).await;
        }
        let mut users = 0;
        for end in [End::Killed, End::InOrder] {
            let mut waits = Vec::new();
            for round in 0..ROUNDS {
                waits.extend(one_round(&mut shop, &coupons, end, round, &mut users).await);
            }
            waits.sort_unstable();
            let beyond = if end == End::Killed { SESSION } else { Duration::ZERO };
            let beyond = |wait: Duration| wait.as_secs_f64() * 1e3 - beyond.as_secs_f64() * 1e3;
            println!(
                "{end:?}, {codes} codes a coupon: {} partitions without an owner, median {:.0} ms, worst {:.0} ms",
                waits.len(),
                beyond(waits[waits.len() / 2]),
                beyond(waits[waits.len() - 1]),
            );
        }
        shop.close().await;
    }
}

/// A coupon of this partition.
fn coupon_of(partition: i32) -> String {
    (0..)
        .map(|n| format!("coupon-{n}-"))
        .find(|id| partition_for(id.as_bytes(), PARTITIONS) == partition)
        .unwrap()
}

/// Ends one of two workers; answers for each of its partitions when the first request sent afterwards was answered.
async fn one_round(
    shop: &mut Shop,
    coupons: &[String],
    end: End,
    round: usize,
    users: &mut u32,
) -> Vec<Duration> {
    let victim = Child::Worker(round % 2);
    for worker in 0..2 {
        shop.stack.restart(Child::Worker(worker)).await.unwrap();
    }
    let spread = "select (count(distinct owner) = 2)::int::bigint from stampede.partitions";
    shop.until("both own partitions", spread, 1).await;
    let sql = "select partition from stampede.partitions where owner = $1";
    let orphans: Vec<i32> =
        sqlx::query_scalar(sql).bind(victim.to_string()).fetch_all(&shop.pool).await.unwrap();
    let mut sent = Sent::new();
    for _ in 0..50 {
        send(shop, coupons, &mut sent, users);
    }
    let ended = Instant::now();
    println!("{} {end:?} {victim}", humantime());
    if end == End::Killed {
        shop.stack.kill(victim).unwrap();
    } else {
        shop.stack.terminate(victim).unwrap();
    }
    let mut first: BTreeMap<i32, Duration> = BTreeMap::new();
    while first.len() < orphans.len() {
        send(shop, coupons, &mut sent, users);
        for (partition, at) in
            sent.iter().filter(|(id, _)| shop.told.contains_key(*id)).map(|(_, sent)| *sent)
        {
            if at > ended && orphans.contains(&partition) {
                first.entry(partition).or_insert_with(|| ended.elapsed());
            }
        }
        assert!(ended.elapsed() < Duration::from_secs(300), "{first:?} of {orphans:?}");
    }
    if end == End::InOrder {
        assert!(shop.stack.wait_exit(victim, Duration::from_secs(60)).await.unwrap().success());
    }
    let ids: Vec<String> = sent.into_keys().collect();
    shop.settle(&ids);
    shop.told.clear();
    first.into_values().collect()
}

/// One claim for each coupon; then listens for a while.
fn send(shop: &mut Shop, coupons: &[String], sent: &mut Sent, users: &mut u32) {
    for coupon in coupons {
        let request = claim(coupon, &format!("user-{users}"));
        *users += 1;
        shop.send(&request);
        sent.insert(request.request_id, (partition_for(coupon.as_bytes(), PARTITIONS), Instant::now()));
    }
    let until = Instant::now() + RHYTHM;
    while Instant::now() < until {
        shop.listen(Duration::from_millis(1));
    }
}

fn humantime() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{:02}:{:02}.{:03}", now.as_secs() / 60 % 60, now.as_secs() % 60, now.subsec_millis())
}
