//! What Postgres said about names, in bounded memory, so that not every request costs a query.
//!
//! Guarantees: what exists is remembered (nothing that is asked for here is ever removed or changed); that something
//! does not exist is forgotten after a second, since somebody may be making it; however many ask for the same name
//! at once, Postgres is asked once; while Postgres does not answer nothing is claimed to be unknown.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::{FixedState, RandomState};
use tokio::sync::OnceCell;

use crate::questions::Unanswered;

const SHARDS: usize = 16;
/// How long an answer other than "it exists" counts.
const BRIEF: Duration = Duration::from_secs(1);
/// Names that are being asked for, or were not found, per shard.
const ASKED: usize = 1_024;

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known<V> {
    /// It exists, and this belongs to it.
    There(V),
    /// It did not exist a moment ago.
    Absent,
    /// Postgres did not say.
    Unsure,
}

/// The names that were asked for last.
#[derive(Debug)]
pub(crate) struct Remembered<V> {
    shards: Vec<Mutex<Shard<V>>>,
    /// Per shard and generation.
    capacity: usize,
}

#[derive(Debug)]
struct Shard<V> {
    new: HashMap<Box<str>, V, RandomState>,
    old: HashMap<Box<str>, V, RandomState>,
    asked: HashMap<Box<str>, Asked<V>, RandomState>,
}

#[derive(Debug)]
struct Asked<V> {
    since: Instant,
    answer: Arc<OnceCell<Known<V>>>,
}

impl<V: Clone> Remembered<V> {
    /// Remembers at most this many.
    pub(crate) fn new(names: usize) -> Self {
        let shard = || Shard { new: HashMap::default(), old: HashMap::default(), asked: HashMap::default() };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { shards, capacity: (names / SHARDS / 2).max(1) }
    }

    /// What is known of the name; `query` asks Postgres, and has a limit of its own.
    pub(crate) async fn look(
        &self,
        name: &str,
        query: impl Future<Output = Result<Option<V>, Unanswered>>,
    ) -> Known<V> {
        if let Some(value) = self.recall(name) {
            return Known::There(value);
        }
        let asked = self.ask(name, Instant::now());
        let known = asked.get_or_init(async || known(query.await)).await.clone();
        if let Known::There(value) = &known {
            self.insert(name, value.clone());
        }
        known
    }

    /// What is known of the name, where an answer that is a moment old may be wrong: absence is not remembered at all.
    pub(crate) async fn look_anew(
        &self,
        name: &str,
        query: impl Future<Output = Result<Option<V>, Unanswered>>,
    ) -> Known<V> {
        if let Some(value) = self.recall(name) {
            return Known::There(value);
        }
        let known = known(query.await);
        if let Known::There(value) = &known {
            self.insert(name, value.clone());
        }
        known
    }

    /// It exists.
    pub(crate) fn insert(&self, name: &str, value: V) {
        let mut shard = self.shard(name);
        shard.asked.remove(name);
        if shard.new.len() >= self.capacity {
            let shard = &mut *shard;
            mem::swap(&mut shard.new, &mut shard.old);
            shard.new.clear();
        }
        shard.new.insert(name.into(), value);
    }

    fn recall(&self, name: &str) -> Option<V> {
        let shard = self.shard(name);
        shard.new.get(name).or_else(|| shard.old.get(name)).cloned()
    }

    fn ask(&self, name: &str, now: Instant) -> Arc<OnceCell<Known<V>>> {
        let mut shard = self.shard(name);
        if let Some(asked) = shard.asked.get(name)
            && now.duration_since(asked.since) < BRIEF
        {
            return Arc::clone(&asked.answer);
        }
        if shard.asked.len() >= ASKED {
            shard.asked.retain(|_, asked| now.duration_since(asked.since) < BRIEF);
        }
        if shard.asked.len() >= ASKED {
            shard.asked.clear();
        }
        let answer = Arc::default();
        shard.asked.insert(name.into(), Asked { since: now, answer: Arc::clone(&answer) });
        answer
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, Shard<V>> {
        let hash = FixedState::default().hash_one(name);
        self.shards[(hash as usize) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a query says, or that it did not say it.
pub(crate) fn known<V>(answer: Result<Option<V>, Unanswered>) -> Known<V> {
    match answer {
        Ok(Some(value)) => Known::There(value),
        Ok(None) => Known::Absent,
        Err(Unanswered::Failed(error)) => {
            tracing::warn!(%error, "Postgres does not say whether something exists");
            Known::Unsure
        }
        Err(Unanswered::Late(_) | Unanswered::Crowded) => Known::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn what_exists_is_asked_for_once_however_many_want_to_know() {
        let (known, asked) = (Remembered::new(1_000), AtomicUsize::new(0));
        let query = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Some(7))
        };
        let all = futures::future::join_all((0..50).map(|_| known.look("a", query())));
        assert!(all.await.into_iter().all(|known| known == Known::There(7)));
        assert_eq!(known.look("a", ready(Ok(None))).await, Known::There(7));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_was_just_made_is_known_although_it_was_absent_a_moment_ago() {
        let known = Remembered::new(1_000);
        assert_eq!(known.look("a", ready(Ok(None))).await, Known::Absent);
        assert_eq!(known.look("a", ready(Ok(Some(1)))).await, Known::Absent, "the same answer, for a moment");
        known.insert("a", 1);
        assert_eq!(known.look("a", ready(Ok(None))).await, Known::There(1));
    }

    #[tokio::test]
    async fn silence_is_not_absence() {
        let known = Remembered::<()>::new(1_000);
        assert_eq!(known.look("a", ready(Err(Unanswered::Late(BRIEF)))).await, Known::Unsure);
        assert_eq!(known.look("b", ready(Err(sqlx::Error::PoolTimedOut.into()))).await, Known::Unsure);
    }

    #[test]
    fn memory_is_bounded_and_an_absence_is_forgotten() {
        let known = Remembered::new(SHARDS * 8);
        for n in 0..10_000 {
            known.insert(&format!("c{n}"), ());
            drop(known.ask(&format!("d{n}"), Instant::now()));
        }
        let (kept, asked) = known.shards.iter().fold((0, 0), |(kept, asked), shard| {
            let shard = shard.lock().expect("nobody panicked");
            (kept + shard.new.len() + shard.old.len(), asked + shard.asked.len())
        });
        assert!(kept <= SHARDS * 8 && asked <= SHARDS * ASKED, "{kept} {asked}");

        let start = Instant::now();
        let first = known.ask("x", start);
        assert!(Arc::ptr_eq(&first, &known.ask("x", start + BRIEF / 2)));
        assert!(!Arc::ptr_eq(&first, &known.ask("x", start + BRIEF)));
    }
}
