//! How long the records of a partition have waited without progress.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, WriteNo};

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
