//! Lines that become black holes: packets are lost in one direction, and no connection is reset. Fault 52.

use std::time::Duration;

use local_stack::ProxiedLink;
use tokio::time::{Instant, sleep};

use e2e::environment::OwnStack;
use e2e::{ApiResponse, Coupon, Environment, Request, StackKind};

/// Longer than the time limit of every single call.
const HOLE: Duration = Duration::from_secs(25);
/// How soon after it a claim is decided.
const RECOVERY: Duration = Duration::from_secs(60);

async fn claim_is_accepted(env: &Environment, coupon: &Coupon<'_>, user: &str) {
    let response = env.final_response(Request::claim(user, &coupon.id).key("k")).await;
    assert!(matches!(response, ApiResponse::Accepted { .. }), "{user}: {response:?}");
}

/// The line loses the packets of each direction in turn, while users claim. Every claim has one outcome, and claims are
/// decided soon after the line works again.
async fn black_hole(link: ProxiedLink) {
    let env = OwnStack::of(StackKind::Proxied).await;
    let coupon = env.coupon(100, 1).await;
    let proxy = env.stack.proxy(link).unwrap();
    for (requests, responses) in [(true, false), (false, true)] {
        let direction = if requests { "requests" } else { "responses" };
        claim_is_accepted(&env, &coupon, &format!("before-{direction}")).await;
        proxy.black_hole(requests, responses);
        let users: Vec<String> = (0..5).map(|n| format!("{direction}-{n}")).collect();
        let claims = users.iter().map(|user| claim_is_accepted(&env, &coupon, user));
        let healed = async {
            sleep(HOLE).await;
            proxy.clear_faults();
            let healed = Instant::now();
            claim_is_accepted(&env, &coupon, &format!("after-{direction}")).await;
            assert!(healed.elapsed() < RECOVERY, "{link}, {direction}: {:?}", healed.elapsed());
        };
        tokio::join!(futures::future::join_all(claims), healed);
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_52_a_black_hole_between_workers_and_postgres_loses_nothing() {
    black_hole(ProxiedLink::WorkersToPostgres).await;
}

#[tokio::test]
async fn fault_52_a_black_hole_between_workers_and_kafka_loses_nothing() {
    black_hole(ProxiedLink::WorkersToKafka).await;
}

#[tokio::test]
async fn fault_52_a_black_hole_between_workers_and_redis_loses_nothing() {
    black_hole(ProxiedLink::WorkersToRedis).await;
}

#[tokio::test]
async fn fault_52_a_black_hole_between_apis_and_postgres_loses_nothing() {
    black_hole(ProxiedLink::ApisToPostgres).await;
}

#[tokio::test]
async fn fault_52_a_black_hole_between_apis_and_kafka_loses_nothing() {
    black_hole(ProxiedLink::ApisToKafka).await;
}
