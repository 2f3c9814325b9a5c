//! Whether the system does its work again: a claim on every partition has been answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::client::{Pursuit, Way};
use super::dice::Dice;
use super::field::Field;
use super::shop::Kind;
use stampede_client::deed::Deed;

/// An accepted request has its outcome within this time once nothing is broken any more (I3). A bound, not a goal.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(300);

static PROBES: AtomicU64 = AtomicU64::new(0);

/// Claims a code in every partition, and says how long it took until the last one was answered; `None` if that is
/// longer than it may take.
pub async fn recovery(field: &Field) -> Option<Duration> {
    let began = Instant::now();
    let round = PROBES.fetch_add(1, Ordering::Relaxed);
    let coupons = field.shop.all(Kind::Probe);
    let all = coupons.iter().enumerate().map(|(n, coupon)| async move {
        let user = format!("probe-{round}-{n}");
        let mut dice = Dice::new(round ^ n as u64);
        let deed = Deed::Claim(coupon);
        Pursuit::of(field, &user, deed, Some("probe".to_owned()), Way::Wait(1)).to_the_end(&mut dice).await
    });
    timeout(RECOVERED_WITHIN, join_all(all)).await.ok().map(|_| began.elapsed())
}
