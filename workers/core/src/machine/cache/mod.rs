//! What an owner remembers of its coupons and their users.
//!
//! What an unsettled batch changed stays until a batch is gathered that begins after it was settled: until then a
//! read may show the time before. So what is in memory always overlays what is read, and what is not in memory
//! has not been changed by anything that a read could have missed.

use super::ListNames;
mod claimants;

use super::config::Config;
use crate::domain::batch::StockRow;
use crate::domain::coupon::Definition;
use crate::domain::ids::{CouponNo, Millis};
use crate::interface::{CacheListName, LookupResults, RefillResult};
use crate::machine::decide::LiveClaimsKnown;
use crate::machine::stock::Stock;
use crate::planted::{Bug, Planted};
use claimants::Claimants;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;

type Map<K, V> = HashMap<K, V, FixedState>;

/// One coupon as the owner knows it.
#[derive(Debug)]
pub(in crate::machine) struct Coupon {
    pub(in crate::machine) id: Box<str>,
    pub(in crate::machine) no: CouponNo,
    pub(in crate::machine) definition: Definition,
    pub(in crate::machine) stock: Stock,
    users: Map<Box<str>, User>,
    claimants: Claimants,
    /// The batch that changed it last.
    pub(in crate::machine) changed: u64,
    /// The batch for which its users' live claims were read.
    pub(in crate::machine) planned: u64,
    /// Its counters before the batch that is being decided, if that changes it.
    pub(in crate::machine) before: Option<StockRow>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    /// Live claims; 0 where the coupon does not limit them.
    claims: u32,
    /// Redemptions; 0 where the coupon does not limit them.
    redemptions: u32,
    changed: u64,
}

impl Coupon {
    /// What is known of a user; `read` tells whether those not remembered were read and have none.
    pub(in crate::machine) fn live_claims(&self, user: &str, read: bool) -> LiveClaimsKnown {
        match self.users.get(user) {
            Some(user) => LiveClaimsKnown::Count(user.claims),
            None if read || !self.may_have(user) => LiveClaimsKnown::Count(0),
            None => LiveClaimsKnown::Unread,
        }
    }

    /// How often a user has redeemed; `None` if that was not read.
    pub(in crate::machine) fn redemptions(&self, user: &str, read: bool) -> Option<u32> {
        let unknown = || (read || !self.may_have(user)).then_some(0);
        self.users.get(user).map_or_else(unknown, |user| Some(user.redemptions))
    }

    /// Whether the claims of each user are counted.
    pub(in crate::machine) const fn counts_claims(&self) -> bool {
        self.definition.claims_per_user.is_some()
    }

    /// Whether the redemptions of each user are counted.
    pub(in crate::machine) const fn counts_redemptions(&self) -> bool {
        self.definition.redemptions_per_user.is_some()
    }

    pub(in crate::machine) fn remembers(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether only the ledger can tell what a user has.
    pub(in crate::machine) fn must_read(&self, user: &str) -> bool {
        !self.remembers(user) && self.may_have(user)
    }

    fn may_have(&self, user: &str) -> bool {
        self.claimants.may_include(self.users.hasher().hash_one(user))
    }

    /// One more live claim of this user; answers whether the user was not remembered before.
    pub(in crate::machine) fn claimed(&mut self, user: &str, batch: u64) -> bool {
        self.counts_claims() && self.change(user, batch, |user| user.claims += 1)
    }

    /// One live claim of this user less, of which it was read that they have it.
    pub(in crate::machine) fn gave_up(&mut self, user: &str, batch: u64) -> bool {
        self.counts_claims() && self.change(user, batch, |user| user.claims = user.claims.saturating_sub(1))
    }

    /// One redemption of this user more, or one less.
    pub(in crate::machine) fn redeemed(&mut self, user: &str, by: i32, batch: u64) -> bool {
        self.counts_redemptions()
            && self.change(user, batch, |user| user.redemptions = user.redemptions.saturating_add_signed(by))
    }

    /// Changes what is remembered of a user of whom it is known what they have; answers whether they were not remembered.
    fn change(&mut self, user: &str, batch: u64, change: impl FnOnce(&mut User)) -> bool {
        if let Some(known) = self.users.get_mut(user) {
            change(known);
            known.changed = batch;
            return false;
        }
        let mut new = User { claims: 0, redemptions: 0, changed: batch };
        change(&mut new);
        self.claimants.note(self.users.hasher().hash_one(user));
        self.users.insert(user.into(), new);
        true
    }
}

/// The coupons of a partition that were needed lately.
#[derive(Debug)]
pub(in crate::machine) struct Memory {
    hasher: FixedState,
    /// Codes kept ahead for a busy coupon.
    window: usize,
    by_id: Map<Box<str>, Coupon>,
    ids: Map<CouponNo, Box<str>>,
    users: usize,
    /// Claimants noted, at most.
    claimants: usize,
    /// No live claim lapses before this, unsettled batches included.
    pub(in crate::machine) none_lapse_before: Millis,
}

impl Memory {
    pub(in crate::machine) fn new(seed: u64, window: usize) -> Self {
        let hasher = FixedState::with_seed(seed);
        let (by_id, ids) = (Map::with_hasher(hasher.clone()), Map::with_hasher(hasher.clone()));
        // Until it was looked for, anything may have lapsed.
        Self { hasher, window, by_id, ids, users: 0, claimants: 0, none_lapse_before: Millis(i64::MIN) }
    }

    pub(in crate::machine) fn coupons(&self) -> usize {
        self.by_id.len()
    }

    pub(in crate::machine) const fn users(&self) -> usize {
        self.users
    }

    pub(in crate::machine) fn get(&self, coupon_id: &str) -> Option<&Coupon> {
        self.by_id.get(coupon_id)
    }

    pub(in crate::machine) fn get_mut(&mut self, coupon_id: &str) -> Option<&mut Coupon> {
        self.by_id.get_mut(coupon_id)
    }

    pub(in crate::machine) fn at(&self, coupon: CouponNo) -> Option<&Coupon> {
        self.by_id.get(self.ids.get(&coupon)?)
    }

    pub(in crate::machine) fn by_no(&mut self, coupon: CouponNo) -> Option<&mut Coupon> {
        self.by_id.get_mut(self.ids.get(&coupon)?)
    }

    pub(in crate::machine) const fn one_user_more(&mut self) {
        self.users += 1;
        self.claimants += 1;
    }

    pub(in crate::machine) fn filled(&mut self, list: CacheListName, result: RefillResult, now: Millis) {
        if let Some(coupon) = self.by_no(list.coupon) {
            coupon.stock.filled(list, result, now);
        }
    }

    /// Takes in what was read. What is remembered already stays: it is newer.
    /// The read shows every batch up to `shown`.
    pub(in crate::machine) fn learn(&mut self, answers: &mut LookupResults, shown: u64) {
        for loaded in answers.coupons.drain(..) {
            if self.by_id.contains_key(&loaded.coupon_id) {
                continue;
            }
            let coupon = Coupon {
                id: loaded.coupon_id.clone(),
                claimants: Claimants::of(&loaded.stock, self.hasher.clone()),
                no: loaded.coupon,
                definition: loaded.definition,
                stock: Stock::new(loaded.stock, loaded.ahead, self.window),
                users: Map::with_hasher(self.hasher.clone()),
                changed: 0,
                planned: 0,
                before: None,
            };
            self.ids.insert(loaded.coupon, loaded.coupon_id.clone());
            self.by_id.insert(loaded.coupon_id, coupon);
        }
        for live in answers.users.drain(..) {
            let Some(coupon) = self.ids.get(&live.coupon).and_then(|id| self.by_id.get_mut(id)) else {
                continue;
            };
            if let Entry::Vacant(vacant) = coupon.users.entry(live.user) {
                vacant.insert(User { claims: live.claims, redemptions: live.redemptions, changed: 0 });
                self.users += 1;
            }
        }
        for (no, entries) in answers.returned.drain(..) {
            if let Some(coupon) = self.by_no(no) {
                coupon.stock.returned_read(entries, shown);
            }
        }
    }

    /// Forgets what batches up to `settled` left behind, where there is too much of it. Only while no read is
    /// under way.
    pub(in crate::machine) fn forget(&mut self, settled: u64, config: &Config) {
        if self.by_id.len() > config.max_cached_coupons {
            self.by_id.retain(|_, coupon| coupon.changed > settled);
            let by_id = &self.by_id;
            self.ids.retain(|_, id| by_id.contains_key(id));
            self.count_users();
        }
        if self.users > config.max_cached_users {
            for coupon in self.by_id.values_mut() {
                coupon.users.retain(|_, user| user.changed > settled);
            }
            self.count_users();
        }
        if self.claimants > config.max_tracked_claimants {
            self.forget_claimants(config.max_tracked_claimants, config.planted);
        }
    }

    fn count_users(&mut self) {
        self.users = self.by_id.values().map(|coupon| coupon.users.len()).sum();
    }

    /// Those of the coupons that have most, until there are no more than `most` in all.
    fn forget_claimants(&mut self, most: usize, planted: Planted) {
        self.claimants = self.by_id.values().map(|coupon| coupon.claimants.len()).sum();
        while self.claimants > most
            && let Some(coupon) = self.by_id.values_mut().max_by_key(|coupon| coupon.claimants.len())
        {
            self.claimants -= coupon.claimants.len();
            if planted.has(Bug::ClaimantsForgotten) {
                coupon.claimants.forget_and_believe();
            } else {
                coupon.claimants.give_up();
            }
        }
    }

    /// What lists are to be filled now, of these coupons.
    pub(in crate::machine) fn fills(
        &mut self,
        coupons: impl Iterator<Item = CouponNo>,
        now: Millis,
        names: &mut ListNames<'_>,
    ) -> Vec<crate::interface::Refill> {
        let mut fills = Vec::new();
        for no in coupons {
            if let Some(coupon) = self.by_no(no) {
                fills.extend(coupon.stock.fill(no, now, || names.next(no)));
            }
        }
        fills
    }
}
