//! The cache lists in Redis that one ownership has created, so that they are deleted when they are no longer used and
//! Redis does not fill up with windows of codes.
//!
//! A list name belongs to one ownership, so deleting a list affects its owner alone, and an owner that finds a list
//! empty invalidates it. The bookkeeping therefore need not be exact: a coupon has one list at a time, and an owner that
//! fills a second one has invalidated the first.

use std::collections::BTreeMap;

use coupon_core::ids::CouponNo;
use coupon_core::interface::{CacheListName, Pop, Popped};

/// The lists of one ownership that may exist.
#[derive(Debug)]
pub(super) struct CacheLists {
    /// Bound of the lists that are tracked; beyond it the oldest is dropped.
    capacity: usize,
    by_coupon: BTreeMap<CouponNo, CacheListName>,
    /// By generation: in the order of their creation.
    by_age: BTreeMap<u64, CouponNo>,
}

impl CacheLists {
    /// No lists.
    #[must_use]
    pub(super) const fn new(capacity: usize) -> Self {
        Self { capacity, by_coupon: BTreeMap::new(), by_age: BTreeMap::new() }
    }

    /// Adds a list that is about to be filled. Returns the lists that are no longer used.
    pub(super) fn add(&mut self, list: CacheListName) -> Vec<CacheListName> {
        let mut unused = Vec::new();
        if let Some(before) = self.by_coupon.insert(list.coupon, list)
            && before != list
        {
            self.by_age.remove(&before.generation);
            unused.push(before);
        }
        self.by_age.insert(list.generation, list.coupon);
        while self.by_coupon.len() > self.capacity
            && let Some((_, coupon)) = self.by_age.pop_first()
        {
            unused.extend(self.by_coupon.remove(&coupon));
        }
        unused
    }

    /// Removes and returns every list that may exist.
    #[must_use]
    pub(super) fn take_all(&mut self) -> Vec<CacheListName> {
        self.by_age.clear();
        std::mem::take(&mut self.by_coupon).into_values().collect()
    }
}

/// The lists that their owner invalidates after these pops: those that returned fewer codes than requested, or failed.
#[must_use]
pub(super) fn invalidated_by(pops: &[Pop], popped: &[Popped]) -> Vec<CacheListName> {
    let is_complete = |popped: &Popped, count| matches!(popped, Popped::Codes(codes) if codes.len() == count);
    let invalidated = pops.iter().zip(popped).filter(|(pop, popped)| !is_complete(popped, pop.count));
    invalidated.map(|(pop, _)| pop.list).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::ids::{CodeNumber, Epoch, Nonce};
    use coupon_core::interface::CodeEntry;

    fn list(coupon: i64, generation: u64) -> CacheListName {
        CacheListName { coupon: CouponNo(coupon), epoch: Epoch(1), nonce: Nonce(1), generation }
    }

    #[test]
    fn a_second_list_of_a_coupon_replaces_the_first_and_refilling_one_does_not() {
        let mut lists = CacheLists::new(10);
        assert_eq!(lists.add(list(1, 1)), []);
        assert_eq!(lists.add(list(2, 2)), []);
        assert_eq!(lists.add(list(1, 1)), []);
        assert_eq!(lists.add(list(1, 3)), [list(1, 1)]);
        assert_eq!(lists.take_all(), [list(1, 3), list(2, 2)]);
        assert_eq!(lists.take_all(), []);
    }

    #[test]
    fn the_number_of_lists_is_bounded_and_the_oldest_is_dropped() {
        let mut lists = CacheLists::new(2);
        assert_eq!(lists.add(list(7, 1)), []);
        assert_eq!(lists.add(list(5, 2)), []);
        assert_eq!(lists.add(list(6, 3)), [list(7, 1)]);
        assert_eq!(lists.take_all(), [list(5, 2), list(6, 3)]);
    }

    #[test]
    fn a_list_that_returns_fewer_codes_than_requested_or_fails_is_invalidated() {
        let code = CodeEntry { number: CodeNumber(1), code: "A".into() };
        let pops = [1, 2, 3, 4].map(|n| Pop { list: list(n, n.unsigned_abs()), count: 1 });
        let popped = [
            Popped::Codes(vec![code.clone()]),
            Popped::Unknown,
            Popped::Codes(Vec::new()),
            Popped::Codes(vec![code]),
        ];
        assert_eq!(invalidated_by(&pops, &popped), [list(2, 2), list(3, 3)]);
    }
}
