//! Detection of duplicates: requests that were decided before.
//!
//! Only possible duplicates are looked up among the stored outcomes. A request with an Idempotency-Key always is one.
//! The id of a request without a key contains the time at which it was minted. Two copies that are both appended within
//! ±[`MAX_CLOCK_SKEW_MS`] of that time are at most twice as far apart, and the owner keeps the ids of that span in
//! memory. Every other copy is looked up: appended further from its minting time, minted before this owner took over
//! (plus [`MAX_CLOCK_SKEW_MS`]), or minted before a time up to which ids arrived early. A lookup that finds nothing
//! leaves a new request, so an error in this direction is harmless.

use super::Config;
use crate::domain::batch::Decision;
use crate::domain::ids::{Millis, RequestId};
use crate::planted::Bug;
use foldhash::fast::FixedState;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

/// Largest difference between an id's minting time and its append time for which the ids in memory are sufficient, in
/// milliseconds.
pub const MAX_CLOCK_SKEW_MS: i64 = 10_000;
/// The recent ids, in two generations of at least twice [`MAX_CLOCK_SKEW_MS`] each.
#[derive(Clone, Debug)]
pub struct RecentIds {
    young: HashSet<u128, FixedState>,
    old: HashSet<u128, FixedState>,
    young_since: Millis,
    possible_duplicates_until: Millis,
    /// Most ids of one generation. Above it the generation is dropped, and the ids that follow are looked up.
    max_generation: usize,
}

impl RecentIds {
    /// No ids; those minted up to `possible_duplicates_until` are looked up.
    #[must_use]
    pub fn new(seed: u64, possible_duplicates_until: Millis, max_generation: usize) -> Self {
        let set = || HashSet::with_hasher(FixedState::with_seed(seed));
        Self {
            young: set(),
            old: set(),
            young_since: Millis(i64::MIN),
            possible_duplicates_until,
            max_generation,
        }
    }

    /// Ids minted up to here may be duplicates; written with every batch for the next owner.
    #[must_use]
    pub const fn possible_duplicates_until(&self) -> Millis {
        self.possible_duplicates_until
    }

    /// Whether this request may be a duplicate. Adds its id. `now` is the partition's time.
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
        let full = self.young.len() >= self.max_generation;
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

/// The time at which an id without a key was minted: the first 48 bits of a UUIDv7.
#[must_use]
pub const fn minted(id: RequestId) -> Millis {
    Millis((id.identity >> 80) as i64)
}

/// The days on which the outcomes of possible duplicates may have been stored.
///
/// An outcome is stored on the day of its batch, whose time is at or after its record's append time, and at or before the
/// time of any later record. So the days of the deduplication window contain the outcome of every duplicate that is
/// appended within it. Without a key, the days around the id's own time contain that of every later duplicate.
#[derive(Debug, Default)]
pub(super) struct DuplicateDays {
    days: BTreeSet<i32>,
    last: Option<RangeInclusive<i32>>,
}

impl DuplicateDays {
    /// Adds those of a record with this id at this time of the partition.
    pub(super) fn add(&mut self, id: RequestId, now: Millis, config: &Config) {
        let window = Millis(now.0.saturating_sub(config.deduplication_ms));
        let first = if config.planted.has(Bug::OnlyTodayLookedUp) { now.day() } else { window.day() };
        // Most neighbours have the same days.
        let range = first..=now.day();
        if self.last.as_ref() != Some(&range) {
            self.days.extend(range.clone());
            self.last = Some(range);
        }
        if !id.is_keyed() {
            let day = Millis(minted(id).0.saturating_sub(MAX_CLOCK_SKEW_MS)).day();
            self.days.extend(day..=day.saturating_add(1));
        }
    }

    /// In ascending order.
    pub(super) fn into_days(self) -> Vec<i32> {
        self.days.into_iter().collect()
    }
}

/// The outcome of a duplicate.
pub(super) enum Duplicate {
    /// The request is decided in a batch that is not settled: its outcome is published with that batch.
    InFlight,
    /// The stored outcome, which is published again.
    Stored(Decision),
    /// The identity was used with another body.
    KeyReused,
}

/// Stored decisions, by request.
#[derive(Debug, Default)]
pub(super) struct StoredDecisions {
    by_id: HashMap<RequestId, Decision, FixedState>,
    identities: HashSet<u128, FixedState>,
}

impl StoredDecisions {
    pub(super) fn insert(&mut self, decision: Decision) {
        let id = decision.request.id;
        self.identities.insert(id.identity);
        self.by_id.insert(id, decision);
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Decision> {
        self.by_id.get(&id)
    }

    pub(super) fn contains_identity(&self, identity: u128) -> bool {
        self.identities.contains(&identity)
    }
}

/// Ids of decided requests whose outcomes are not needed.
#[derive(Debug, Default)]
pub(super) struct DecidedIds {
    ids: HashSet<RequestId, FixedState>,
    identities: HashSet<u128, FixedState>,
}

impl DecidedIds {
    pub(super) fn extend(&mut self, decisions: &[Decision]) {
        self.ids.extend(decisions.iter().map(|decision| decision.request.id));
        self.identities.extend(decisions.iter().map(|decision| decision.request.id.identity));
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn contains_identity(&self, identity: u128) -> bool {
        self.identities.contains(&identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::DAY_MS;

    fn id(minted: i64, n: u128) -> RequestId {
        RequestId { identity: (u128::from(minted.unsigned_abs()) << 80) | n, body: 0 }
    }

    fn recent() -> RecentIds {
        RecentIds::new(1, Millis(0), 1_000)
    }

    const NOW: i64 = 1_000_000;

    #[test]
    fn a_new_id_is_no_possible_duplicate_and_its_copy_is() {
        let mut recent = recent();
        assert!(!recent.is_possible_duplicate(id(NOW, 1), Millis(NOW)));
        assert!(recent.is_possible_duplicate(id(NOW, 1), Millis(NOW)));
        assert!(!recent.is_possible_duplicate(id(NOW, 2), Millis(NOW)));
    }

    #[test]
    fn a_copy_is_a_possible_duplicate_however_far_apart_the_two_are() {
        for early in [-30_000, -10_001, -10_000, -1, 0, 5_000, 10_000] {
            for apart in [0, 1, 9_999, 10_001, 19_999, 20_001, 60_000, 3_600_000] {
                let mut recent = recent();
                recent.is_possible_duplicate(id(NOW, 1), Millis(NOW + early));
                for step in 1..40 {
                    let then = NOW + early + apart * step / 40;
                    recent.is_possible_duplicate(id(then, 2 + step as u128), Millis(then));
                }
                let copied = Millis(NOW + early + apart);
                assert!(recent.is_possible_duplicate(id(NOW, 1), copied), "{early} {apart}");
            }
        }
    }

    #[test]
    fn ids_that_no_longer_fit_are_possible_duplicates() {
        let mut recent = RecentIds::new(1, Millis(0), 3);
        let mut possible = |n| recent.is_possible_duplicate(id(NOW, n), Millis(NOW));
        assert_eq!([1, 2, 3].map(&mut possible), [false; 3]);
        assert_eq!([4, 1, 2, 3].map(&mut possible), [false, true, true, true], "one generation is kept");
        assert!([5, 6, 7, 8, 9, 1].map(&mut possible).contains(&true));
        let later = NOW + MAX_CLOCK_SKEW_MS + 1;
        assert!(!recent.is_possible_duplicate(id(later, 1), Millis(later)), "fits again");
    }

    #[test]
    fn after_a_takeover_ids_minted_before_it_are_possible_duplicates() {
        let mut recent = RecentIds::new(1, Millis(NOW + MAX_CLOCK_SKEW_MS), 1_000);
        assert!(recent.is_possible_duplicate(id(NOW, 1), Millis(NOW)));
        let later = NOW + MAX_CLOCK_SKEW_MS + 1;
        assert!(!recent.is_possible_duplicate(id(later, 1), Millis(later)));
    }

    #[test]
    fn outcomes_are_looked_up_on_the_days_of_the_window_and_around_the_time_of_an_id_without_key() {
        const HOUR: i64 = 3_600_000;
        let keyed = RequestId { identity: 1, body: 7 };
        let days = |id, now, hours| {
            let mut days = DuplicateDays::default();
            let config = Config { deduplication_ms: hours * HOUR, ..Config::default() };
            days.add(id, Millis(now), &config);
            days.into_days()
        };
        let noon = 100 * DAY_MS + 12 * HOUR;
        assert_eq!(days(keyed, noon, 48), [98, 99, 100]);
        assert_eq!(days(keyed, noon, 12), [100]);
        assert_eq!(days(keyed, noon, 13), [99, 100]);
        assert_eq!(days(id(noon, 1), noon, 48), [98, 99, 100, 101]);
        assert_eq!(days(id(40 * DAY_MS, 1), noon, 1), [39, 40, 100], "minted 60 days ago, at midnight");
        assert_eq!(days(keyed, i64::MAX, 48), [i32::MAX]);
    }

    #[test]
    fn a_request_with_a_key_is_always_a_possible_duplicate() {
        let keyed = RequestId { identity: id(NOW, 1).identity, body: 7 };
        assert!(recent().is_possible_duplicate(keyed, Millis(NOW)));
    }
}
