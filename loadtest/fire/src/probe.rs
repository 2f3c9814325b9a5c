//! Recovery: a claim in every partition has an outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::client::{ClientRequest, WaitMode};
use super::environment::Environment;
use super::fixtures::Kind;
use super::rng::Rng;
use stampede_client::Operation;

/// An accepted request has its outcome within this time once all faults have ended (I3). A bound, not a target.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(300);

static PROBES: AtomicU64 = AtomicU64::new(0);

/// Claims a code in every partition and returns the time until the last outcome; `None` past [`RECOVERED_WITHIN`].
pub async fn recovery(env: &Environment) -> Option<Duration> {
    let began = Instant::now();
    let round = PROBES.fetch_add(1, Ordering::Relaxed);
    let coupons = env.fixtures.all(Kind::Probe);
    let all = coupons.iter().enumerate().map(|(n, coupon)| async move {
        let user = format!("probe-{round}-{n}");
        let mut rng = Rng::new(round ^ n as u64);
        let operation = Operation::claim(coupon);
        ClientRequest::new(env, &user, operation, Some("probe".to_owned()), WaitMode::Wait(1))
            .until_final(&mut rng)
            .await
    });
    timeout(RECOVERED_WITHIN, join_all(all)).await.ok().map(|_| began.elapsed())
}
