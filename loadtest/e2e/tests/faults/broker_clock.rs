//! A broker whose clock is a day ahead for a while: fault 55.

use fire::skewed_clock;
use local_stack::Child;
use serde_json::json;

use e2e::coupon::rules;
use e2e::environment::OwnStack;
use e2e::operator::{until_ready, until_stopped, workers};
use e2e::outcome::result_of;
use e2e::{Request, StackKind};

/// Restarts the broker with these variables.
async fn restart_broker(env: &OwnStack, variables: &[(&str, &str)]) {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    env.stack.set_env(Child::Kafka, variables.collect()).unwrap();
    env.stack.stop_child(Child::Kafka).await.unwrap();
    env.stack.restart(Child::Kafka).await.unwrap();
}

#[tokio::test]
async fn fault_55_a_record_from_a_clock_a_day_ahead_ends_no_hold_and_can_be_rejected() {
    let env = OwnStack::of(StackKind::Plain).await;
    let coupon = env.stocked(5, rules(&json!({"hold_seconds": 3_600}))).await;
    coupon.claim("ann").await;
    let clock = skewed_clock(env.stack.data_dir()).unwrap();
    restart_broker(&env, &[("LD_PRELOAD", &clock.to_string_lossy()), ("SKEW_SECONDS", "86400")]).await;
    let ahead = env.send(Request::claim("bob", &coupon.id).key("k").wait(0)).await;
    assert_eq!(ahead.status, 202, "{}", ahead.body);
    restart_broker(&env, &[]).await;
    let behind = env.send(Request::claim("eve", &coupon.id).key("k").wait(0)).await;
    assert_eq!(behind.status, 202, "{}", behind.body);

    let reported = until_stopped(&env, &["ahead of Postgres' clock", "workers reject"]).await;
    assert_eq!(coupon.counts().await, [4, 1, 0, 0, 0], "the hold of ann lasts");
    let (_, offset) = reported.split_once("at offset ").unwrap();
    let (offset, _) = offset.split_once(' ').unwrap();
    let partition = env.partition_of(&coupon.id).to_string();
    let args = ["reject", "--partition", &partition, "--offset", offset, "--reason", "a test"];
    let rejected = workers(&env, &args).await;
    assert!(rejected.succeeded, "{rejected:?}");
    let outcome = env.outcome_of(&ahead, Request::claim("bob", &coupon.id).key("k")).await;
    assert_eq!(result_of(&outcome), "unprocessable", "{outcome}");
    let outcome = env.outcome_of(&behind, Request::claim("eve", &coupon.id).key("k")).await;
    assert_eq!(result_of(&outcome), "accepted", "{outcome}");
    assert_eq!(coupon.counts().await, [3, 2, 0, 0, 0]);
    until_ready(&env).await;
    let again = workers(&env, &args).await;
    assert!(!again.succeeded && again.stderr.contains("decided offset"), "{again:?}");
    env.finish().await;
}
