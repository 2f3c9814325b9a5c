//! One task polls the public counters of the coupon for all users who wait for a code.
//!
//! Users are admitted in the order in which they came, as many as there are codes in stock. The sale has ended when
//! every code is redeemed: no code can return to stock any more.

use std::time::{Duration, Instant};

use stampede_client::model::Counts;
use stampede_client::{Client, RetryPolicy};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::request_flow::DEADLINE;

const INTERVAL: Duration = Duration::from_millis(100);
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Where users wait for a code that returns to stock.
pub struct CounterPoller {
    permits: Semaphore,
    ended: CancellationToken,
}

impl Default for CounterPoller {
    fn default() -> Self {
        Self { permits: Semaphore::const_new(0), ended: CancellationToken::new() }
    }
}

impl CounterPoller {
    /// Waits until a code may be in stock; `false`: the sale has ended.
    pub async fn wait_for_code(&self) -> bool {
        tokio::select! {
            biased;
            permit = self.permits.acquire() => permit.map(SemaphorePermit::forget).is_ok(),
            () = self.ended.cancelled() => false,
        }
    }

    /// Polls the coupon until the sale has ended, or the counters have not changed for longer than any user waits.
    pub async fn run(&self, reader: &Client, coupon: &str) {
        let reader = reader.with_policy(RetryPolicy { deadline: READ_TIMEOUT, ..RetryPolicy::default() });
        let (mut last, mut changed) = (None, Instant::now());
        while changed.elapsed() < DEADLINE && !last.is_some_and(are_final) {
            tokio::time::sleep(INTERVAL).await;
            // During an outage there is nothing to read.
            let Ok(coupon) = reader.coupon(coupon).await else { continue };
            self.admit(coupon.counts.available);
            if last.replace(coupon.counts) != Some(coupon.counts) {
                changed = Instant::now();
            }
        }
        self.ended.cancel();
    }

    /// Never more permits than codes. A user who is admitted and finds no code gets `sold_out` once more.
    fn admit(&self, codes: u64) {
        let codes = usize::try_from(codes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        self.permits.forget_permits(self.permits.available_permits());
        self.permits.add_permits(codes);
    }
}

/// Nothing is in stock, and no user has a code that could return to it.
const fn are_final(counts: Counts) -> bool {
    counts.available == 0 && counts.claimed == 0 && counts.locked == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_users_are_admitted_as_there_are_codes_and_none_after_the_end() {
        let poller = CounterPoller::default();
        poller.admit(5);
        poller.admit(2);
        assert!(poller.wait_for_code().await);
        assert!(poller.wait_for_code().await);
        assert_eq!(poller.permits.available_permits(), 0);
        poller.ended.cancel();
        assert!(!poller.wait_for_code().await);
    }

    #[test]
    fn the_sale_has_ended_when_no_code_can_return() {
        let counts = |available, claimed, locked| Counts {
            generated: 10,
            available,
            claimed,
            locked,
            redeemed: 10 - available - claimed - locked,
            ..Counts::default()
        };
        assert!(are_final(counts(0, 0, 0)));
        assert!(![counts(1, 0, 0), counts(0, 1, 0), counts(0, 0, 1)].into_iter().any(are_final));
    }
}
