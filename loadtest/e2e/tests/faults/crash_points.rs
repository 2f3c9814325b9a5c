//! A worker that dies at every one of its crash points while codes are locked, redeemed, rolled back and lapse: every
//! request has one outcome, and the checker is content.

use local_stack::Child;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use crate::support::field::SETTLES_WITHIN;
use crate::support::life::word;
use crate::support::lives::Lives;
use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Sale};
use serde_json::json;

const ARMED: Child = Child::Worker(0);
const OTHER: Child = Child::Worker(1);

/// The only worker is told to die at this place, and does.
async fn dies_at(field: &Field, place: &str) {
    if field.stack.is_running(ARMED) {
        field.stack.stop_child(ARMED).await.unwrap();
    }
    field.stack.set_env(ARMED, vec![("STAMPEDE_CRASH_AT".to_owned(), place.to_owned())]).unwrap();
    field.stack.start_child(ARMED).await.unwrap();
    let ended = field.stack.wait_exit(ARMED, SETTLES_WITHIN);
    let provoked = async {
        let ended = tokio::select! {
            ended = ended => ended,
            () = provoke(field, place) => unreachable!("it goes on until the worker has ended"),
        };
        ended.unwrap_or_else(|error| panic!("{place}: {error}"))
    };
    let ended = provoked.await;
    assert_eq!(
        ended.signal(),
        Some(nix::libc::SIGABRT),
        "it crashed at {place}, where it was told to: {ended}"
    );
}

/// Some places are passed only if something is done to the worker.
async fn provoke(field: &Field, place: &str) {
    let mut postgres = field.postgres().await;
    loop {
        match place.split(':').next() {
            // A takeover that comes late shuts the owner out: it reads back what became of its write.
            Some("after-read-back") => {
                let late = "select stampede.take_over(partition, 'somebody late', gen_random_uuid()) from stampede.partitions";
                sqlx::raw_sql(late).execute(&mut postgres).await.unwrap();
                sleep(Duration::from_millis(300)).await;
            }
            // Where requests come all the time, they move the time. Sooner or later one of these has a partition to itself.
            Some("before-tick" | "after-tick") => {
                let coupon = field.stocked(1, rules(&json!({"hold_seconds": 1}))).await;
                Sale::of(field, &coupon).claim("whoever holds a code in a quiet place").await;
                sleep(Duration::from_secs(1)).await;
            }
            Some("before-release") => {
                if field.stack.wait_healthy(ARMED).await.is_ok() {
                    field.stack.terminate(ARMED).ok();
                }
            }
            _ => sleep(Duration::from_secs(3600)).await,
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Lives go on while the only worker dies at one place after another; then it is whole again.
async fn lives_while_it_dies_at(places: &[&str]) -> BTreeMap<String, usize> {
    let field = Field::enter(Kind::Faulty).await;
    let lives = Lives::of(&field).await;
    field.stack.stop_child(OTHER).await.unwrap();
    let dying = async {
        lives.lived(10).await;
        for place in places {
            dies_at(&field, place).await;
        }
        field.stack.set_env(ARMED, Vec::new()).unwrap();
        field.stack.restart(ARMED).await.unwrap();
        field.stack.restart(OTHER).await.unwrap();
        lives.lived(30).await;
    };
    let words = Box::pin(lives.during(dying)).await;
    for coupon in lives.coupons() {
        // What is held lapses, what is redeemed stays.
        let sale = Sale::of(&field, coupon);
        let until = Instant::now() + SETTLES_WITHIN;
        while let [_, claimed, locked, ..] = sale.counts().await
            && claimed + locked > 0
        {
            assert!(Instant::now() < until, "something never lapses: {:?}", sale.counts().await);
            sleep(Duration::from_millis(50)).await;
        }
    }
    field.leave().await;
    for kind in ["claim accepted", "lock accepted", "redeem accepted", "rollback accepted", "return accepted"]
    {
        assert!(words.contains_key(kind), "{kind} is not among {words:?}");
    }
    words
}

#[tokio::test]
async fn a_worker_dies_at_every_place_of_a_takeover_while_codes_live() {
    lives_while_it_dies_at(&[
        "before-takeover:3",
        "after-takeover:5",
        "after-check-log:2",
        "before-tick:1",
        "after-tick:1",
        "before-release",
    ])
    .await;
}

#[tokio::test]
async fn fault_27_a_worker_dies_at_every_place_on_the_way_to_a_decision_while_codes_live() {
    lives_while_it_dies_at(&[
        "after-lookup:7",
        "after-pop:2",
        "before-refill",
        "amid-refill",
        "after-refill",
    ])
    .await;
}

#[tokio::test]
async fn a_worker_dies_at_every_place_around_a_write_while_codes_live() {
    lives_while_it_dies_at(&[
        "before-write:6",
        "after-write:9",
        "before-watermark:3",
        "after-read-back",
        "before-commit-offset:3",
        "after-commit-offset:3",
    ])
    .await;
}

#[tokio::test]
async fn a_worker_dies_at_every_place_of_telling_while_codes_live() {
    lives_while_it_dies_at(&[
        "amid-publish:4",
        // What was sent and not acknowledged is what the next one tells again.
        "after-publish-sent:6",
        "before-republish",
        "after-republish",
        "after-publish-acknowledged:5",
    ])
    .await;
}

#[test]
fn every_crash_point_of_the_worker_is_died_at() {
    let points = include_str!("../../workers/src/crash_points.rs");
    let tests = include_str!("life_crashes.rs");
    let names = points.lines().filter_map(|line| {
        let (variant, name) = line.trim().split_once(" = \"")?;
        variant.chars().all(char::is_alphanumeric).then(|| name.trim_end_matches("\","))
    });
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    // Passed only with letters, or with lists, which come and go here as they like: `workers/tests/crashing.rs` provokes
    // them, and walks all places with claims alone.
    let elsewhere = ["before-events", "after-delete-lists"];
    for name in names.into_iter().filter(|name| !elsewhere.contains(name)) {
        assert!(
            tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("\"{name}:")),
            "nobody dies at {name}"
        );
    }
}

/// The only worker is down when a hold ends, and dies as soon as it lets it lapse; then the code goes to one user.
async fn dies_at_the_lapse(places: &[&str]) {
    let field = Field::enter(Kind::Faulty).await;
    field.stack.stop_child(OTHER).await.unwrap();
    for place in places {
        let coupon = field.stocked(1, rules(&json!({"hold_seconds": 1}))).await;
        let sale = Sale::of(&field, &coupon);
        let code = sale.claim("ann").await;
        field.stack.stop_child(ARMED).await.unwrap();
        let until = Instant::now() + SETTLES_WITHIN;
        while sale.validation("ann", &code).await != "hold_lapsed" {
            assert!(Instant::now() < until, "the hold never ends");
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(sale.counts().await, [0, 1, 0, 0, 0], "nobody has written that it lapsed");
        dies_at(&field, place).await;
        field.restart_with(ARMED, &[]).await;
        sale.until([1, 0, 0, 0, 0]).await;
        assert_eq!(sale.lapses(&code).await, ["hold_lapsed"], "{place}");
        let users = ["bob", "carl", "dora"];
        let asked = users.map(|user| field.see_through(Act::of(user, Deed::Claim(&coupon))));
        let told = futures::future::join_all(asked).await;
        let words: Vec<&str> = told.iter().map(word).collect();
        assert_eq!(words.iter().filter(|word| **word == "accepted").count(), 1, "{place}: {words:?}");
        sale.until([1, 0, 0, 0, 0]).await;
    }
    field.leave().await;
}

#[tokio::test]
async fn a_hold_lapses_once_although_the_worker_dies_at_the_moment_of_the_lapse() {
    dies_at_the_lapse(&["after-tick", "before-write", "after-write"]).await;
}
