//! The front door while what stands behind it does not move: whoever asks is answered in time.

use local_stack::Child;
use tokio::time::Instant;

use crate::support::field::SETTLES_WITHIN;
use crate::support::{Ask, Field, Kind, Reply};

fn is_told_to_come_back(reply: &Reply) {
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.body);
    assert_eq!(reply.json()["code"], "unavailable");
}

/// Every client here gives up after a quarter of a minute, so each answer came before.
#[tokio::test]
async fn a_frozen_database_costs_answers_in_time_and_nothing_that_was_accepted() {
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(5, 1).await;
    let (ann, eve) = (field.token("ann"), field.token("eve"));
    // Claimed through both instances: they know the coupon.
    for (api, user) in [(0, "ann"), (1, "bob")] {
        let reply = field.ask(Ask::of(user, &coupon).at(api)).await;
        assert!(reply.told().is_final(), "{}", reply.body);
    }
    field.stack.freeze(Child::Postgres).unwrap();
    let asked = field.history.sent("eve", &coupon, Some("k"));
    let claim = field.claim_once(asked, Ask::of("eve", &coupon).key("k").wait(2));
    let path = format!("/v1/coupons/{coupon}");
    let read = field.get(0, &path, &ann);
    let wallet = field.get(1, "/v1/users/me/codes", &ann);
    let (claimed, read, wallet) = tokio::join!(claim, read, wallet);
    is_told_to_come_back(&read);
    is_told_to_come_back(&wallet);
    // Accepting needs Kafka only.
    let claimed = claimed.unwrap();
    assert_eq!(claimed.status, 202, "{}", claimed.body);
    let place = format!("{}?wait=2", claimed.header("location").unwrap());
    // The instance that sent it knows that it is undecided; the other one cannot say.
    let (sent_it, other) = tokio::join!(field.get(0, &place, &eve), field.get(1, &place, &eve));
    assert_eq!((sent_it.status, sent_it.json()["status"].as_str()), (200, Some("pending")));
    is_told_to_come_back(&other);
    field.stack.resume(Child::Postgres).unwrap();
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        let reply = field.get(1, &place, &eve).await;
        if reply.status == 200 && reply.json()["status"] == "accepted" {
            break;
        }
        assert!(Instant::now() < until, "{}", reply.body);
    }
    field.leave().await;
}
