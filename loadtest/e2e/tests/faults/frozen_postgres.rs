//! The API while Postgres does not respond: its own responses come in time.

use std::time::Duration;

use local_stack::Child;
use serde_json::json;

use e2e::environment::OwnStack;
use e2e::wait::until;
use e2e::{Reply, Request, StackKind};

const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(33);

fn expect_unavailable(reply: &Reply) {
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.body);
    assert_eq!(reply.json()["code"], "unavailable");
}

/// The client of a test times out, so every response here came before that.
#[tokio::test]
async fn the_api_responds_in_time_while_postgres_is_frozen_and_no_accepted_claim_is_lost() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(5, 1).await;
    let (ann, eve) = (env.token("ann"), env.token("eve"));
    // Both APIs have the coupon in their caches.
    for (api, user) in [(0, "ann"), (1, "bob")] {
        let reply = env.send(Request::claim(user, &coupon.id).at(api)).await;
        assert!(reply.parsed().is_final(), "{}", reply.body);
    }
    env.stack.freeze(Child::Postgres).unwrap();
    let path = format!("/v1/coupons/{}", coupon.id);
    let (claimed, read, wallet) = tokio::join!(
        env.send(Request::claim("eve", &coupon.id).key("k").wait(2)),
        env.get_once(0, &path, &ann),
        env.get_once(1, "/v1/users/me/codes", &ann),
    );
    expect_unavailable(&read);
    expect_unavailable(&wallet);
    // Accepting a claim needs Kafka only.
    assert_eq!(claimed.status, 202, "{}", claimed.body);
    let location = format!("{}?wait=2", claimed.header("location").unwrap());
    // The API that sent the claim has it among its pending requests; the other one needs Postgres.
    let (sender, other) = tokio::join!(env.get_once(0, &location, &eve), env.get_once(1, &location, &eve));
    assert_eq!((sender.status, sender.json()["status"].as_str()), (200, Some("pending")));
    expect_unavailable(&other);
    env.stack.resume(Child::Postgres).unwrap();
    until("the claim is decided", async || {
        let reply = env.get_once(1, &location, &eve).await;
        reply.status == 200 && reply.json()["status"] == "accepted"
    })
    .await;
    env.finish().await;
}

/// Fault 57. Postgres is away for longer than a lease, in the middle of a load.
#[tokio::test]
async fn fault_57_a_load_is_completed_although_postgres_was_away_for_longer_than_its_lease() {
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(1, 1).await;
    let codes = 400_000;
    let path = format!("/v1/coupons/{}/codes/generate", coupon.id);
    let reply = env.post(0, &path, &env.admin(), &json!({"count": codes})).await;
    let job = format!("/v1/jobs/{}", reply.json()["job_id"].as_str().unwrap());
    let state = async || env.get(0, &job, &env.admin()).await.json();
    until("a chunk is stored", async || state().await["done"].as_u64() > Some(0)).await;
    env.stack.freeze(Child::Postgres).unwrap();
    tokio::time::sleep(LONGER_THAN_A_LEASE).await;
    env.stack.resume(Child::Postgres).unwrap();
    until("the load is applied", async || state().await["state"] == "applied").await;
    assert_eq!(state().await["done"], codes, "{}", state().await);
    env.finish().await;
}
