//! What tests of faults wait for. Every bound is generous: it is there so that a test ends, not as an expectation.

use local_stack::Child;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::Field;
use super::crowd::{Crowd, Tally};
use super::field::SETTLES_WITHIN;

pub(crate) const WORKERS: [Child; 2] = [Child::Worker(0), Child::Worker(1)];
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + SETTLES_WITHIN;
    while !holds().await {
        assert!(Instant::now() < until, "it does not come to this: {what}");
        sleep(BETWEEN_LOOKS).await;
    }
}

impl Field {
    /// The sum of a metric over both workers.
    pub(crate) async fn of_workers(&self, name: &str, label: &str) -> f64 {
        let [one, other] = WORKERS.map(|worker| self.metric(worker, name, label));
        one.await + other.await
    }

    /// How often this text stands in the logs of our programs of this kind.
    pub(crate) fn logged(&self, children: &[Child], text: &str) -> usize {
        let logs =
            children.iter().map(|child| std::fs::read(self.stack.log_file(*child)).unwrap_or_default());
        logs.map(|log| String::from_utf8_lossy(&log).matches(text).count()).sum()
    }

    /// How many batches have been written, to all partitions together. By a connection of its own each time: Postgres
    /// may have been away.
    pub(crate) async fn writes(&self) -> i64 {
        let sql = "select coalesce(sum(write_no), 0)::bigint from stampede.partitions";
        sqlx::query_scalar(sql).fetch_one(&mut self.postgres().await).await.unwrap()
    }

    /// The partition of a coupon.
    pub(crate) async fn partition_of(&self, coupon: &str) -> i32 {
        let sql = "select partition from stampede.coupons where coupon_id = $1";
        sqlx::query_scalar(sql).bind(coupon).fetch_one(&mut self.postgres().await).await.unwrap()
    }

    /// Checks, and expects every user to have an answer and as many codes to be given as there were.
    pub(crate) async fn expect_all_given(&self, crowd: &Crowd, tally: Tally, codes: usize) {
        assert_eq!(tally.won + tally.sold_out + tally.rejected + tally.lost, crowd.users, "{tally:?}");
        self.checked().await;
        let counts = self.counts(&crowd.coupon).await;
        assert_eq!(counts["claimed"].as_u64(), Some(codes as u64), "{tally:?} {counts}");
    }
}
