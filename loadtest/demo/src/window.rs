//! The shop window: what the public counters of the coupon say, looked at by one for all who wait.
//!
//! Whoever was told sold out and waits is let in when a code is to be had again, as many as there are codes, first come
//! first served. The sale is over when every code is redeemed: nothing can come back any more.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::errand::PATIENCE;
use stampede_client::http::{Call, Connection};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where those wait who want a code that comes back.
pub struct Window {
    tickets: Semaphore,
    over: CancellationToken,
}

impl Default for Window {
    fn default() -> Self {
        Self { tickets: Semaphore::const_new(0), over: CancellationToken::new() }
    }
}

#[derive(Deserialize)]
struct Coupon {
    counts: Counts,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
struct Counts {
    available: u64,
    claimed: u64,
    locked: u64,
}

impl Counts {
    /// Nothing is left, and nobody has anything that could come back.
    fn are_final(self) -> bool {
        self == Self { available: 0, claimed: 0, locked: 0 }
    }
}

impl Window {
    /// Waits until a code is to be had, perhaps; `false`: the sale is over.
    pub async fn code_to_be_had(&self) -> bool {
        tokio::select! {
            biased;
            ticket = self.tickets.acquire() => ticket.map(tokio::sync::SemaphorePermit::forget).is_ok(),
            () = self.over.cancelled() => false,
        }
    }

    /// Looks at the coupon until the sale is over. What does not move for longer than anybody waits is over, too.
    pub async fn watch(&self, api: &str, coupon: &str, token: &str) {
        let mut connection = Connection::to(api);
        let path = format!("/v1/coupons/{coupon}");
        let call = Call { method: Method::GET, path: &path, token, key: None, body: None };
        let (mut last, mut moved) = (None, Instant::now());
        while moved.elapsed() < PATIENCE && !last.is_some_and(Counts::are_final) {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            // An outage: looked at again, and again.
            let Ok(reply) = connection.send(&call, ANSWER_WITHIN).await else { continue };
            if reply.status != StatusCode::OK {
                continue;
            }
            let Ok(Coupon { counts }) = serde_json::from_slice(&reply.body) else { continue };
            self.let_in(counts.available);
            if last.replace(counts) != Some(counts) {
                moved = Instant::now();
            }
        }
        self.over.cancel();
    }

    /// Never more tickets than codes: who is let in for nothing is told sold out once more.
    fn let_in(&self, codes: u64) {
        let codes = usize::try_from(codes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        self.tickets.forget_permits(self.tickets.available_permits());
        self.tickets.add_permits(codes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_are_let_in_as_there_are_codes_and_nobody_once_it_is_over() {
        let window = Window::default();
        window.let_in(5);
        window.let_in(2);
        assert!(window.code_to_be_had().await);
        assert!(window.code_to_be_had().await);
        assert_eq!(window.tickets.available_permits(), 0);
        window.over.cancel();
        assert!(!window.code_to_be_had().await);
    }

    #[test]
    fn it_is_over_when_nothing_can_come_back() {
        let counts = |available, claimed, locked| Counts { available, claimed, locked };
        assert!(counts(0, 0, 0).are_final());
        assert!(![counts(1, 0, 0), counts(0, 1, 0), counts(0, 0, 1)].into_iter().any(Counts::are_final));
    }
}
