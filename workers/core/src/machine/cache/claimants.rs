//! The users who may have claims or redemptions of a coupon, as far as memory alone can decide it.
//!
//! If no user had any when this owner loaded the coupon, only this owner can have given one to a user since. It tracks
//! those users by a 64-bit digest, a tenth of the space of their names. A user whose digest is not tracked has nothing,
//! and is not looked up. A tracked digest may collide with another user's, or belong to a user who has returned
//! everything: then the user is looked up. So an error costs a lookup, never a code.

use crate::domain::batch::StockRow;
use foldhash::fast::FixedState;
use std::collections::HashSet;

/// Digests of the users who may have claims; `None` if any user may.
#[derive(Debug)]
pub(super) struct Claimants(Option<HashSet<u64, FixedState>>);

impl Claimants {
    /// For a coupon that was just loaded with these counters. They include every live claim and every redemption that
    /// was not rolled back: if they are 0, no user has anything that a limit counts.
    pub(super) fn of(row: &StockRow, hasher: FixedState) -> Self {
        let StockRow { claimed, locked, redeemed, revoked, redemptions, .. } = *row;
        let unused = [claimed, locked, redeemed, revoked, redemptions] == [0; 5];
        Self(unused.then(|| HashSet::with_hasher(hasher)))
    }

    /// Whether Postgres may store a claim or redemption of this user.
    pub(super) fn may_include(&self, digest: u64) -> bool {
        self.0.as_ref().is_none_or(|tracked| tracked.contains(&digest))
    }

    pub(super) fn track(&mut self, digest: u64) {
        if let Some(tracked) = &mut self.0 {
            tracked.insert(digest);
        }
    }

    /// Number of tracked users.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, HashSet::len)
    }

    /// From now on every user is looked up.
    pub(super) fn stop_tracking(&mut self) {
        self.0 = None;
    }

    /// Drops all digests and goes on as if no user had anything: a mistake that the simulation must find.
    pub(super) fn clear_wrongly(&mut self) {
        if let Some(tracked) = &mut self.0 {
            tracked.clear();
        }
    }
}
