//! Three brokers, of which one at a time may be dead.

use std::time::Duration;

use local_stack::Child;
use tokio::time::sleep;

use e2e::environment::OwnStack;
use e2e::{Claimants, StackKind};

#[tokio::test]
async fn fault_8_three_brokers_that_are_killed_in_turn_lose_nothing() {
    const CODES: usize = 1_500;
    let env = OwnStack::of(StackKind::ThreeBrokers).await;
    let coupon = env.coupon(CODES as u64, 1).await;
    let claimants = Claimants::new(&coupon.id, CODES + 500);
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        let brokers = [Child::Kafka, Child::Broker(1), Child::Broker(2)];
        for (n, broker) in brokers.into_iter().enumerate() {
            claimants.until_done(200 + 300 * n).await;
            env.stack.kill(broker).unwrap();
            // The other brokers continue: so many users have their result before it is restarted.
            claimants.until_done(300 + 300 * n).await;
            sleep(Duration::from_millis(500)).await;
            env.stack.restart(broker).await.unwrap();
            env.stack.wait_in_sync().await.unwrap();
        }
    });
    claimants.expect_all_claimed(&env, tally, CODES).await;
    env.finish().await;
}
