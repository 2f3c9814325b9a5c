//! Postgres' disk is full: fault 18.

use crate::support::faults::until;
use crate::support::{Crowd, Field, Kind};

#[tokio::test]
async fn fault_18_a_full_disk_makes_batches_wait_and_loses_nothing() {
    const CODES: usize = 2_000;
    assert!(local_stack::can_mount(), "a small disk has to be mounted: this test needs root");
    let field = Field::enter(Kind::SmallDisk).await;
    let coupon = field.coupon(CODES as u64, 1).await;
    let crowd = Crowd::new(&coupon, CODES + 500);
    let retried = async || field.of_workers("stampede_writes_total", "result=\"retry").await;
    let before = retried().await;
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        for count in [200, 1_000] {
            crowd.answered(count).await;
            field.stack.fill_postgres_disk().unwrap();
            let full = retried().await;
            // What fits into the pages that are there is still written; then every write is refused and tried again.
            until("writes are refused", async || retried().await >= full + 3.0).await;
            field.stack.free_postgres_disk().unwrap();
        }
    });
    assert!(retried().await > before, "nobody noticed");
    field.expect_all_given(&crowd, tally, CODES).await;
    field.leave().await;
}
