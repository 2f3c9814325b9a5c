//! What a write would be refused for. It writes everything or nothing.

use super::{Coupon, Ledger, LoadState, Map, REFUSED};
use crate::plan::Flaw;
use coupon_core::batch::{Batch, CodeFlagsChange, Decision, Verdict};
use coupon_core::claim::ClaimStatus;
use coupon_core::ids::{CodeNumber, CouponNo};
use coupon_core::interface::{OrderLookup, WriteResult};
use coupon_core::words::{ClaimState, Kind, Reason};
use foldhash::fast::FixedState;
use std::collections::{BTreeSet, HashSet};

const DAY: i64 = 86_400_000;

type Set<T> = HashSet<T, FixedState>;

fn mismatch(what: String) -> Option<WriteResult> {
    Some(WriteResult::Mismatch(what))
}

impl Ledger {
    /// What `write_batch` and `write_life` would refuse.
    pub(crate) fn refusal(&self, batch: &Batch) -> Option<WriteResult> {
        let (fence, row) = (batch.fence, &self.row);
        let owns = (fence.epoch, fence.nonce) == (row.epoch, row.nonce) || self.flaw == Flaw::FenceIgnored;
        let next = fence.write_no == row.write_no.next() || self.flaw == Flaw::WriteNumberNotCounted;
        if !(owns && next) {
            return Some(WriteResult::Fenced);
        }
        let forward = row.position.next_offset <= batch.position.next_offset
            && row.emitted_seq <= batch.watermark
            && batch.watermark < row.next_emit_seq;
        if !forward {
            return mismatch("the offset or the watermark would move backwards".into());
        }
        self.refused_outcomes(batch)
            .or_else(|| self.refused_claims(batch))
            .or_else(|| self.refused_redemptions(batch))
            .or_else(|| self.refused_marks(&batch.code_flags))
            .or_else(|| self.refused_stock(batch))
            .or_else(|| self.refused_numbers(batch))
    }

    fn refused_outcomes(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut identities, mut keys) = (Set::default(), Set::default());
        for decision in &batch.decisions {
            let unprocessable = decision.verdict == Verdict::Rejected(Reason::Unprocessable);
            if decision.user.starts_with(REFUSED) && !unprocessable {
                return Some(WriteResult::DataRejected("invalid byte sequence in a text".into()));
            }
            if is_row_of_its_own(decision) {
                let identity = decision.id.identity;
                let known = self.claims.contains_key(&identity) || self.redemptions.contains_key(&identity);
                if known || !identities.insert(identity) {
                    return Some(WriteResult::AlreadyDecided);
                }
                continue;
            }
            // The primary key has the day in it: the table is partitioned by it.
            let day = batch.position.time.0 / DAY;
            let key = (decision.id.identity, decision.id.body);
            let stored = self.outcomes.get(&key).map_or(&[][..], Vec::as_slice);
            if stored.iter().any(|known| known.decided.0 / DAY == day) || !keys.insert(key) {
                return Some(WriteResult::AlreadyDecided);
            }
        }
        None
    }

    /// Claims change by compare-and-set, then new ones are inserted: none of a code that is in a live claim.
    fn refused_claims(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut seen, mut freed) = (Set::default(), Set::default());
        let mut made: Map<u128, &ClaimStatus> = Map::default();
        for change in &batch.claims {
            let claim = &change.claim;
            if !seen.insert(claim.id.identity) {
                return mismatch(format!("claim {} changes twice", claim.id));
            }
            let Some(was) = change.before else {
                made.insert(claim.id.identity, &claim.status);
                continue;
            };
            let row = self.claims.get(&claim.id.identity).map(|row| &row.claim);
            let same = row.is_some_and(|row| (row.status.state, row.status.deadline()) == was);
            if !same || row.is_some_and(|row| !row.status.is_live()) {
                return mismatch(format!("{row:?} is not as {change:?} says it was"));
            }
            if !claim.status.is_live() {
                freed.insert((claim.coupon, claim.number));
            }
        }
        let mut taken = Set::default();
        for decision in &batch.decisions {
            let Verdict::Claimed { number, .. } = &decision.verdict else { continue };
            let code = (decision.coupon?, *number);
            let returned = made.remove(&decision.id.identity).is_some_and(|terms| !terms.is_live());
            let live = self.coupon(code.0).is_some_and(|known| known.live.contains_key(&number.0));
            if !returned && (live && !freed.contains(&code) || !taken.insert(code)) {
                return mismatch(format!("code {number} of {} is in a live claim", code.0));
            }
        }
        match made.keys().next() {
            Some(strange) => mismatch(format!("claim {strange} is said to be new, and is not")),
            None => None,
        }
    }

    fn refused_redemptions(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut undone, mut freed) = (Set::default(), Set::default());
        for rolled_back in &batch.rolled_back {
            let row = self.redemptions.get(&rolled_back.id.identity);
            let live = row.filter(|row| row.redemption.id == rolled_back.id && row.rolled_back.is_none());
            if !undone.insert(rolled_back.id) || live.is_none() != rolled_back.made_here {
                return mismatch(format!("{rolled_back:?} does not fit {row:?}"));
            }
            freed.extend(live.map(|row| order_of(row.coupon, row.number, &row.redemption.order)));
        }
        let mut taken = Set::default();
        for decision in &batch.decisions {
            let Verdict::Changed(changed) = &decision.verdict else { continue };
            if decision.kind != Kind::Redeem || undone.remove(&decision.id) {
                continue;
            }
            let (coupon, redemption) = (decision.coupon?, changed.redemption.as_ref()?);
            let order = order_of(coupon, changed.number, &redemption.order);
            if self.orders.contains(&order) && !freed.contains(&order) || !taken.insert(order) {
                return mismatch(format!("the order of {decision:?} was paid for with this code"));
            }
        }
        let strange = batch.rolled_back.iter().find(|back| back.made_here && undone.contains(&back.id));
        strange.and_then(|strange| mismatch(format!("{strange:?} was not made here")))
    }

    fn refused_marks(&self, marks: &[CodeFlagsChange]) -> Option<WriteResult> {
        let mut seen = Set::default();
        marks.iter().find_map(|change| {
            let marks = &self.coupon(change.coupon)?.code_flags;
            let found = marks.get(&change.number.0).copied().unwrap_or_default();
            let once = seen.insert((change.coupon, change.number));
            (!once || found != change.before)
                .then(|| mismatch(format!("{found:?} is not as {change:?} says")))?
        })
    }

    fn refused_stock(&self, batch: &Batch) -> Option<WriteResult> {
        for change in &batch.stock {
            let row = self.coupon(change.coupon).map(|coupon| coupon.stock);
            if row != Some(change.before) {
                return mismatch(format!("{row:?} is not {:?}", change.before));
            }
            let is = change.after;
            let counts =
                [is.ahead, is.returned, is.claimed, is.locked, is.redeemed, is.revoked, is.redemptions];
            let whole = is.available() + is.claimed + is.locked + is.redeemed + is.revoked == is.top;
            if is.cursor > is.top || counts.iter().any(|count| *count < 0) || !whole {
                return mismatch(format!("{is:?} violates a CHECK"));
            }
        }
        for applied in &batch.loads {
            if !self.load(applied.load).is_some_and(|load| matches!(load.state, LoadState::Sealed(_))) {
                return mismatch(format!("load {} is not sealed", applied.load));
            }
        }
        None
    }

    /// The numbers ahead and the returned ones: what is inserted is not there yet, what is deleted is.
    fn refused_numbers(&self, batch: &Batch) -> Option<WriteResult> {
        for change in &batch.stock {
            let cursor = change.after.cursor;
            let passed = self.coupon(change.coupon)?.ahead.range(..=cursor).count() as i64;
            if passed != change.passed {
                return mismatch(format!("{passed} numbers are passed, not as {change:?} says"));
            }
        }
        let numbers = |there: bool, of: fn(&Coupon) -> &BTreeSet<i64>, list: &[(CouponNo, CodeNumber)]| {
            let mut seen = Set::default();
            list.iter().find_map(|(coupon, number)| {
                let found = of(self.coupon(*coupon)?).contains(&number.0);
                let fits = found == there && seen.insert((coupon, number));
                (!fits).then(|| mismatch(format!("number {number} of {coupon}: there is {found}")))?
            })
        };
        numbers(false, |coupon| &coupon.ahead, &batch.ahead_taken)
            .or_else(|| numbers(true, |coupon| &coupon.ahead, &batch.ahead_freed))
            .or_else(|| numbers(false, |coupon| &coupon.returned, &batch.returned_added))
            .or_else(|| numbers(true, |coupon| &coupon.returned, &batch.returned_taken))
    }
}

/// Whether it is a row of `claims` or `redemptions` and not of `outcomes`.
pub(super) fn is_row_of_its_own(decision: &Decision) -> bool {
    match &decision.verdict {
        Verdict::Claimed { .. } => true,
        Verdict::Changed(_) => decision.kind == Kind::Redeem,
        Verdict::Rejected(_) => false,
    }
}

pub(super) fn order_of(coupon: CouponNo, number: CodeNumber, order: &str) -> OrderLookup {
    OrderLookup { coupon, number, order: order.into() }
}

/// Whether a claim in this state is one that a deadline can end.
pub(super) const fn lapses(state: ClaimState) -> bool {
    matches!(state, ClaimState::Claimed | ClaimState::Locked)
}
