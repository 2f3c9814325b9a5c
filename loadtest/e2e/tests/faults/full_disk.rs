//! The disk of Postgres is full: fault 18.

use e2e::environment::OwnStack;
use e2e::wait::until;
use e2e::{Claimants, StackKind};

#[tokio::test]
async fn fault_18_a_full_disk_delays_batches_and_loses_nothing() {
    const CODES: usize = 2_000;
    assert!(local_stack::can_mount(), "this test mounts a small disk: it needs root");
    let env = OwnStack::of(StackKind::SmallDisk).await;
    let coupon = env.coupon(CODES as u64, 1).await;
    let claimants = Claimants::new(&coupon.id, CODES + 500);
    let retried = async || env.worker_metric("stampede_writes_total", "result=\"retry").await;
    let before = retried().await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        for count in [200, 1_000] {
            claimants.until_done(count).await;
            env.stack.fill_postgres_disk().unwrap();
            let full = retried().await;
            // Pages that exist still take rows; then every write fails and is retried.
            until("writes fail", async || retried().await >= full + 3.0).await;
            env.stack.free_postgres_disk().unwrap();
        }
    });
    assert!(retried().await > before, "no worker noticed the fault");
    claimants.expect_all_claimed(&env, tally, CODES).await;
    env.finish().await;
}
