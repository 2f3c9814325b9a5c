//! The API while Postgres does not respond: its own responses come in time.

use local_stack::Child;

use e2e::environment::OwnStack;
use e2e::wait::until;
use e2e::{Reply, Request, StackKind};

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
