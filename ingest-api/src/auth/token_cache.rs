//! Recently verified tokens, in bounded memory: a client that sends several requests has its signature verified once.
//!
//! Guarantees: only a token that is equal byte for byte is found, and only until it expires. Guessing another client's
//! token is as hard as guessing its signature.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::{FixedState, RandomState};

use super::caller::Caller;

const SHARDS: usize = 16;
/// Longer tokens are verified each time; this bounds the memory of an entry.
const MAX_TOKEN_BYTES: usize = 1_024;

/// The tokens that were verified last.
#[derive(Debug)]
pub(crate) struct TokenCache {
    shards: Vec<Mutex<Shard>>,
    /// Per shard and generation.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    new: Generation,
    old: Generation,
}

type Generation = HashMap<Box<str>, Entry, RandomState>;

#[derive(Clone, Debug)]
struct Entry {
    caller: Caller,
    /// Unix seconds; the last second in which the token is valid.
    expires: i64,
}

impl TokenCache {
    /// A cache of at most this many tokens.
    pub(crate) fn new(tokens: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, capacity: (tokens / SHARDS / 2).max(1) }
    }

    /// The caller of a cached token that is valid at `now` (unix seconds).
    pub(crate) fn get(&self, token: &str, now: i64) -> Option<Caller> {
        let shard = self.shard(token);
        let entry = shard.new.get(token).or_else(|| shard.old.get(token))?;
        (now <= entry.expires).then(|| entry.caller.clone())
    }

    /// Adds a verified token.
    pub(crate) fn insert(&self, token: &str, caller: Caller, expires: i64) {
        if token.len() > MAX_TOKEN_BYTES {
            return;
        }
        let mut shard = self.shard(token);
        if shard.new.len() >= self.capacity {
            let shard = &mut *shard;
            mem::swap(&mut shard.new, &mut shard.old);
            shard.new.clear();
        }
        shard.new.insert(token.into(), Entry { caller, expires });
    }

    fn shard(&self, token: &str) -> MutexGuard<'_, Shard> {
        let hash = FixedState::default().hash_one(token);
        self.shards[(hash as usize) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::roles::Roles;
    use super::*;

    fn caller(sub: &str) -> Caller {
        Caller { sub: sub.to_owned(), roles: Roles::default() }
    }

    #[test]
    fn a_token_is_found_if_every_byte_is_equal_and_until_it_expires() {
        let cache = TokenCache::new(1_000);
        cache.insert("a.b.c", caller("ann"), 100);
        assert_eq!(cache.get("a.b.c", 100), Some(caller("ann")));
        assert_eq!(cache.get("a.b.c", 101), None);
        for other in ["a.b.d", "a.b.c ", "a.b", "A.b.c", ""] {
            assert_eq!(cache.get(other, 100), None, "{other}");
        }
    }

    #[test]
    fn memory_is_bounded_in_number_and_in_length() {
        let cache = TokenCache::new(SHARDS * 8);
        for n in 0..10_000 {
            cache.insert(&format!("token-{n}"), caller("ann"), 100);
        }
        let kept: usize = cache
            .shards
            .iter()
            .filter_map(|shard| shard.lock().ok().map(|s| s.new.len() + s.old.len()))
            .sum();
        assert!(kept <= SHARDS * 8, "{kept}");
        assert!(cache.get("token-9999", 100).is_some());
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        cache.insert(&long, caller("ann"), 100);
        assert_eq!(cache.get(&long, 100), None);
    }
}
