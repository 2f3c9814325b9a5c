//! Recently verified tokens, in bounded memory: a client that sends several requests has its signature verified once.
//!
//! Guarantees: only a token that is equal byte for byte is found, and only until it expires. Guessing another client's
//! token is as hard as guessing its signature.

use foldhash::fast::RandomState;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::caller::Caller;

/// Longer tokens are verified each time; this bounds the memory of an entry.
const MAX_TOKEN_BYTES: usize = 1_024;

/// The tokens that were verified last.
#[derive(Debug)]
pub(crate) struct TokenCache(Cache<Box<str>, Entry, UnitWeighter, RandomState>);

#[derive(Clone, Debug)]
struct Entry {
    caller: Caller,
    /// Unix seconds; the last second in which the token is valid.
    expires: i64,
}

impl TokenCache {
    /// A cache of at most this many tokens.
    pub(crate) fn new(tokens: usize) -> Self {
        let (hasher, lifecycle) = (RandomState::default(), DefaultLifecycle::default());
        Self(Cache::with(tokens, tokens as u64, UnitWeighter, hasher, lifecycle))
    }

    /// The caller of a cached token that is valid at `now` (unix seconds).
    pub(crate) fn get(&self, token: &str, now: i64) -> Option<Caller> {
        let entry = self.0.get(token)?;
        (now <= entry.expires).then_some(entry.caller)
    }

    /// Adds a verified token.
    pub(crate) fn insert(&self, token: &str, caller: Caller, expires: i64) {
        if token.len() <= MAX_TOKEN_BYTES {
            self.0.insert(token.into(), Entry { caller, expires });
        }
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
        let cache = TokenCache::new(1_000);
        for n in 0..10_000 {
            cache.insert(&format!("token-{n}"), caller("ann"), 100);
        }
        assert!(cache.0.len() <= 1_000, "{}", cache.0.len());
        assert!(cache.get("token-9999", 100).is_some());
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        cache.insert(&long, caller("ann"), 100);
        assert_eq!(cache.get(&long, 100), None);
    }
}
