//! Servers that die in the middle of a sale: faults 8, 16, 22, 23, 26, and 47 for the API itself.

use checker::Told;
use local_stack::Child;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use tokio::time::sleep;

use crate::support::crowd::Tally;
use crate::support::field::SETTLES_WITHIN;
use crate::support::{Ask, Crowd, Field, Kind};

const CODES: usize = 1_500;

/// A sale in the middle of which something is done to a server, each time so many users have their answer. The
/// workers notice: one of these metrics grows.
async fn sale(at: &[usize], noticed: &[&str], hurt: impl AsyncFn(&Field)) {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(CODES as u64, 1).await;
    let crowd = Crowd::new(&coupon, CODES + 500);
    let noticing = async || {
        let mut sum = 0.0;
        for name in noticed {
            for worker in [Child::Worker(0), Child::Worker(1)] {
                sum += field.metric(worker, name, "").await;
            }
        }
        sum
    };
    let before = noticing().await;
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        for count in at {
            crowd.answered(*count).await;
            hurt(&field).await;
        }
    });
    expect_all_given(&field, &crowd, tally).await;
    assert!(noticed.is_empty() || noticing().await > before, "nobody noticed");
    field.leave().await;
}

async fn expect_all_given(field: &Field, crowd: &Crowd, tally: Tally) {
    assert_eq!(tally.won + tally.sold_out + tally.rejected + tally.lost, crowd.users, "{tally:?}");
    field.checked().await;
    let counts = field.counts(&crowd.coupon).await;
    assert_eq!(counts["claimed"].as_u64(), Some(CODES as u64), "{tally:?} {counts}");
}

async fn redis(field: &Field) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(field.stack.endpoints().redis_url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
async fn fault_8_a_broker_that_is_killed_and_comes_back_loses_nothing() {
    sale(&[300], &["stampede_kafka_errors_total"], async |field| {
        field.stack.kill(Child::Kafka).unwrap();
        field.stack.restart(Child::Kafka).await.unwrap();
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
        async |field| {
            field.stack.stop_postgres_immediately().unwrap();
            field.stack.wait_exit(Child::Postgres, SETTLES_WITHIN).await.unwrap();
            field.stack.restart(Child::Postgres).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn fault_22_flushing_redis_in_mid_sale_costs_speed_and_nothing_else() {
    sale(&[100, 300, 500, 700, 900], &[], async |field| {
        redis::cmd("FLUSHALL").exec_async(&mut redis(field).await).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_23_redis_killed_and_restarted_empty_costs_speed_and_nothing_else() {
    sale(&[300, 900], &["stampede_redis_failures_total"], async |field| {
        field.stack.kill(Child::Redis).unwrap();
        sleep(Duration::from_millis(300)).await;
        field.stack.restart(Child::Redis).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_26_a_pop_that_happened_after_its_time_was_over_gives_no_code_twice() {
    // A frozen Redis takes commands in and carries them out when it goes on; by then nobody waits for the answer.
    sale(&[200, 500, 800], &["stampede_redis_failures_total"], async |field| {
        field.stack.freeze(Child::Redis).unwrap();
        sleep(Duration::from_millis(1_500)).await;
        field.stack.resume(Child::Redis).unwrap();
    })
    .await;
}

#[tokio::test]
async fn fault_47_an_api_that_dies_before_its_202_is_asked_again_with_the_same_key() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(3, 1).await;
    field.restart_with(Child::Api(0), &[("STAMPEDE_CRASH_AT", "after-produce-acknowledged")]).await;
    let ask = Ask::of("ann", &coupon).key("k");
    let asked = field.history.sent("ann", &coupon, Some("k"));
    assert!(field.claim_once(asked, ask).await.is_none(), "it dies before it answers");
    let ended = field.stack.wait_exit(Child::Api(0), SETTLES_WITHIN).await.unwrap();
    assert_eq!(ended.signal(), Some(nix::libc::SIGABRT), "{ended}");
    // The other instance knows the request by its key: one request, one code.
    let told = field.claim_once(asked, ask.at(1)).await.unwrap().told();
    assert!(matches!(told, Told::Accepted { .. }), "{told:?}");
    field.restart_with(Child::Api(0), &[]).await;
    let again = field.claim_once(asked, ask).await.unwrap().told();
    assert_eq!(again, told);
    field.checked().await;
    assert_eq!(field.counts(&coupon).await["claimed"], 1);
    field.leave().await;
}
