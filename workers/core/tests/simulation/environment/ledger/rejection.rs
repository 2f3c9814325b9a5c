//! The reasons for which `write_batch` and `write_life` reject a batch, in the order of their statements.
//!
//! First the fence: epoch, nonce and write number. Then offset and watermark, outcomes, claims, redemptions, flags,
//! stock rows and free numbers. A rejected batch writes nothing.

use super::tables::{Coupon, LoadState};
use super::{Ledger, Map, UNSTORABLE_USER_PREFIX};
use crate::plan::LedgerBug;
use coupon_core::batch::{Batch, CodeFlagsChange, Decision, LoadApplied, Verdict};
use coupon_core::claim::ClaimStatus;
use coupon_core::ids::{CodeNumber, CouponNo, LoadId};
use coupon_core::interface::{OrderLookup, WriteResult};
use coupon_core::words::{ClaimState, Kind, Reason};
use foldhash::fast::FixedState;
use std::collections::{BTreeSet, HashSet};

type Set<T> = HashSet<T, FixedState>;

fn mismatch(what: String) -> Option<WriteResult> {
    Some(WriteResult::Mismatch(what))
}

impl Ledger {
    /// Why a batch is rejected; `None` if it is accepted.
    pub(crate) fn rejection(&self, batch: &Batch) -> Option<WriteResult> {
        let (fence, row) = (batch.fence, &self.row);
        let owns =
            (fence.epoch, fence.nonce) == (row.epoch, row.nonce) || self.bug == LedgerBug::FenceIgnored;
        let next = fence.write_no == row.write_no.next() || self.bug == LedgerBug::WriteNumberNotCounted;
        if !(owns && next) {
            return Some(WriteResult::Fenced);
        }
        let forward = row.position.next_offset <= batch.position.next_offset
            && row.emitted_seq <= batch.watermark
            && batch.watermark < row.next_emit_seq;
        if !forward {
            return mismatch("the offset or the watermark would move backwards".into());
        }
        self.reject_outcomes(batch)
            .or_else(|| self.reject_claims(batch))
            .or_else(|| self.reject_redemptions(batch))
            .or_else(|| self.reject_flags(&batch.code_flags))
            .or_else(|| self.reject_stock(batch))
            .or_else(|| self.reject_numbers(batch))
    }

    fn reject_outcomes(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut identities, mut keys) = (Set::default(), Set::default());
        for decision in &batch.decisions {
            let unprocessable = decision.verdict == Verdict::Rejected(Reason::Unprocessable);
            if decision.request.user.starts_with(UNSTORABLE_USER_PREFIX) && !unprocessable {
                return Some(WriteResult::DataRejected("invalid byte sequence in a text".into()));
            }
            if has_own_row(decision) {
                let identity = decision.request.id.identity;
                let exists = self.claims.contains_key(&identity) || self.redemptions.contains_key(&identity);
                if exists || !identities.insert(identity) {
                    return Some(WriteResult::AlreadyDecided);
                }
                continue;
            }
            // The table is partitioned by day, so its primary key contains the day.
            let day = batch.position.time.day();
            let key = (decision.request.id.identity, decision.request.id.body);
            let stored = self.outcomes.get(&key).map_or(&[][..], Vec::as_slice);
            if stored.iter().any(|(stored, _)| *stored == day) || !keys.insert(key) {
                return Some(WriteResult::AlreadyDecided);
            }
        }
        None
    }

    /// Existing claims change by compare-and-set. Then new claims are inserted, at most one live claim per code.
    fn reject_claims(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut seen, mut freed) = (Set::default(), Set::default());
        let mut created: Map<u128, &ClaimStatus> = Map::default();
        for change in &batch.claims {
            let claim = &change.claim;
            if !seen.insert(claim.id.identity) {
                return mismatch(format!("claim {} changes twice", claim.id));
            }
            let Some(before) = change.before else {
                created.insert(claim.id.identity, &claim.status);
                continue;
            };
            let row = self.claims.get(&claim.id.identity).map(|row| &row.claim);
            let same = row.is_some_and(|row| (row.status.state, row.status.deadline()) == before);
            if !same || row.is_some_and(|row| !row.status.is_live()) {
                return mismatch(format!("{row:?} differs from the previous state in {change:?}"));
            }
            if !claim.status.is_live() {
                freed.insert((claim.coupon, claim.number));
            }
        }
        let mut taken = Set::default();
        for decision in &batch.decisions {
            let Verdict::Claimed { number, .. } = &decision.verdict else { continue };
            let code = (decision.coupon?, *number);
            let returned =
                created.remove(&decision.request.id.identity).is_some_and(|status| !status.is_live());
            let live = self.coupon(code.0).is_some_and(|coupon| coupon.live_claims.contains_key(&number.0));
            if !returned && (live && !freed.contains(&code) || !taken.insert(code)) {
                return mismatch(format!("code {number} of {} is in a live claim", code.0));
            }
        }
        match created.keys().next() {
            Some(unknown) => mismatch(format!("claim {unknown} has no decision in this batch")),
            None => None,
        }
    }

    fn reject_redemptions(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut undone, mut freed) = (Set::default(), Set::default());
        for rolled_back in &batch.rolled_back {
            let row = self.redemptions.get(&rolled_back.id.identity);
            let live = row.filter(|row| row.redemption.id == rolled_back.id && row.rolled_back.is_none());
            if !undone.insert(rolled_back.id) || live.is_none() != rolled_back.made_here {
                return mismatch(format!("{rolled_back:?} does not match {row:?}"));
            }
            freed.extend(live.map(|row| order_of(row.coupon, row.number, &row.redemption.order)));
        }
        let mut taken = Set::default();
        for decision in &batch.decisions {
            let Verdict::Changed(changed) = &decision.verdict else { continue };
            if decision.request.kind != Kind::Redeem || undone.remove(&decision.request.id) {
                continue;
            }
            let (coupon, redemption) = (decision.coupon?, changed.redemption.as_ref()?);
            let order = order_of(coupon, changed.number, &redemption.order);
            if self.orders.contains(&order) && !freed.contains(&order) || !taken.insert(order) {
                return mismatch(format!("the order of {decision:?} was already paid with this code"));
            }
        }
        let unknown = batch.rolled_back.iter().find(|back| back.made_here && undone.contains(&back.id));
        unknown.and_then(|unknown| mismatch(format!("{unknown:?} has no decision in this batch")))
    }

    fn reject_flags(&self, changes: &[CodeFlagsChange]) -> Option<WriteResult> {
        let mut seen = Set::default();
        changes.iter().find_map(|change| {
            let flags = &self.coupon(change.coupon)?.flags;
            let found = flags.get(&change.number.0).copied().unwrap_or_default();
            let once = seen.insert((change.coupon, change.number));
            (!once || found != change.before)
                .then(|| mismatch(format!("{found:?} differs from the previous flags in {change:?}")))?
        })
    }

    fn reject_stock(&self, batch: &Batch) -> Option<WriteResult> {
        for change in &batch.stock {
            let row = self.coupon(change.coupon).map(|coupon| coupon.stock);
            if row != Some(change.before) {
                return mismatch(format!("{row:?} is not {:?}", change.before));
            }
            let after = change.after;
            let in_claims = after.claimed + after.locked + after.redeemed + after.revoked;
            let counts = [after.ahead, after.returned, after.claimed, after.locked, after.redeemed];
            let negative =
                counts.into_iter().chain([after.revoked, after.redemptions]).any(|count| count < 0);
            if after.cursor > after.top || negative || after.available() + in_claims != after.top {
                return mismatch(format!("{after:?} violates a CHECK"));
            }
        }
        for applied in &batch.loads {
            if !self.load(applied.load).is_some_and(|load| matches!(load.state, LoadState::Sealed(_))) {
                return mismatch(format!("load {} is not sealed", applied.load));
            }
            if let Some(other) = self.load_with_base(applied) {
                return mismatch(format!("load {} begins at the same number as load {other}", applied.load));
            }
        }
        None
    }

    /// The unique index `loads_base`.
    fn load_with_base(&self, applied: &LoadApplied) -> Option<LoadId> {
        let coupon = self.coupon(self.load(applied.load)?.coupon)?;
        let has_codes = |load: LoadId| self.load(load).is_some_and(|load| load.count > 0);
        let same = |(base, load): &&(i64, LoadId)| *base == applied.base && has_codes(*load);
        coupon.loads.iter().find(same).map(|(_, load)| *load)
    }

    /// Numbers ahead and returned numbers: an inserted one must be absent, a deleted one must be present.
    fn reject_numbers(&self, batch: &Batch) -> Option<WriteResult> {
        for change in &batch.stock {
            let cursor = change.after.cursor;
            let passed = self.coupon(change.coupon)?.ahead.range(..=cursor).count() as i64;
            if passed != change.passed {
                return mismatch(format!(
                    "the cursor passes {passed} numbers, which differs from {change:?}"
                ));
            }
        }
        let check = |present: bool, of: fn(&Coupon) -> &BTreeSet<i64>, list: &[(CouponNo, CodeNumber)]| {
            let mut seen = Set::default();
            list.iter().find_map(|(coupon, number)| {
                let found = of(self.coupon(*coupon)?).contains(&number.0);
                let fits = found == present && seen.insert((coupon, number));
                (!fits).then(|| mismatch(format!("number {number} of {coupon}: present is {found}")))?
            })
        };
        check(false, |coupon| &coupon.ahead, &batch.ahead_taken)
            .or_else(|| check(true, |coupon| &coupon.ahead, &batch.ahead_freed))
            .or_else(|| check(false, |coupon| &coupon.returned, &batch.returned_added))
            .or_else(|| check(true, |coupon| &coupon.returned, &batch.returned_taken))
    }
}

/// Whether the outcome is a row of `claims` or `redemptions`, not of `outcomes`.
pub(super) fn has_own_row(decision: &Decision) -> bool {
    match &decision.verdict {
        Verdict::Claimed { .. } => true,
        Verdict::Changed(_) => decision.request.kind == Kind::Redeem,
        Verdict::Rejected(_) => false,
    }
}

pub(super) fn order_of(coupon: CouponNo, number: CodeNumber, order: &str) -> OrderLookup {
    OrderLookup { coupon, number, order: order.into() }
}

/// Whether a deadline can end this state.
pub(super) const fn can_lapse(state: ClaimState) -> bool {
    matches!(state, ClaimState::Claimed | ClaimState::Locked)
}
