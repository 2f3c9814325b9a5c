//! The owner's cache of coupons and their users.
//!
//! The changes of an unsettled batch stay cached until a batch is prefetched that begins after it was settled: until
//! then a read may show the state before it. So a cached value always overlays a read, and a value that is not cached
//! was not changed by any batch that a read could miss. Absence is never cached.
//!
//! A full cache evicts the least recently used quarter of its coupons, or half of its users, of those that no unsettled
//! batch changed: so many at a time that their search costs each of them little.

mod claimants;
mod coupon;
mod least_recent;

pub(super) use coupon::Coupon;

use super::config::Config;
use crate::domain::ids::{CouponNo, Epoch, Millis, Nonce};
use crate::interface::{CacheListName, LookupResults, Refill, RefillResult};
use crate::planted::Bug;
use foldhash::fast::FixedState;
use least_recent::evicted_up_to;
use std::collections::HashMap;

type Map<K, V> = HashMap<K, V, FixedState>;

/// The coupons of a partition that were used recently.
#[derive(Debug)]
pub(super) struct Cache {
    hasher: FixedState,
    /// Codes that the list of a busy coupon holds.
    window: usize,
    by_id: Map<Box<str>, Coupon>,
    ids: Map<CouponNo, Box<str>>,
    /// Cached users of all coupons.
    users: usize,
    /// Tracked claimants of all coupons, at most.
    claimants: usize,
    /// The number of batches so far: the time by which uses are compared.
    uses: u64,
}

impl Cache {
    pub(super) fn new(seed: u64, window: usize) -> Self {
        Self::with_hasher(FixedState::with_seed(seed), window)
    }

    fn with_hasher(hasher: FixedState, window: usize) -> Self {
        let (by_id, ids) = (Map::with_hasher(hasher.clone()), Map::with_hasher(hasher.clone()));
        Self { hasher, window, by_id, ids, users: 0, claimants: 0, uses: 0 }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::with_hasher(self.hasher.clone(), self.window);
    }

    pub(super) fn coupons(&self) -> usize {
        self.by_id.len()
    }

    pub(super) const fn users(&self) -> usize {
        self.users
    }

    pub(super) fn by_id(&self, coupon_id: &str) -> Option<&Coupon> {
        self.by_id.get(coupon_id)
    }

    pub(super) fn by_id_mut(&mut self, coupon_id: &str) -> Option<&mut Coupon> {
        self.by_id.get_mut(coupon_id)
    }

    /// Whether a coupon is cached, which counts as a use.
    pub(super) fn touch(&mut self, coupon_id: &str) -> bool {
        let Some(coupon) = self.by_id.get_mut(coupon_id) else { return false };
        coupon.used = self.uses;
        true
    }

    pub(super) fn by_no(&self, coupon: CouponNo) -> Option<&Coupon> {
        self.by_id.get(self.ids.get(&coupon)?)
    }

    pub(super) fn by_no_mut(&mut self, coupon: CouponNo) -> Option<&mut Coupon> {
        self.by_id.get_mut(self.ids.get(&coupon)?)
    }

    /// Counts users that a batch has added to the coupons.
    pub(super) const fn add_users(&mut self, users: usize) {
        self.users += users;
        self.claimants += users;
    }

    pub(super) fn refilled(&mut self, list: CacheListName, result: RefillResult, now: Millis) {
        if let Some(coupon) = self.by_no_mut(list.coupon) {
            coupon.stock.refilled(list, result, now);
        }
    }

    /// Inserts the results of lookups that show every batch up to `shown`. A cached value stays: it is newer.
    pub(super) fn insert(&mut self, results: &mut LookupResults, shown: u64) {
        for stored in results.coupons.drain(..) {
            if self.by_id.contains_key(&stored.coupon_id) {
                continue;
            }
            self.ids.insert(stored.coupon, stored.coupon_id.clone());
            let mut coupon = Coupon::new(stored, self.window, &self.hasher);
            coupon.used = self.uses;
            self.by_id.insert(coupon.id.clone(), coupon);
        }
        for counts in results.users.drain(..) {
            let coupon = self.ids.get(&counts.coupon).and_then(|id| self.by_id.get_mut(id));
            if coupon.is_some_and(|coupon| coupon.insert_counts(counts, shown)) {
                self.users += 1;
            }
        }
        for (no, entries) in results.returned.drain(..) {
            if let Some(coupon) = self.by_no_mut(no) {
                coupon.stock.returned_read(entries, shown);
            }
        }
    }

    /// Begins a batch: evicts what was used least recently, above the bounds, of what the batches up to `settled` left
    /// behind. Only while no lookup is in flight.
    pub(super) fn evict(&mut self, settled: u64, config: &Config) {
        self.uses += 1;
        if self.by_id.len() > config.max_cached_coupons {
            self.evict_coupons(settled, config.max_cached_coupons - config.max_cached_coupons / 4);
        }
        if self.users > config.max_cached_users {
            self.evict_users(settled, config.max_cached_users / 2);
        }
        if self.claimants > config.max_tracked_claimants {
            self.evict_claimants(config);
        }
    }

    fn evict_coupons(&mut self, settled: u64, keep: usize) {
        let is_settled = |coupon: &Coupon| coupon.changed <= settled;
        let uses = self.by_id.values().filter(|coupon| is_settled(coupon)).map(|coupon| coupon.used);
        let Some(last) = evicted_up_to(uses.collect(), keep) else { return };
        self.by_id.retain(|_, coupon| !is_settled(coupon) || coupon.used > last);
        let by_id = &self.by_id;
        self.ids.retain(|_, id| by_id.contains_key(id));
        self.count_users();
    }

    fn evict_users(&mut self, settled: u64, keep: usize) {
        let uses = self.by_id.values().flat_map(|coupon| coupon.uses_of_settled_users(settled));
        let Some(last) = evicted_up_to(uses.collect(), keep) else { return };
        self.by_id.values_mut().for_each(|coupon| coupon.evict_users(settled, last));
        self.count_users();
    }

    fn count_users(&mut self) {
        self.users = self.by_id.values().map(Coupon::users).sum();
    }

    /// Stops tracking the claimants of the coupons with most of them, until the bound is met.
    fn evict_claimants(&mut self, config: &Config) {
        self.claimants = self.by_id.values().map(Coupon::claimants).sum();
        while self.claimants > config.max_tracked_claimants
            && let Some(coupon) = self.by_id.values_mut().max_by_key(|coupon| coupon.claimants())
        {
            self.claimants -= coupon.claimants();
            coupon.evict_claimants(config.planted.has(Bug::ClaimantsEvicted));
        }
    }

    /// The refills that these coupons need now.
    pub(super) fn refills(
        &mut self,
        coupons: impl Iterator<Item = CouponNo>,
        now: Millis,
        names: &mut ListNames,
    ) -> Vec<Refill> {
        let mut refills = Vec::new();
        for no in coupons {
            if let Some(coupon) = self.by_no_mut(no) {
                refills.extend(coupon.stock.refill(no, now, || names.next(no)));
            }
        }
        refills
    }
}

/// Names of the cache lists of one ownership, none twice.
#[derive(Debug)]
pub(super) struct ListNames {
    epoch: Epoch,
    nonce: Nonce,
    generation: u64,
}

impl ListNames {
    pub(super) const fn new(epoch: Epoch, nonce: Nonce) -> Self {
        Self { epoch, nonce, generation: 0 }
    }

    const fn next(&mut self, coupon: CouponNo) -> CacheListName {
        self.generation += 1;
        CacheListName { coupon, epoch: self.epoch, nonce: self.nonce, generation: self.generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::StockRow;
    use crate::domain::coupon::Definition;
    use crate::interface::{StoredCoupon, UserCounts};

    fn id(n: i64) -> Box<str> {
        format!("coupon-{n}").into()
    }

    fn cache_of(coupons: impl Iterator<Item = i64>) -> Cache {
        let mut cache = Cache::new(1, 8);
        for n in coupons {
            let stored = StoredCoupon {
                coupon_id: id(n),
                coupon: CouponNo(n),
                definition: Definition { claims_per_user: Some(1), ..Definition::default() },
                stock: StockRow::default(),
                ahead: Vec::new(),
            };
            cache.insert(&mut LookupResults { coupons: vec![stored], ..LookupResults::default() }, 0);
        }
        cache
    }

    fn bounds(coupons: usize, users: usize) -> Config {
        Config { max_cached_coupons: coupons, max_cached_users: users, ..Config::default() }
    }

    #[test]
    fn a_full_cache_evicts_the_coupons_that_were_used_least_recently() {
        let (mut cache, config) = (cache_of(1..=8), bounds(8, 100));
        for n in [3, 5, 7, 8, 1, 2] {
            cache.evict(0, &config);
            assert!(cache.touch(&id(n)));
        }
        cache.evict(0, &config);
        assert_eq!(cache.coupons(), 8, "not above the bound");
        cache.by_no_mut(CouponNo(3)).unwrap().changed = 5;
        cache.evict(4, &bounds(7, 100));
        let left: Vec<i64> = (1..=8).filter(|n| cache.by_id(&id(*n)).is_some()).collect();
        assert_eq!(left, [1, 2, 3, 5, 7, 8], "coupon 3 is used by a batch that is not settled");
        assert!(cache.by_no(CouponNo(4)).is_none());
    }

    #[test]
    fn a_full_cache_evicts_the_users_who_were_used_least_recently() {
        let mut cache = cache_of(1..=2);
        for n in 0..10_u64 {
            let coupon = CouponNo(1 + i64::from(n % 2 == 0));
            let user = format!("user-{n}").into();
            let counts = UserCounts { coupon, user, claims: 1, redemptions: 0 };
            cache.insert(&mut LookupResults { users: vec![counts], ..LookupResults::default() }, n);
        }
        assert!(!cache.by_no_mut(CouponNo(2)).unwrap().add_claim("user-0", 12), "user 0 is cached");
        cache.evict(11, &bounds(10, 8));
        let cached = |n: u64| cache.by_id.values().any(|coupon| coupon.has_cached(&format!("user-{n}")));
        assert_eq!((0..10).filter(|n| cached(*n)).collect::<Vec<_>>(), [0, 6, 7, 8, 9]);
        assert_eq!(cache.users(), 5);
    }
}
