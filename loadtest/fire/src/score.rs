//! What is counted while a run is on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Different complaints that are kept word for word; all are counted.
const KEPT: usize = 20;

/// The counters of a run.
#[derive(Debug, Default)]
pub struct Score {
    decided: AtomicU64,
    lives: AtomicU64,
    shed: AtomicU64,
    unanswered: AtomicU64,
    given_up: AtomicBool,
    complaints: Mutex<(u64, Vec<String>)>,
}

impl Score {
    /// A request of the load had its outcome told.
    pub fn decide(&self) {
        self.decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of the load whose outcome was told; those of faults and probes would flatter it.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// A user came.
    pub fn begin_life(&self) {
        self.lives.fetch_add(1, Ordering::Relaxed);
    }

    /// Users that came.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// A user found no room among those who wait, and went.
    pub fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// Users that found no room.
    #[must_use]
    pub fn users_shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// A request that may be repeated for ever was not even accepted by the end of the run.
    pub fn leave_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were not even accepted.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Whoever still waits for something goes.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits any more.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Something was answered, or was not, that the interface does not allow: a violation that only clients see.
    pub fn complain(&self, what: String) {
        let mut complaints = self.lock();
        complaints.0 += 1;
        if complaints.1.len() < KEPT && !complaints.1.contains(&what) {
            complaints.1.push(what);
        }
    }

    /// How many complaints there were, and the first of them.
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
        let score = Score::default();
        (0..50).for_each(|n| score.complain(format!("complaint {}", n / 2)));
        let (count, first) = score.complaints();
        assert_eq!((count, first.len(), first[0].as_str()), (50, KEPT, "complaint 0"));
        assert_eq!(first[1], "complaint 1", "the same only once");
    }
}
