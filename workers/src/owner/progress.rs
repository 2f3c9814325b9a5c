//! Whether a partition makes progress while records wait. A worker with a stalled partition is not ready.
//!
//! Without progress although records wait, something is wrong that no other check reports: a call that never returns, or
//! a mistake of this program. It counts only while Postgres and Kafka respond: an outage stalls every worker, and is an
//! alert of its own. A partition that is being taken over or has stopped is reported as such.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, WriteNo};
use futures::future::BoxFuture;

use super::status::StatusRegistry;

/// How long records may wait without progress. Above the time limit of every single call, and of a few repetitions.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two checks.
const INTERVAL: Duration = Duration::from_secs(2);

/// The progress of one partition.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    durable: (WriteNo, Offset),
    /// Since when something waits and nothing became durable; `None`: nothing waits.
    waiting_since: Option<Instant>,
}

impl Progress {
    pub(super) fn set(&self, durable: (WriteNo, Offset), has_work: bool, now: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = last.waiting_since.filter(|_| last.durable == durable).unwrap_or(now);
        *last = Last { durable, waiting_since: has_work.then_some(since) };
    }

    /// How long something has waited without progress.
    pub(super) fn waiting_for(&self, now: Instant) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Checks progress until the process ends. `responds` returns whether everything that all partitions depend on responds.
pub async fn watch(statuses: Arc<StatusRegistry>, responds: impl Fn() -> BoxFuture<'static, bool> + Send) {
    let mut responding_since = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if !responds().await {
            responding_since = None;
            statuses.clear_stalled();
            continue;
        }
        let now = Instant::now();
        let since = *responding_since.get_or_insert(now);
        if now.duration_since(since) >= LIMIT {
            statuses.set_stalled(now, LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_waits_from_its_arrival_until_anything_becomes_durable() {
        let (begin, at) = (Instant::now(), |second| Duration::from_secs(second));
        let progress = Progress::default();
        let waits = |second| progress.waiting_for(begin + at(second)).as_secs();
        let set = |second, write_no, has_work| {
            progress.set((WriteNo(write_no), Offset(0)), has_work, begin + at(second));
        };
        set(0, 1, false);
        assert_eq!(waits(100), 0, "an idle partition is not stalled");
        set(100, 1, true);
        set(110, 1, true);
        assert_eq!(waits(120), 20);
        set(120, 2, true);
        assert_eq!(waits(125), 5, "a write is progress");
        set(130, 2, false);
        assert_eq!(waits(200), 0);
    }
}
