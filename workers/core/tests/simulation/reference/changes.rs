//! The net changes of one batch: the state of everything that it touches as it was before, and the comparison of the
//! differences with the rows that the batch writes.

use super::Reference;
use super::coupon::Coupon;
use coupon_core::batch::{Batch, ClaimChange, CodeFlags, CodeFlagsChange, RolledBack, StockChange, StockRow};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, RequestId};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a batch has touched so far, as it was before.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchChanges {
    stock: BTreeMap<CouponNo, StockBefore>,
    claims: BTreeMap<u128, TouchedClaim>,
    flags: BTreeMap<(CouponNo, i64), CodeFlags>,
    /// Redemptions created by the batch.
    pub(super) redeemed: BTreeSet<RequestId>,
    pub(super) rolled_back: Vec<RolledBack>,
}

#[derive(Clone, Debug)]
struct StockBefore {
    row: StockRow,
    ahead: BTreeSet<i64>,
    returned: BTreeSet<i64>,
}

/// A claim that the batch created or changed.
#[derive(Clone, Debug)]
struct TouchedClaim {
    created: bool,
    /// Its status before the batch, or as the batch created it.
    first: ClaimStatus,
    claim: Claim,
}

impl BatchChanges {
    /// Keeps the stock of a coupon that is about to change.
    pub(super) fn keep_stock(&mut self, no: CouponNo, coupon: &Coupon) {
        self.stock.entry(no).or_insert_with(|| StockBefore {
            row: coupon.stock_row(),
            ahead: coupon.ahead.clone(),
            returned: coupon.returned.clone(),
        });
    }

    /// Keeps the flags of a code that are about to change.
    pub(super) fn keep_flags(&mut self, no: CouponNo, coupon: &Coupon, number: i64) {
        self.flags.entry((no, number)).or_insert_with(|| coupon.flags(number));
    }

    pub(super) fn claim_created(&mut self, claim: &Claim) {
        let touched = TouchedClaim { created: true, first: claim.status.clone(), claim: claim.clone() };
        self.claims.insert(claim.id.identity, touched);
    }

    /// `before` is the status before this change.
    pub(super) fn claim_changed(&mut self, before: &ClaimStatus, claim: &Claim) {
        let touched = || TouchedClaim { created: false, first: before.clone(), claim: claim.clone() };
        self.claims.entry(claim.id.identity).or_insert_with(touched).claim = claim.clone();
    }
}

impl Reference {
    pub(super) fn compare_changes(&mut self, batch: &Batch) -> Result<(), String> {
        let changes = std::mem::take(&mut self.changes);
        self.compare_claims(&changes, batch)?;
        self.compare_rolled_back(&changes, batch)?;
        self.compare_flags(&changes, batch)?;
        self.compare_stock(&changes, batch)
    }

    fn compare_claims(&mut self, changes: &BatchChanges, batch: &Batch) -> Result<(), String> {
        let changed = changes.claims.values().filter(|touched| touched.claim.status != touched.first);
        let expected: Vec<ClaimChange> = changed
            .map(|touched| {
                let before = (!touched.created).then(|| (touched.first.state, touched.first.deadline()));
                ClaimChange { before, claim: touched.claim.clone() }
            })
            .collect();
        // A claim that has its first status again may be written or not.
        let differs = |change: &&ClaimChange| {
            let touched = changes.claims.get(&change.claim.id.identity);
            !touched
                .is_some_and(|touched| touched.claim.status == touched.first && touched.claim == change.claim)
        };
        let mut found: Vec<ClaimChange> = batch.claims.iter().filter(differs).cloned().collect();
        found.sort_by_key(|change| change.claim.id);
        compare("I2/I11: claims", &found, &expected)?;
        let created_and_changed = expected.iter().any(|change| change.before.is_none());
        self.coverage.count_if(created_and_changed, "one batch: a claim created and changed");
        Ok(())
    }

    fn compare_rolled_back(&mut self, changes: &BatchChanges, batch: &Batch) -> Result<(), String> {
        let mut expected = changes.rolled_back.clone();
        let mut found = batch.rolled_back.clone();
        expected.sort_by_key(|rolled_back| rolled_back.id);
        found.sort_by_key(|rolled_back| rolled_back.id);
        compare("I2: rolled back", &found, &expected)?;
        let both = expected.iter().any(|rolled_back| rolled_back.made_here);
        self.coverage.count_if(both, "one batch: a redemption created and rolled back");
        Ok(())
    }

    fn compare_flags(&self, changes: &BatchChanges, batch: &Batch) -> Result<(), String> {
        // Flags with their first value again are written all the same: the next batch may build on this one.
        let differs = |change: &&CodeFlagsChange| {
            let before = changes.flags.get(&(change.coupon, change.number.0));
            !(change.before == change.after && before == Some(&change.after))
        };
        let mut found: Vec<CodeFlagsChange> = batch.code_flags.iter().filter(differs).copied().collect();
        found.sort_by_key(|change| (change.coupon, change.number));
        let expected = changes.flags.iter().map(|((coupon, number), before)| {
            let after = self.coupons[coupon].flags(*number);
            CodeFlagsChange { coupon: *coupon, number: CodeNumber(*number), before: *before, after }
        });
        let expected: Vec<CodeFlagsChange> =
            expected.filter(|change| change.before != change.after).collect();
        compare("I2: code flags", &found, &expected)
    }

    fn compare_stock(&mut self, changes: &BatchChanges, batch: &Batch) -> Result<(), String> {
        let mut rows = Vec::new();
        let mut numbers: [Vec<(CouponNo, CodeNumber)>; 4] = Default::default();
        for (no, before) in &changes.stock {
            let coupon = &self.coupons[no];
            let after = coupon.stock_row();
            let total = after.available() + after.claimed + after.locked + after.redeemed + after.revoked;
            assert_eq!(total, after.top, "the reference has lost a code of {coupon:?}");
            let passed = before.ahead.range(..=after.cursor).count() as i64;
            if before.row != after {
                rows.push(StockChange { coupon: *no, before: before.row, after, passed });
            }
            self.coverage.count_if(passed > 0, "numbers ahead that the cursor passed");
            for (all, list) in numbers.iter_mut().zip(moved_numbers(before, coupon)) {
                all.extend(list.into_iter().map(|number| (*no, CodeNumber(number))));
            }
        }
        let mut found = batch.stock.clone();
        found.sort_by_key(|change| change.coupon);
        compare("I1: stock", &found, &rows)?;
        let lists = [
            ("ahead: taken", &batch.ahead_taken),
            ("ahead: freed", &batch.ahead_freed),
            ("returned: added", &batch.returned_added),
            ("returned: taken", &batch.returned_taken),
        ];
        for ((label, found), expected) in lists.into_iter().zip(numbers) {
            let mut found = found.clone();
            found.sort_unstable();
            compare(&format!("I1/I11: numbers {label}"), &found, &expected)?;
            self.coverage.count_if(!expected.is_empty(), label);
        }
        Ok(())
    }
}

/// Numbers taken ahead, freed ahead, added to the returned ones, and taken from them.
fn moved_numbers(before: &StockBefore, coupon: &Coupon) -> [Vec<i64>; 4] {
    let above_cursor = |number: &&i64| **number > coupon.cursor;
    [
        coupon.ahead.difference(&before.ahead).copied().collect(),
        before.ahead.difference(&coupon.ahead).filter(above_cursor).copied().collect(),
        coupon.returned.difference(&before.returned).copied().collect(),
        before.returned.difference(&coupon.returned).copied().collect(),
    ]
}

/// Fails with the elements that only one of the lists contains.
fn compare<T: PartialEq + std::fmt::Debug>(what: &str, found: &[T], expected: &[T]) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let only_found: Vec<&T> = found.iter().filter(|one| !expected.contains(one)).collect();
    let only_expected: Vec<&T> = expected.iter().filter(|one| !found.contains(one)).collect();
    Err(format!("{what}: {only_found:?}, expected {only_expected:?}"))
}
