//! The counters of a run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Distinct complaints that are kept as text; all are counted.
const KEPT: usize = 20;

/// Counters, shared by all clients of a run.
#[derive(Debug, Default)]
pub struct Stats {
    decided: AtomicU64,
    users: AtomicU64,
    shed: AtomicU64,
    unanswered: AtomicU64,
    stopped_waiting: CancellationToken,
    complaints: Mutex<(u64, Vec<String>)>,
}

impl Stats {
    /// Counts an outcome of a request of the load.
    pub fn count_outcome(&self) {
        self.decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of the load with an outcome. Requests of scenarios and probes are not counted.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// Counts a user.
    pub fn count_user(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Users of the load so far.
    #[must_use]
    pub fn users(&self) -> u64 {
        self.users.load(Ordering::Relaxed)
    }

    /// Counts a user that was not started because too many are active.
    pub fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// Users that were not started because too many were active.
    #[must_use]
    pub fn users_shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Counts a repeatable request that was not accepted before the end of the run.
    pub fn count_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were not accepted before the end of the run.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Makes all clients stop waiting.
    pub fn stop_waiting(&self) {
        self.stopped_waiting.cancel();
    }

    /// Completes when clients have to stop waiting.
    pub async fn stopped_waiting(&self) {
        self.stopped_waiting.cancelled().await;
    }

    /// Records a response that the interface does not allow: a violation that only clients can see.
    pub fn complain(&self, what: String) {
        let mut complaints = self.lock();
        complaints.0 += 1;
        if complaints.1.len() < KEPT && !complaints.1.contains(&what) {
            complaints.1.push(what);
        }
    }

    /// The number of complaints, and the first of them.
    #[must_use]
    pub fn complaints(&self) -> (u64, Vec<String>) {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<String>)> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_complaints_are_counted_and_the_first_are_kept() {
        let stats = Stats::default();
        (0..50).for_each(|n| stats.complain(format!("complaint {}", n / 2)));
        let (count, first) = stats.complaints();
        assert_eq!((count, first.len(), first[0].as_str()), (50, KEPT, "complaint 0"));
        assert_eq!(first[1], "complaint 1", "equal complaints are kept once");
    }
}
