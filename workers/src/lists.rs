//! The lists in Redis that one ownership has made: what it is done with is thrown away, so that Redis does not fill up
//! with windows of codes that nobody will ever pop.
//!
//! A name belongs to one ownership, so throwing a list away can hurt nobody but its owner, and a list that its owner
//! finds empty is one that it abandons. So nothing here has to be certain: a coupon has one list at a time, and
//! whoever fills a second one has abandoned the first.

use std::collections::BTreeMap;

use coupon_core::ids::CouponNo;
use coupon_core::interface::{CacheListName, Pop, Popped};

/// The lists of one ownership that may exist.
#[derive(Debug)]
pub struct Lists {
    /// How many are kept in mind at most; beyond that the oldest goes.
    most: usize,
    of: BTreeMap<CouponNo, CacheListName>,
    /// By the order in which they were made.
    by_age: BTreeMap<u64, CouponNo>,
}

impl Lists {
    /// None yet.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { most, of: BTreeMap::new(), by_age: BTreeMap::new() }
    }

    /// This list is about to be filled. Answers those that are of no use from now on.
    pub fn filling(&mut self, list: CacheListName) -> Vec<CacheListName> {
        let mut useless = Vec::new();
        if let Some(before) = self.of.insert(list.coupon, list)
            && before != list
        {
            self.by_age.remove(&before.generation);
            useless.push(before);
        }
        self.by_age.insert(list.generation, list.coupon);
        while self.of.len() > self.most
            && let Some((_, coupon)) = self.by_age.pop_first()
        {
            useless.extend(self.of.remove(&coupon));
        }
        useless
    }

    /// Every list that may exist; from now on none.
    #[must_use]
    pub fn take_all(&mut self) -> Vec<CacheListName> {
        self.by_age.clear();
        std::mem::take(&mut self.of).into_values().collect()
    }
}

/// The lists that their owner abandons for what these pops gave: nobody pops from them again.
#[must_use]
pub fn doubted(pops: &[Pop], popped: &[Popped]) -> Vec<CacheListName> {
    let as_asked = |popped: &Popped, count| matches!(popped, Popped::Codes(codes) if codes.len() == count);
    let doubted = pops.iter().zip(popped).filter(|(pop, popped)| !as_asked(popped, pop.count));
    doubted.map(|(pop, _)| pop.list).collect()
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
    fn a_second_list_of_a_coupon_makes_the_first_useless_and_filling_one_again_does_not() {
        let mut lists = Lists::new(10);
        assert_eq!(lists.filling(list(1, 1)), []);
        assert_eq!(lists.filling(list(2, 2)), []);
        assert_eq!(lists.filling(list(1, 1)), []);
        assert_eq!(lists.filling(list(1, 3)), [list(1, 1)]);
        assert_eq!(lists.take_all(), [list(1, 3), list(2, 2)]);
        assert_eq!(lists.take_all(), []);
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded_and_the_oldest_goes() {
        let mut lists = Lists::new(2);
        assert_eq!(lists.filling(list(7, 1)), []);
        assert_eq!(lists.filling(list(5, 2)), []);
        assert_eq!(lists.filling(list(6, 3)), [list(7, 1)]);
        assert_eq!(lists.take_all(), [list(5, 2), list(6, 3)]);
    }

    #[test]
    fn a_list_that_gives_less_than_asked_or_nothing_certain_is_doubted() {
        let code = CodeEntry { number: CodeNumber(1), code: "A".into() };
        let pops = [1, 2, 3, 4].map(|n| Pop { list: list(n, n.unsigned_abs()), count: 1 });
        let popped = [
            Popped::Codes(vec![code.clone()]),
            Popped::Unknown,
            Popped::Codes(Vec::new()),
            Popped::Codes(vec![code]),
        ];
        assert_eq!(doubted(&pops, &popped), [list(2, 2), list(3, 3)]);
    }
}
