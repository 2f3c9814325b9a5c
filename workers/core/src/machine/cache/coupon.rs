//! One cached coupon: its rules, its stock, and the counts of its users.

use super::claimants::Claimants;
use crate::domain::batch::StockRow;
use crate::domain::coupon::Definition;
use crate::domain::ids::CouponNo;
use crate::interface::{StoredCoupon, UserCounts};
use crate::machine::stock::Stock;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;

/// One cached coupon.
#[derive(Debug)]
pub(in crate::machine) struct Coupon {
    pub(in crate::machine) id: Box<str>,
    pub(in crate::machine) no: CouponNo,
    pub(in crate::machine) definition: Definition,
    pub(in crate::machine) stock: Stock,
    users: HashMap<Box<str>, User, FixedState>,
    claimants: Claimants,
    /// The last batch that changed it.
    pub(in crate::machine) changed: u64,
    /// Its last use, by the cache's count.
    pub(super) used: u64,
    /// The batch for which its users were looked up: in this batch a user who is not cached has nothing.
    pub(in crate::machine) users_read_for: u64,
    /// Its counters before the current batch, if the batch changes them.
    pub(in crate::machine) before: Option<StockRow>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    /// Live claims; 0 if the coupon does not limit them.
    claims: u32,
    /// Redemptions; 0 if the coupon does not limit them.
    redemptions: u32,
    /// The last batch that changed them.
    changed: u64,
    /// That batch, or the one up to which they were looked up.
    used: u64,
}

impl Coupon {
    pub(super) fn new(stored: StoredCoupon, window: usize, hasher: &FixedState) -> Self {
        Self {
            id: stored.coupon_id,
            claimants: Claimants::of(&stored.stock, hasher.clone()),
            no: stored.coupon,
            definition: stored.definition,
            stock: Stock::new(stored.stock, stored.ahead, window),
            users: HashMap::with_hasher(hasher.clone()),
            changed: 0,
            used: 0,
            users_read_for: 0,
            before: None,
        }
    }

    /// Live claims of a user; `None` if they must be looked up for this batch.
    pub(in crate::machine) fn live_claims(&self, user: &str, batch: u64) -> Option<u32> {
        self.count(user, batch, |user| user.claims)
    }

    /// Redemptions of a user; `None` if they must be looked up for this batch.
    pub(in crate::machine) fn redemptions(&self, user: &str, batch: u64) -> Option<u32> {
        self.count(user, batch, |user| user.redemptions)
    }

    fn count(&self, user: &str, batch: u64, count: impl FnOnce(&User) -> u32) -> Option<u32> {
        match self.users.get(user) {
            Some(user) => Some(count(user)),
            None if self.users_read_for == batch || !self.may_have(user) => Some(0),
            None => None,
        }
    }

    /// Whether claims are limited per user, and therefore counted.
    pub(in crate::machine) const fn counts_claims(&self) -> bool {
        self.definition.claims_per_user.is_some()
    }

    /// Whether redemptions are limited per user, and therefore counted.
    pub(in crate::machine) const fn counts_redemptions(&self) -> bool {
        self.definition.redemptions_per_user.is_some()
    }

    pub(in crate::machine) fn has_cached(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether the counts of a user are known from Postgres only.
    pub(in crate::machine) fn must_look_up(&self, user: &str) -> bool {
        !self.has_cached(user) && self.may_have(user)
    }

    fn may_have(&self, user: &str) -> bool {
        self.claimants.may_include(self.users.hasher().hash_one(user))
    }

    /// Adds a live claim of a user; returns whether the user was not cached before.
    pub(in crate::machine) fn add_claim(&mut self, user: &str, batch: u64) -> bool {
        self.counts_claims() && self.change(user, batch, |user| user.claims += 1)
    }

    /// Removes a live claim of a user whose counts are cached.
    pub(in crate::machine) fn remove_claim(&mut self, user: &str, batch: u64) {
        if self.counts_claims() {
            self.change(user, batch, |user| user.claims = user.claims.saturating_sub(1));
        }
    }

    /// Adds (1) or removes (−1) a redemption of a user; returns whether the user was not cached before.
    pub(in crate::machine) fn add_redemption(&mut self, user: &str, by: i32, batch: u64) -> bool {
        self.counts_redemptions()
            && self.change(user, batch, |user| user.redemptions = user.redemptions.saturating_add_signed(by))
    }

    /// Changes the counts of a user, which must be known; returns whether the user was not cached before.
    fn change(&mut self, user: &str, batch: u64, change: impl FnOnce(&mut User)) -> bool {
        if let Some(cached) = self.users.get_mut(user) {
            change(cached);
            (cached.changed, cached.used) = (batch, batch);
            return false;
        }
        let mut new = User { claims: 0, redemptions: 0, changed: batch, used: batch };
        change(&mut new);
        self.claimants.track(self.users.hasher().hash_one(user));
        self.users.insert(user.into(), new);
        true
    }

    /// Caches counts that show every batch up to `shown`, unless the user is cached; returns whether they were inserted.
    pub(super) fn insert_counts(&mut self, counts: UserCounts, shown: u64) -> bool {
        let UserCounts { user, claims, redemptions, .. } = counts;
        let Entry::Vacant(vacant) = self.users.entry(user) else { return false };
        vacant.insert(User { claims, redemptions, changed: 0, used: shown });
        true
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// The last uses of the users that no batch after `settled` changed.
    pub(super) fn uses_of_settled_users(&self, settled: u64) -> impl Iterator<Item = u64> {
        self.users.values().filter(move |user| user.changed <= settled).map(|user| user.used)
    }

    /// Evicts those of them that were last used by this batch or before it.
    pub(super) fn evict_users(&mut self, settled: u64, last: u64) {
        self.users.retain(|_, user| user.changed > settled || user.used > last);
    }

    /// Number of tracked claimants.
    pub(super) fn claimants(&self) -> usize {
        self.claimants.len()
    }

    /// Stops tracking claimants; `wrongly` is a planted mistake.
    pub(super) fn evict_claimants(&mut self, wrongly: bool) {
        if wrongly {
            self.claimants.clear_wrongly();
        } else {
            self.claimants.stop_tracking();
        }
    }
}
