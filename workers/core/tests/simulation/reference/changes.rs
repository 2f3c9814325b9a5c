//! What one batch changes in the end: what was before it, and what it must say of the difference.

use super::Reference;
use super::books::Coupon;
use coupon_core::batch::{Batch, ClaimChange, CodeFlags, CodeFlagsChange, RolledBack, StockChange, StockRow};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, RequestId};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a batch has touched so far, as it was before.
#[derive(Clone, Debug, Default)]
pub(super) struct Net {
    stock: BTreeMap<CouponNo, Before>,
    /// Claims as they are now, with the terms that the ledger has of them.
    pub(super) claims: BTreeMap<u128, Life>,
    code_flags: BTreeMap<(CouponNo, i64), CodeFlags>,
    /// Redemptions that the batch made.
    pub(super) redeemed: BTreeSet<RequestId>,
    pub(super) rolled_back: Vec<RolledBack>,
}

#[derive(Clone, Debug)]
struct Before {
    row: StockRow,
    ahead: BTreeSet<i64>,
    returned: BTreeSet<i64>,
}

/// A claim that a batch made or touched.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) made_here: bool,
    /// As it was before the batch, or as the batch made it.
    pub(super) first: ClaimStatus,
    pub(super) claim: Claim,
}

impl Net {
    /// A coupon is about to change.
    pub(super) fn touch(&mut self, no: CouponNo, coupon: &Coupon) {
        let before =
            || Before { row: coupon.row(), ahead: coupon.ahead.clone(), returned: coupon.returned.clone() };
        self.stock.entry(no).or_insert_with(before);
    }

    /// The mark of a code may be about to change.
    pub(super) fn touch_mark(&mut self, no: CouponNo, coupon: &Coupon, number: i64) {
        self.code_flags.entry((no, number)).or_insert_with(|| coupon.mark(number));
    }

    /// A claim is made.
    pub(super) fn made(&mut self, claim: &Claim) {
        let life = Life { made_here: true, first: claim.status.clone(), claim: claim.clone() };
        self.claims.insert(claim.id.identity, life);
    }

    /// A claim has changed: `before` is what it was until now.
    pub(super) fn changed(&mut self, before: &ClaimStatus, claim: &Claim) {
        let life = || Life { made_here: false, first: before.clone(), claim: claim.clone() };
        self.claims.entry(claim.id.identity).or_insert_with(life).claim = claim.clone();
    }
}

impl Reference {
    pub(super) fn compare_net(&mut self, batch: &Batch) -> Result<(), String> {
        let net = std::mem::take(&mut self.net);
        self.compare_claims(&net, batch)?;
        self.compare_stock(&net, batch)
    }

    fn compare_claims(&mut self, net: &Net, batch: &Batch) -> Result<(), String> {
        let changed = net.claims.values().filter(|life| life.claim.status != life.first);
        let expected: Vec<ClaimChange> = changed
            .map(|life| {
                let was = (!life.made_here).then(|| (life.first.state, life.first.deadline()));
                ClaimChange { before: was, claim: life.claim.clone() }
            })
            .collect();
        // One that is as it was may be written all the same.
        let unchanged = |change: &&ClaimChange| {
            let life = net.claims.get(&change.claim.id.identity);
            !life.is_some_and(|life| life.claim.status == life.first && life.claim == change.claim)
        };
        let mut found: Vec<ClaimChange> = batch.claims.iter().filter(unchanged).cloned().collect();
        found.sort_by_key(|change| change.claim.id);
        differing("I2/I11: claims", &found, &expected)?;
        let made_and_changed = expected.iter().filter(|change| change.before.is_none()).count();
        self.coverage.saw_if(made_and_changed > 0, "fold: a claim made and changed in one batch");

        let mut expected = net.rolled_back.clone();
        let mut found = batch.rolled_back.clone();
        expected.sort_by_key(|back| back.id);
        found.sort_by_key(|back| back.id);
        differing("I2: rolled back", &found, &expected)?;
        self.coverage.saw_if(
            expected.iter().any(|back| back.made_here),
            "fold: a redemption made and rolled back in one batch",
        );

        let unchanged = |change: &&CodeFlagsChange| {
            let before = net.code_flags.get(&(change.coupon, change.number.0));
            !(change.before == change.after && before == Some(&change.after))
        };
        // One that is as it was again is told all the same: the next batch may be decided on top of it.
        let mut found: Vec<CodeFlagsChange> = batch.code_flags.iter().filter(unchanged).copied().collect();
        found.sort_by_key(|change| (change.coupon, change.number));
        let expected = net.code_flags.iter().map(|((coupon, number), was)| {
            let is = self.coupons[coupon].mark(*number);
            CodeFlagsChange { coupon: *coupon, number: CodeNumber(*number), before: *was, after: is }
        });
        let expected: Vec<CodeFlagsChange> =
            expected.filter(|change| change.before != change.after).collect();
        differing("I2: marks", &found, &expected)
    }

    fn compare_stock(&mut self, net: &Net, batch: &Batch) -> Result<(), String> {
        let mut rows = Vec::new();
        let mut numbers: [Vec<(CouponNo, CodeNumber)>; 4] = Default::default();
        for (no, before) in &net.stock {
            let coupon = &self.coupons[no];
            let (was, is) = (before.row, coupon.row());
            let whole = is.available() + is.claimed + is.locked + is.redeemed + is.revoked;
            assert_eq!(whole, is.top, "the reference has lost a code of {coupon:?}");
            let passed = before.ahead.range(..=is.cursor).count() as i64;
            if was != is {
                rows.push(StockChange { coupon: *no, before: was, after: is, passed });
            }
            self.coverage.saw_if(passed > 0, "numbers ahead that the cursor passed");
            let beyond = |number: &&i64| **number > is.cursor;
            let lists = [
                coupon.ahead.difference(&before.ahead).copied().collect::<Vec<i64>>(),
                before.ahead.difference(&coupon.ahead).filter(beyond).copied().collect(),
                coupon.returned.difference(&before.returned).copied().collect(),
                before.returned.difference(&coupon.returned).copied().collect(),
            ];
            for (all, list) in numbers.iter_mut().zip(lists) {
                all.extend(list.into_iter().map(|number| (*no, CodeNumber(number))));
            }
        }
        let mut found = batch.stock.clone();
        found.sort_by_key(|change| change.coupon);
        differing("I1: stock", &found, &rows)?;
        let lists = [
            ("numbers ahead", "ahead: taken", &batch.ahead_taken),
            ("numbers not ahead any more", "ahead: freed", &batch.ahead_freed),
            ("returned numbers", "returned: added", &batch.returned_added),
            ("returned numbers taken", "returned: taken", &batch.returned_taken),
        ];
        for ((what, label, found), expected) in lists.into_iter().zip(numbers) {
            let mut found = found.clone();
            found.sort_unstable();
            differing(&format!("I1/I11: {what}"), &found, &expected)?;
            self.coverage.saw_if(!expected.is_empty(), label);
        }
        Ok(())
    }
}

fn differing<T: PartialEq + std::fmt::Debug>(what: &str, found: &[T], expected: &[T]) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let (mut found, mut expected): (Vec<&T>, Vec<&T>) = (found.iter().collect(), expected.iter().collect());
    let common: Vec<&T> = found.iter().copied().filter(|one| expected.contains(one)).collect();
    found.retain(|one| !common.contains(one));
    expected.retain(|one| !common.contains(one));
    Err(format!("{what}: {found:?}, expected {expected:?}"))
}
