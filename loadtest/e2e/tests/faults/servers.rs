//! Servers that die or lose data during a sale: faults 8, 16, 22, 23 and 26; and fault 47, an API that dies.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use local_stack::Child;
use tokio::time::sleep;

use e2e::environment::{APIS, OwnStack};
use e2e::wait::TIMEOUT;
use e2e::{ApiResponse, Claimants, Environment, Request, StackKind};

const CODES: usize = 1_500;

/// Runs a sale and injects a fault each time that so many users have their result. One of these metrics of the workers
/// grows: the fault was noticed.
async fn sale(at: &[usize], metrics: &[&str], inject: impl AsyncFn(&Environment)) {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(CODES as u64, 1).await;
    let claimants = Claimants::new(&coupon.id, CODES + 500);
    let noticed = async || {
        let mut sum = 0.0;
        for name in metrics {
            sum += env.worker_metric(name, "").await;
        }
        sum
    };
    let before = noticed().await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        for count in at {
            claimants.until_done(*count).await;
            inject(&env).await;
        }
    });
    claimants.expect_all_claimed(&env, tally, CODES).await;
    assert!(metrics.is_empty() || noticed().await > before, "no worker noticed the fault");
    env.finish().await;
}

#[tokio::test]
async fn fault_8_a_broker_that_is_killed_and_restarted_loses_nothing() {
    sale(&[300], &["stampede_kafka_errors_total"], async |env| {
        env.stack.kill(Child::Kafka).unwrap();
        env.stack.restart(Child::Kafka).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_16_an_immediate_shutdown_of_postgres_loses_nothing() {
    sale(
        &[300, 900],
        &[
            "stampede_writes_total{result=\"retry",
            "stampede_writes_total{result=\"unknown",
            "stampede_read_failures_total",
        ],
        async |env| {
            env.stack.stop_postgres_immediately().unwrap();
            env.stack.wait_exit(Child::Postgres, TIMEOUT).await.unwrap();
            env.stack.restart(Child::Postgres).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn fault_22_flushing_redis_during_a_sale_costs_speed_and_nothing_else() {
    sale(&[100, 300, 500, 700, 900], &[], async |env| {
        redis::cmd("FLUSHALL").exec_async(&mut env.redis().await).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_23_redis_that_is_killed_and_restarted_empty_costs_speed_and_nothing_else() {
    sale(&[300, 900], &["stampede_redis_failures_total"], async |env| {
        env.stack.kill(Child::Redis).unwrap();
        sleep(Duration::from_millis(300)).await;
        env.stack.restart(Child::Redis).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_26_a_pop_that_is_executed_after_its_timeout_gives_no_code_twice() {
    // A frozen Redis receives commands and executes them when it continues. By then their timeout has expired.
    sale(&[200, 500, 800], &["stampede_redis_failures_total"], async |env| {
        env.stack.freeze(Child::Redis).unwrap();
        sleep(Duration::from_millis(1_500)).await;
        env.stack.resume(Child::Redis).unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_47_a_claim_whose_api_died_before_its_202_is_sent_again_with_the_same_key() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(3, 1).await;
    env.restart_with(APIS[0], &[("STAMPEDE_CRASH_AT", "after-produce-acknowledged")]).await;
    let request = Request::claim("ann", &coupon.id).key("k");
    let handle = env.record_sent(&request);
    assert!(env.send_once(handle, request).await.is_none(), "it dies before it responds");
    let exit = env.stack.wait_exit(APIS[0], TIMEOUT).await.unwrap();
    assert_eq!(exit.signal(), Some(nix::libc::SIGABRT), "{exit}");
    // The other API finds the request by its key: one request, one code.
    let response = env.send_once(handle, request.at(1)).await.unwrap().parsed();
    assert!(matches!(response, ApiResponse::Accepted { .. }), "{response:?}");
    env.restart_with(APIS[0], &[]).await;
    let repeated = env.send_once(handle, request).await.unwrap().parsed();
    assert_eq!(repeated, response);
    env.settle().await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 1);
    env.finish().await;
}
