//! Retries with exponential back-off and jitter, so that many owners do not retry at the same time.

use std::time::Duration;

use coupon_core::ids::Partition;
use futures::future::BoxFuture;

use crate::metrics;
use crate::ports::PortError;

/// Failures between two log lines.
const FAILURES_PER_LOG_LINE: u32 = 10;

/// Counts failures and pauses accordingly.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses `first` after the first failure and twice as long after each further one, up to `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// How often [`Self::pause`] was called.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// What failed now had worked for so long. If that is longer than the longest pause, it does not count as a
    /// consecutive failure: the next pause is the first one again.
    pub fn worked_for(&mut self, duration: Duration) {
        if duration > self.max {
            self.failures = 0;
        }
    }

    /// The next pause, before jitter.
    #[must_use]
    pub fn next_pause(&self) -> Duration {
        self.first.saturating_mul(1 << self.failures.min(16)).min(self.max)
    }

    /// Counts a failure and pauses.
    pub async fn pause(&mut self) {
        let pause = self.next_pause();
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..=1.0))).await;
    }
}

/// Pauses before a write that follows `failures` failed ones.
pub async fn pause_before_write(failures: u32) {
    if failures > 0 {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2));
        backoff.failures = failures - 1;
        backoff.pause().await;
    }
}

/// How long one attempt of a repeated call may take. The limit grows with every failure, so that a call that is slow and
/// not lost succeeds in the end.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit {
    first: Duration,
    max: Duration,
}

impl TimeLimit {
    /// A read of the ledger: it takes milliseconds, and the server cancels it after 10 s.
    pub const READ: Self = Self { first: Duration::from_secs(3), max: Duration::from_secs(15) };
    /// A call with time limits of its own for each step. It connects first, or waits for a write that is in flight.
    pub const STEPS: Self = Self { first: Duration::from_secs(60), max: Duration::from_secs(60) };

    /// The limit after so many failures.
    fn after(self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(16)).min(self.max)
    }
}

/// Calls until a call succeeds. `what` names the call in log lines and in the metric. A call that exceeds its time limit
/// is dropped, and its connection with it: the server may be gone without having closed it.
pub async fn retry_until_ok<'a, T>(
    partition: Partition,
    what: &'static str,
    limit: TimeLimit,
    mut call: impl FnMut() -> BoxFuture<'a, Result<T, PortError>> + Send,
) -> T {
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        let limit = limit.after(backoff.failures());
        let timed_out = |_| Err(format!("no response within {limit:?}").into());
        match tokio::time::timeout(limit, call()).await.unwrap_or_else(timed_out) {
            Ok(result) => {
                if backoff.failures() > 0 {
                    tracing::info!(%partition, what, failures = backoff.failures(), "succeeded after failures");
                }
                return result;
            }
            Err(error) => {
                ::metrics::counter!(metrics::READ_FAILURES, "what" => what).increment(1);
                if backoff.failures().is_multiple_of(FAILURES_PER_LOG_LINE) {
                    tracing::warn!(%partition, what, %error, "failed: retrying");
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
    async fn a_call_is_retried_until_it_succeeds() {
        let mut calls = 0;
        let result = retry_until_ok(Partition(0), "test", TimeLimit::READ, || {
            calls += 1;
            let result = if calls < 4 { Err("not now".into()) } else { Ok(calls) };
            async move { result }.boxed()
        });
        assert_eq!(result.await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_response_is_dropped_and_repeated_with_more_time() {
        let (mut calls, began) = (0, tokio::time::Instant::now());
        let result = retry_until_ok(Partition(0), "test", TimeLimit::READ, || {
            calls += 1;
            // The first is lost; the others take five seconds.
            let takes = Duration::from_secs(if calls == 1 { u64::MAX } else { 5 });
            async move {
                tokio::time::sleep(takes).await;
                Ok(calls)
            }
            .boxed()
        });
        assert_eq!(result.await, 2);
        assert_eq!(began.elapsed().as_secs(), 3 + 5);
    }

    #[test]
    fn pauses_begin_anew_after_a_success_that_lasted() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        backoff.failures = 20;
        backoff.worked_for(Duration::from_secs(4));
        assert_eq!(
            backoff.next_pause(),
            Duration::from_secs(5),
            "two owners may replace each other without end"
        );
        backoff.worked_for(Duration::from_secs(6));
        assert_eq!(backoff.next_pause(), Duration::from_millis(50));
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
