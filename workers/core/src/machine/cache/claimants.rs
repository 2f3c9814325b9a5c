//! Who may have claims or redemptions of a coupon, where memory alone can tell.
//!
//! If nobody had any when this owner loaded the coupon, then only this owner can have given one to somebody since, and
//! notes whom: by a digest of 64 bits, a tenth of what the name would take. A user whose digest was never noted has
//! nothing, and nothing needs to be read to know that. A digest that was noted may be that of another user, or of one
//! who has given everything back: then the ledger is asked. So an error of this memory costs a read, never a code.

use crate::domain::batch::StockRow;
use foldhash::fast::FixedState;
use std::collections::HashSet;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Claimants(Option<HashSet<u64, FixedState>>);

impl Claimants {
    /// Of a coupon that was just loaded with these counters. They count every claim that is alive, and every
    /// redemption that was not rolled back: where they are 0, nobody has anything that a limit counts.
    pub(super) fn of(row: &StockRow, hasher: FixedState) -> Self {
        let StockRow { claimed, locked, redeemed, revoked, redemptions, .. } = *row;
        let untouched = [claimed, locked, redeemed, revoked, redemptions] == [0; 5];
        Self(untouched.then(|| HashSet::with_hasher(hasher)))
    }

    /// Whether the ledger may hold something of this user.
    pub(super) fn may_include(&self, digest: u64) -> bool {
        self.0.as_ref().is_none_or(|noted| noted.contains(&digest))
    }

    /// This user has something from now on.
    pub(super) fn note(&mut self, digest: u64) {
        if let Some(noted) = &mut self.0 {
            noted.insert(digest);
        }
    }

    /// How many are noted.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, HashSet::len)
    }

    /// From now on the ledger is asked about everybody.
    pub(super) fn give_up(&mut self) {
        self.0 = None;
    }

    /// Forgets everybody and goes on as if nobody had anything: a mistake that the simulation must find.
    pub(super) fn forget_and_believe(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.clear();
        }
    }
}
