//! The owner's cache of coupons and their users.
//!
//! The changes of an unsettled batch stay cached until a batch is prefetched that begins after it was settled: until
//! then a read may show the state before it. So a cached value always overlays a read, and a value that is not cached
//! was not changed by any batch that a read could miss. Absence is never cached.

mod claimants;
mod coupon;

pub(super) use coupon::Coupon;

use super::config::Config;
use crate::domain::ids::{CouponNo, Epoch, Millis, Nonce};
use crate::interface::{CacheListName, LookupResults, Refill, RefillResult};
use crate::planted::Bug;
use foldhash::fast::FixedState;
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
}

impl Cache {
    pub(super) fn new(seed: u64, window: usize) -> Self {
        Self::with_hasher(FixedState::with_seed(seed), window)
    }

    fn with_hasher(hasher: FixedState, window: usize) -> Self {
        let (by_id, ids) = (Map::with_hasher(hasher.clone()), Map::with_hasher(hasher.clone()));
        Self { hasher, window, by_id, ids, users: 0, claimants: 0 }
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
            let coupon = Coupon::new(stored, self.window, &self.hasher);
            self.by_id.insert(coupon.id.clone(), coupon);
        }
        for counts in results.users.drain(..) {
            let coupon = self.ids.get(&counts.coupon).and_then(|id| self.by_id.get_mut(id));
            if coupon.is_some_and(|coupon| coupon.insert_counts(counts)) {
                self.users += 1;
            }
        }
        for (no, entries) in results.returned.drain(..) {
            if let Some(coupon) = self.by_no_mut(no) {
                coupon.stock.returned_read(entries, shown);
            }
        }
    }

    /// Evicts what the batches up to `settled` left behind, above the bounds. Only while no lookup is in flight.
    pub(super) fn evict(&mut self, settled: u64, config: &Config) {
        if self.by_id.len() > config.max_cached_coupons {
            self.by_id.retain(|_, coupon| coupon.changed > settled);
            let by_id = &self.by_id;
            self.ids.retain(|_, id| by_id.contains_key(id));
            self.count_users();
        }
        if self.users > config.max_cached_users {
            self.by_id.values_mut().for_each(|coupon| coupon.evict_users(settled));
            self.count_users();
        }
        if self.claimants > config.max_tracked_claimants {
            self.evict_claimants(config);
        }
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
