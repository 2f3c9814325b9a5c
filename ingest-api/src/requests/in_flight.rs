//! The records that are sent and not acknowledged yet, and whether they are sent in batches.
//!
//! Kafka and its client do about as much work for a batch as for dozens of records in it, but a record that waits for
//! a batch is late. So a few concurrent records are sent immediately; from [`BATCH_THRESHOLD`] on they are sent in
//! batches, until none is in flight any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// From this many records in flight, sending each one immediately makes them wait for each other.
pub(super) const BATCH_THRESHOLD: usize = 8;

/// The records in flight, of both producers together.
#[derive(Debug)]
pub(super) struct InFlight {
    records: AtomicUsize,
    bound: usize,
    /// Set above the threshold, and cleared when no record is in flight. When a batch is acknowledged, the next few
    /// records would otherwise be sent one by one ahead of the next batch.
    batching: AtomicBool,
}

impl InFlight {
    pub(super) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { records: AtomicUsize::default(), bound, batching: AtomicBool::default() })
    }

    /// Adds a record; returns whether it is to be sent in a batch, or `None` at the bound.
    pub(super) fn add(&self) -> Option<bool> {
        let before = self.records.fetch_add(1, Relaxed);
        if before >= self.bound {
            self.remove();
            return None;
        }
        if before >= BATCH_THRESHOLD {
            self.batching.store(true, Relaxed);
        }
        Some(self.batching.load(Relaxed))
    }

    /// Removes a record.
    pub(super) fn remove(&self) {
        if self.records.fetch_sub(1, Relaxed) == 1 {
            self.batching.store(false, Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sent_in_batches_from_the_threshold_until_none_is_in_flight() {
        let in_flight = InFlight::new(100);
        let few: Vec<_> = (0..BATCH_THRESHOLD).map(|_| in_flight.add()).collect();
        assert_eq!(few, [Some(false); BATCH_THRESHOLD]);
        assert_eq!(in_flight.add(), Some(true));
        (0..BATCH_THRESHOLD).for_each(|_| in_flight.remove());
        assert_eq!(in_flight.add(), Some(true), "a record of the batch is still in flight");
        (0..2).for_each(|_| in_flight.remove());
        assert_eq!(in_flight.add(), Some(false));
    }
}
