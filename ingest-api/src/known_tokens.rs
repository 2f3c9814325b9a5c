//! Tokens whose signature was checked a moment ago, in bounded memory: whoever asks again (polls, locks, redeems,
//! repeats) is not checked again.
//!
//! Guarantees: only a token that is the same to the last byte is known; it counts until it expires and not longer. To
//! hit upon somebody else's by guessing is as hard as guessing the signature.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::{FixedState, RandomState};

use crate::auth::Caller;

const SHARDS: usize = 16;
/// Longer ones are checked each time, so that memory stays as small as it should be.
const LONGEST: usize = 1_024;

/// The tokens that were used last.
#[derive(Debug)]
pub(crate) struct KnownTokens {
    shards: Vec<Mutex<Shard>>,
    /// Per shard and generation.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    new: Generation,
    old: Generation,
}

type Generation = HashMap<Box<str>, Known, RandomState>;

#[derive(Clone, Debug)]
struct Known {
    caller: Caller,
    /// Unix seconds, the last in which it counts.
    expires: i64,
}

impl KnownTokens {
    /// Remembers at most this many.
    pub(crate) fn new(tokens: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, capacity: (tokens / SHARDS / 2).max(1) }
    }

    /// Who the token speaks for, if that is known and it still counts at `now` (unix seconds).
    pub(crate) fn recall(&self, token: &str, now: i64) -> Option<Caller> {
        let shard = self.shard(token);
        let known = shard.new.get(token).or_else(|| shard.old.get(token))?;
        (now <= known.expires).then(|| known.caller.clone())
    }

    /// The token was checked.
    pub(crate) fn remember(&self, token: &str, caller: Caller, expires: i64) {
        if token.len() > LONGEST {
            return;
        }
        let mut shard = self.shard(token);
        if shard.new.len() >= self.capacity {
            let shard = &mut *shard;
            mem::swap(&mut shard.new, &mut shard.old);
            shard.new.clear();
        }
        shard.new.insert(token.into(), Known { caller, expires });
    }

    fn shard(&self, token: &str) -> MutexGuard<'_, Shard> {
        let hash = FixedState::default().hash_one(token);
        self.shards[(hash as usize) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Roles;

    fn caller(sub: &str) -> Caller {
        Caller { sub: sub.to_owned(), roles: Roles::default() }
    }

    #[test]
    fn a_token_is_known_to_the_last_byte_and_until_it_expires() {
        let known = KnownTokens::new(1_000);
        known.remember("a.b.c", caller("ann"), 100);
        assert_eq!(known.recall("a.b.c", 100), Some(caller("ann")));
        assert_eq!(known.recall("a.b.c", 101), None);
        for other in ["a.b.d", "a.b.c ", "a.b", "A.b.c", ""] {
            assert_eq!(known.recall(other, 100), None, "{other}");
        }
    }

    #[test]
    fn memory_is_bounded_in_number_and_in_length() {
        let known = KnownTokens::new(SHARDS * 8);
        for n in 0..10_000 {
            known.remember(&format!("token-{n}"), caller("ann"), 100);
        }
        let kept: usize = known
            .shards
            .iter()
            .filter_map(|shard| shard.lock().ok().map(|s| s.new.len() + s.old.len()))
            .sum();
        assert!(kept <= SHARDS * 8, "{kept}");
        assert!(known.recall("token-9999", 100).is_some());
        let long = "x".repeat(LONGEST + 1);
        known.remember(&long, caller("ann"), 100);
        assert_eq!(known.recall(&long, 100), None);
    }
}
