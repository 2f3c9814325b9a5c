//! Results of lookups by name, in bounded memory, so that not every request costs a query.
//!
//! Guarantees: a found name stays cached (nothing that is cached here is ever removed or changed); an absent name is
//! cached for one second at most, because it may be created; concurrent lookups of one name share one query; a failed
//! query is never taken for an absent name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use tokio::sync::OnceCell;

use crate::db::query_pool::QueryError;

/// How long a result other than "found" is valid.
const SHORT_TTL: Duration = Duration::from_secs(1);
/// Maximum number of names that are being looked up, or were not found.
const MAX_LOOKUPS: usize = 8_192;

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup<V> {
    /// The name exists, with this value.
    Found(V),
    /// The name did not exist a moment ago.
    Absent,
    /// Postgres did not respond.
    Unknown,
}

/// The names that were looked up last.
#[derive(Debug)]
pub(crate) struct LookupCache<V> {
    found: Cache<Box<str>, V, UnitWeighter, RandomState>,
    /// Locked only where a name is not found in the cache.
    lookups: Mutex<Lookups<V>>,
}

type Lookups<V> = HashMap<Box<str>, SharedLookup<V>, RandomState>;

/// One query that all concurrent lookups of a name wait for.
#[derive(Debug)]
struct SharedLookup<V> {
    since: Instant,
    result: Arc<OnceCell<Lookup<V>>>,
}

impl<V: Clone> LookupCache<V> {
    /// A cache of at most this many names.
    pub(crate) fn new(names: usize) -> Self {
        let (hasher, lifecycle) = (RandomState::default(), DefaultLifecycle::default());
        let found = Cache::with(names, names as u64, UnitWeighter, hasher, lifecycle);
        Self { found, lookups: Mutex::default() }
    }

    /// Looks a name up in the cache, else by `query`, which has its own timeout.
    pub(crate) async fn get_or_query(
        &self,
        name: &str,
        query: impl Future<Output = Result<Option<V>, QueryError>>,
    ) -> Lookup<V> {
        if let Some(value) = self.found.get(name) {
            return Lookup::Found(value);
        }
        let shared = self.shared_lookup(name, Instant::now());
        let result = shared.get_or_init(async || Lookup::of(query.await)).await.clone();
        if let Lookup::Found(value) = &result {
            self.insert(name, value.clone());
        }
        result
    }

    /// The same, but an absent name is not cached at all: for callers to which a result that is a moment old is wrong.
    pub(crate) async fn get_or_query_fresh(
        &self,
        name: &str,
        query: impl Future<Output = Result<Option<V>, QueryError>>,
    ) -> Lookup<V> {
        if let Some(value) = self.found.get(name) {
            return Lookup::Found(value);
        }
        let result = Lookup::of(query.await);
        if let Lookup::Found(value) = &result {
            self.found.insert(name.into(), value.clone());
        }
        result
    }

    /// Adds a name that exists.
    pub(crate) fn insert(&self, name: &str, value: V) {
        self.found.insert(name.into(), value);
        self.lookups().remove(name);
    }

    fn shared_lookup(&self, name: &str, now: Instant) -> Arc<OnceCell<Lookup<V>>> {
        let mut lookups = self.lookups();
        if let Some(lookup) = lookups.get(name)
            && now.duration_since(lookup.since) < SHORT_TTL
        {
            return Arc::clone(&lookup.result);
        }
        if lookups.len() >= MAX_LOOKUPS {
            lookups.retain(|_, lookup| now.duration_since(lookup.since) < SHORT_TTL);
            // At least half of the map is free after a cleaning, so that the cost per name stays constant.
            if lookups.len() > MAX_LOOKUPS / 2 {
                lookups.clear();
            }
        }
        let result = Arc::default();
        lookups.insert(name.into(), SharedLookup { since: now, result: Arc::clone(&result) });
        result
    }

    fn lookups(&self) -> MutexGuard<'_, Lookups<V>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Lookup<V> {
    /// The result of a query.
    pub(crate) fn of(result: Result<Option<V>, QueryError>) -> Self {
        match result {
            Ok(Some(value)) => Self::Found(value),
            Ok(None) => Self::Absent,
            Err(QueryError::Failed(error)) => {
                tracing::warn!(%error, "lookup in Postgres failed");
                Self::Unknown
            }
            Err(QueryError::TimedOut(_) | QueryError::Overloaded) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn concurrent_lookups_of_one_name_share_one_query() {
        let (cache, queries) = (LookupCache::new(1_000), AtomicUsize::new(0));
        let query = async || {
            queries.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Some(7))
        };
        let all = futures::future::join_all((0..50).map(|_| cache.get_or_query("a", query())));
        assert!(all.await.into_iter().all(|result| result == Lookup::Found(7)));
        assert_eq!(cache.get_or_query("a", ready(Ok(None))).await, Lookup::Found(7));
        assert_eq!(queries.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_new_name_is_found_although_it_was_absent_a_moment_ago() {
        let cache = LookupCache::new(1_000);
        assert_eq!(cache.get_or_query("a", ready(Ok(None))).await, Lookup::Absent);
        let cached = cache.get_or_query("a", ready(Ok(Some(1)))).await;
        assert_eq!(cached, Lookup::Absent, "the cached result, for a moment");
        cache.insert("a", 1);
        assert_eq!(cache.get_or_query("a", ready(Ok(None))).await, Lookup::Found(1));
    }

    #[tokio::test]
    async fn a_failed_query_is_not_an_absent_name() {
        let cache = LookupCache::<()>::new(1_000);
        let timed_out = QueryError::TimedOut(SHORT_TTL);
        assert_eq!(cache.get_or_query("a", ready(Err(timed_out))).await, Lookup::Unknown);
        let failed = sqlx::Error::PoolTimedOut.into();
        assert_eq!(cache.get_or_query("b", ready(Err(failed))).await, Lookup::Unknown);
    }

    #[test]
    fn memory_is_bounded_and_an_absent_name_expires() {
        let cache = LookupCache::new(1_000);
        for n in 0..20_000 {
            cache.insert(&format!("c{n}"), ());
            drop(cache.shared_lookup(&format!("d{n}"), Instant::now()));
        }
        let (kept, lookups) = (cache.found.len(), cache.lookups().len());
        assert!(kept <= 1_000 && lookups <= MAX_LOOKUPS, "{kept} {lookups}");

        let start = Instant::now();
        let first = cache.shared_lookup("x", start);
        assert!(Arc::ptr_eq(&first, &cache.shared_lookup("x", start + SHORT_TTL / 2)));
        assert!(!Arc::ptr_eq(&first, &cache.shared_lookup("x", start + SHORT_TTL)));
    }
}
