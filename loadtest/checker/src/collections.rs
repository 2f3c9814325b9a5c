//! Hash maps and sets with a hash function that is fast for the small keys of the checker.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use foldhash::fast::FixedState;

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;
pub(crate) type Set<K> = HashSet<K, FixedState>;

/// How often each key occurs.
pub(crate) fn counts<K: Hash + Eq>(keys: impl Iterator<Item = K>) -> Map<K, i64> {
    let mut counts = Map::default();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}
