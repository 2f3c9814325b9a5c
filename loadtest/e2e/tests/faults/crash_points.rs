//! A worker dies at each of its crash points while codes are claimed, locked, redeemed, rolled back and lapse: every
//! request has one outcome, and every invariant holds.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use local_stack::Child;
use serde_json::json;
use tokio::time::sleep;

use e2e::coupon::rules;
use e2e::environment::{OwnStack, WORKERS};
use e2e::mixed_load::MixedLoad;
use e2e::outcome::{count, result_of};
use e2e::wait::{TIMEOUT, until};
use e2e::{Request, StackKind};

const ARMED: Child = WORKERS[0];
const OTHER: Child = WORKERS[1];

/// Starts the only worker so that it dies at this crash point, and waits until it has.
async fn dies_at(env: &OwnStack, crash_point: &str) {
    if env.stack.is_running(ARMED) {
        env.stack.stop_child(ARMED).await.unwrap();
    }
    env.start_with(ARMED, &[("STAMPEDE_CRASH_AT", crash_point)]).await;
    let exit = tokio::select! {
        exit = env.stack.wait_exit(ARMED, TIMEOUT) => exit,
        () = provoke(env, crash_point) => unreachable!("it continues until the worker has ended"),
    };
    let exit = exit.unwrap_or_else(|error| panic!("{crash_point}: {error}"));
    assert_eq!(exit.signal(), Some(nix::libc::SIGABRT), "the worker crashes at {crash_point}: {exit}");
}

/// Some crash points are reached only under certain conditions.
async fn provoke(env: &OwnStack, crash_point: &str) {
    let mut postgres = env.postgres().await;
    loop {
        match crash_point.split(':').next() {
            // A late takeover fences the owner, which then reads back the result of its write.
            Some("after-read-back") => {
                let late = "select stampede.take_over(partition, 'a late worker', gen_random_uuid()) from stampede.partitions";
                sqlx::raw_sql(late).execute(&mut postgres).await.unwrap();
                sleep(Duration::from_millis(300)).await;
            }
            // Requests advance the time, so ticks come only where no request arrives. Sooner or later one of these coupons
            // has a partition to itself.
            Some("before-tick" | "after-tick") => {
                let coupon = env.stocked(1, rules(&json!({"hold_seconds": 1}))).await;
                coupon.claim("holder").await;
                sleep(Duration::from_secs(1)).await;
            }
            Some("before-release") => {
                if env.stack.wait_healthy(ARMED).await.is_ok() {
                    env.stack.terminate(ARMED).ok();
                }
            }
            _ => sleep(Duration::from_secs(3600)).await,
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The only worker dies at one crash point after another under mixed load; then both workers run again.
async fn mixed_load_while_the_worker_dies_at(crash_points: &[&str]) -> BTreeMap<String, usize> {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let load = MixedLoad::new(&env).await;
    env.stack.stop_child(OTHER).await.unwrap();
    let crashes = async {
        load.rounds(10).await;
        for crash_point in crash_points {
            dies_at(&env, crash_point).await;
        }
        env.heal().await;
        load.rounds(30).await;
    };
    let outcomes = Box::pin(load.during(crashes)).await;
    let counts = futures::future::join_all(load.coupons().iter().map(async |coupon| {
        // Holds and locks lapse, redemptions stay.
        until("holds and locks have lapsed", async || {
            let counts = env.counts(&coupon.id).await;
            counts["claimed"] == 0 && counts["locked"] == 0
        })
        .await;
    }));
    counts.await;
    env.finish().await;
    for kind in ["claim accepted", "lock accepted", "redeem accepted", "rollback accepted", "return accepted"]
    {
        assert!(outcomes.contains_key(kind), "{kind} is not in {outcomes:?}");
    }
    outcomes
}

#[tokio::test]
async fn a_worker_dies_at_every_crash_point_of_a_takeover() {
    mixed_load_while_the_worker_dies_at(&[
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
async fn fault_27_a_worker_dies_at_every_crash_point_before_a_decision() {
    mixed_load_while_the_worker_dies_at(&[
        "after-lookup:7",
        "after-pop:2",
        "before-refill",
        "amid-refill",
        "after-refill",
    ])
    .await;
}

#[tokio::test]
async fn a_worker_dies_at_every_crash_point_around_a_write() {
    mixed_load_while_the_worker_dies_at(&[
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
async fn a_worker_dies_at_every_crash_point_of_publishing() {
    mixed_load_while_the_worker_dies_at(&[
        "amid-publish:4",
        // What was sent and not acknowledged is republished by the next owner.
        "after-publish-sent:6",
        "before-republish",
        "after-republish",
        "after-publish-acknowledged:5",
    ])
    .await;
}

#[test]
fn every_crash_point_of_the_worker_has_a_test_that_dies_there() {
    let crash_points = include_str!("../../../../workers/src/crash_points.rs");
    let tests = include_str!("crash_points.rs");
    let names = crash_points.lines().filter_map(|line| {
        let (variant, name) = line.trim().split_once(" = \"")?;
        variant.chars().all(char::is_alphanumeric).then(|| name.trim_end_matches("\","))
    });
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    // Reached only with dead letters, or when a list is deleted, which cannot be forced here: `workers/tests/crashes.rs`
    // dies there.
    let elsewhere = ["before-events", "after-delete-lists"];
    for name in names.into_iter().filter(|name| !elsewhere.contains(name)) {
        assert!(
            tests.contains(&format!("\"{name}\"")) || tests.contains(&format!("\"{name}:")),
            "no test dies at {name}"
        );
    }
}

#[tokio::test]
async fn a_hold_lapses_once_although_the_worker_dies_during_the_lapse() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    env.stack.stop_child(OTHER).await.unwrap();
    for crash_point in ["after-tick", "before-write", "after-write"] {
        // The only worker is down when the hold ends, and dies as soon as it lets the hold lapse.
        let coupon = env.stocked(1, rules(&json!({"hold_seconds": 1}))).await;
        let code = coupon.claim("ann").await;
        env.stack.stop_child(ARMED).await.unwrap();
        coupon.until_validation("ann", &code, "hold_lapsed").await;
        assert_eq!(coupon.counts().await, [0, 1, 0, 0, 0], "the lapse is not written yet");
        dies_at(&env, crash_point).await;
        env.restart_with(ARMED, &[]).await;
        coupon.until_counts([1, 0, 0, 0, 0]).await;
        assert_eq!(coupon.events_of(&code).await, ["hold_lapsed"], "{crash_point}");
        // The code goes to one user.
        let claims = ["bob", "carl", "dora"].map(|user| env.decide(Request::claim(user, &coupon.id)));
        let outcomes = futures::future::join_all(claims).await;
        let results: Vec<&str> = outcomes.iter().map(result_of).collect();
        assert_eq!(count(&outcomes, "accepted"), 1, "{crash_point}: {results:?}");
        coupon.until_counts([1, 0, 0, 0, 0]).await;
    }
    env.finish().await;
}
