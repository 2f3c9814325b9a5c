//! Which requests can be repetitions of one that was decided before.
//!
//! Only these are looked up. A request with an Idempotency-Key always can. One without is minted with its time
//! inside its id, and two copies of it that are both appended within ±[`MAX_CLOCK_SKEW_MS`] of that time are at most twice
//! [`MAX_CLOCK_SKEW_MS`] apart: the owner remembers the ids of that span. Every other copy is looked up: far from its own
//! time, minted before this owner (plus [`MAX_CLOCK_SKEW_MS`]) took over, or minted before a time up to which ids were seen
//! early. Being wrong in one direction is harmless: a lookup that finds nothing leaves a new request.

use crate::domain::ids::{Millis, RequestId};
use foldhash::fast::FixedState;
use std::collections::HashSet;

/// How far an id's own time may be from its append time, in milliseconds, for memory alone to be believed.
pub const MAX_CLOCK_SKEW_MS: i64 = 10_000;
/// Ids that one generation remembers at most; beyond it, memory starts anew and what follows is looked up.
const MOST_REMEMBERED: usize = 2_000_000;

/// The ids seen lately, in two generations of at least twice [`MAX_CLOCK_SKEW_MS`] each.
#[derive(Clone, Debug)]
pub struct RecentIds {
    young: HashSet<u128, FixedState>,
    old: HashSet<u128, FixedState>,
    young_since: Millis,
    possible_duplicates_until: Millis,
}

impl RecentIds {
    /// Nothing is remembered; ids minted until `possible_duplicates_until` are looked up.
    #[must_use]
    pub fn new(seed: u64, possible_duplicates_until: Millis) -> Self {
        let set = || HashSet::with_hasher(FixedState::with_seed(seed));
        Self { young: set(), old: set(), young_since: Millis(i64::MIN), possible_duplicates_until }
    }

    /// Ids minted up to here may be repetitions; written with every batch for the next owner.
    #[must_use]
    pub const fn possible_duplicates_until(&self) -> Millis {
        self.possible_duplicates_until
    }

    /// Whether this request can be a repetition; remembers it. `now` is the partition's time.
    pub fn is_possible_duplicate(&mut self, id: RequestId, now: Millis) -> bool {
        if id.is_keyed() {
            return true;
        }
        let minted = minted(id);
        if minted.0.abs_diff(now.0) > MAX_CLOCK_SKEW_MS.unsigned_abs() {
            if minted > now {
                self.possible_duplicates_until = self.possible_duplicates_until.max(minted);
            }
            return true;
        }
        if minted <= self.possible_duplicates_until {
            return true;
        }
        self.rotate(now);
        self.old.contains(&id.identity) || !self.young.insert(id.identity)
    }

    fn rotate(&mut self, now: Millis) {
        let full = self.young.len() >= MOST_REMEMBERED;
        if full {
            self.possible_duplicates_until =
                self.possible_duplicates_until.max(Millis(now.0 + MAX_CLOCK_SKEW_MS));
        }
        if full || now.0.saturating_sub(self.young_since.0) > 2 * MAX_CLOCK_SKEW_MS {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.young_since = now;
        }
    }
}

/// When an id without a key was minted: the first 48 bits of a UUIDv7.
#[must_use]
pub const fn minted(id: RequestId) -> Millis {
    Millis((id.identity >> 80) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(minted: i64, n: u128) -> RequestId {
        RequestId { identity: (u128::from(minted.unsigned_abs()) << 80) | n, body: 0 }
    }

    fn recent() -> RecentIds {
        RecentIds::new(1, Millis(0))
    }

    const NOW: i64 = 1_000_000;

    #[test]
    fn a_fresh_id_is_no_suspect_and_its_copy_is() {
        let mut recent = recent();
        assert!(!recent.is_possible_duplicate(id(NOW, 1), Millis(NOW)));
        assert!(recent.is_possible_duplicate(id(NOW, 1), Millis(NOW)));
        assert!(!recent.is_possible_duplicate(id(NOW, 2), Millis(NOW)));
    }

    #[test]
    fn a_copy_is_a_suspect_however_far_apart_the_two_are() {
        for early in [-30_000, -10_001, -10_000, -1, 0, 5_000, 10_000] {
            for apart in [0, 1, 9_999, 10_001, 19_999, 20_001, 60_000, 3_600_000] {
                let mut recent = recent();
                recent.is_possible_duplicate(id(NOW, 1), Millis(NOW + early));
                for step in 1..40 {
                    let then = NOW + early + apart * step / 40;
                    recent.is_possible_duplicate(id(then, 2 + step as u128), Millis(then));
                }
                assert!(
                    recent.is_possible_duplicate(id(NOW, 1), Millis(NOW + early + apart)),
                    "{early} {apart}"
                );
            }
        }
    }

    #[test]
    fn after_a_takeover_ids_minted_before_it_are_suspects() {
        let mut recent = RecentIds::new(1, Millis(NOW + MAX_CLOCK_SKEW_MS));
        assert!(recent.is_possible_duplicate(id(NOW, 1), Millis(NOW)));
        assert!(
            !recent.is_possible_duplicate(
                id(NOW + MAX_CLOCK_SKEW_MS + 1, 1),
                Millis(NOW + MAX_CLOCK_SKEW_MS + 1)
            )
        );
    }

    #[test]
    fn a_request_with_a_key_is_always_a_suspect() {
        assert!(
            recent().is_possible_duplicate(RequestId { identity: id(NOW, 1).identity, body: 7 }, Millis(NOW))
        );
    }
}
