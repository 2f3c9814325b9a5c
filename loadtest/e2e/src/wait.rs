//! Waiting for a condition. The timeout ends a test that would never end; it is not an expectation.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a stack may take to recover from a fault.
pub const TIMEOUT: Duration = Duration::from_secs(300);
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(Instant::now() < deadline, "timed out before: {what}");
        sleep(INTERVAL).await;
    }
}

/// Waits until a value is the wanted one.
pub async fn until_equal<T: PartialEq + std::fmt::Debug>(wanted: T, mut current: impl AsyncFnMut() -> T) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let now = current().await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "timed out: {now:?} did not become {wanted:?}");
        sleep(INTERVAL).await;
    }
}
