//! Waiting longer the more often something failed, with jitter, so that many owners do not come back at once.

use std::time::Duration;

use crate::metrics;
use crate::seams::Failure;
use coupon_core::ids::Partition;
use futures::future::BoxFuture;

/// Failures between two lines in the log.
const QUIET: u32 = 10;

/// Counts failures and waits accordingly.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits `first` after the first failure, twice as long after each further one, never longer than `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// How often [`Self::pause`] was called.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// How long the next pause is, before jitter.
    #[must_use]
    pub fn next_pause(&self) -> Duration {
        self.first.saturating_mul(1 << self.failures.min(16)).min(self.most)
    }

    /// Waits after one more failure.
    pub async fn pause(&mut self) {
        let pause = self.next_pause();
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..=1.0))).await;
    }
}

/// How long to wait before a write that comes after `failures` failed ones.
pub async fn before_write(failures: u32) {
    if failures > 0 {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2));
        backoff.failures = failures - 1;
        backoff.pause().await;
    }
}

/// Asks until there is an answer.
pub async fn until_answered<'a, T>(
    partition: Partition,
    what: &'static str,
    mut ask: impl FnMut() -> BoxFuture<'a, Result<T, Failure>> + Send,
) -> T {
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        match ask().await {
            Ok(answer) => {
                if backoff.failures() > 0 {
                    tracing::info!(%partition, what, failures = backoff.failures(), "answered again");
                }
                return answer;
            }
            Err(error) => {
                ::metrics::counter!(metrics::READ_FAILURES, "what" => what).increment(1);
                if backoff.failures().is_multiple_of(QUIET) {
                    tracing::warn!(%partition, what, %error, "no answer: asking again");
                }
            }
        }
        backoff.pause().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_question_is_asked_until_it_is_answered() {
        let mut asked = 0;
        let answer = until_answered(Partition(0), "test", || {
            asked += 1;
            let answer = if asked < 4 { Err("not now".into()) } else { Ok(asked) };
            async move { answer }.boxed()
        });
        assert_eq!(answer.await, 4);
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        let mut pauses = Vec::new();
        for failures in [0, 1, 2, 6, 7, u32::MAX] {
            backoff.failures = failures;
            pauses.push(backoff.next_pause().as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 640, 1000, 1000]);
    }
}
