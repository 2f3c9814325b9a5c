//! Three brokers, of which one may always be dead.

use local_stack::Child;
use std::time::Duration;
use tokio::time::sleep;

use crate::support::{Crowd, Field, Kind};

#[tokio::test]
async fn three_brokers_are_killed_in_turn_and_nothing_is_lost() {
    const CODES: usize = 1_500;
    let field = Field::enter(Kind::Brokers).await;
    let coupon = field.coupon(CODES as u64, 1).await;
    let crowd = Crowd::new(&coupon, CODES + 500);
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        let brokers = [Child::Kafka, Child::Broker(1), Child::Broker(2)];
        for (n, broker) in brokers.into_iter().enumerate() {
            crowd.answered(200 + 300 * n).await;
            field.stack.kill(broker).unwrap();
            // The others go on without it: so many have their answer before it is back.
            crowd.answered(300 + 300 * n).await;
            sleep(Duration::from_millis(500)).await;
            field.stack.restart(broker).await.unwrap();
            field.stack.wait_in_sync().await.unwrap();
        }
    });
    field.expect_all_given(&crowd, tally, CODES).await;
    field.leave().await;
}
