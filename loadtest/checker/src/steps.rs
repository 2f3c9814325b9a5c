//! The steps of every code's life, in the order in which they happened.
//!
//! Only codes that have more of a life than a plain claim are here, with all of their claims.

use super::lapses::Lapses;
use super::ledger::{Ledger, Place, Said, Set};

/// One step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) place: Place,
    /// The record that did it, or before which it happened.
    pub(super) offset: i64,
    order: u8,
    pub(super) what: What,
}

/// What happened: where it stands in the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// In `lapses.all`.
    Lapse(u32),
    /// In `rows`.
    Claim(u32),
    /// In `changes`.
    Change(u32),
    /// In `redemptions`.
    Redeem(u32),
}

/// Before a record is decided locks lapse, then holds; what a release found over lapses with it.
const LOCK_LAPSES: u8 = 0;
const HOLD_LAPSES: u8 = 1;
const DECIDED: u8 = 2;
const HOLD_WAS_OVER: u8 = 3;

/// All steps, those of one code together, in order.
pub(super) fn steps(ledger: &Ledger, lapses: &Lapses) -> Vec<Step> {
    let (lives, with_holds) = lives(ledger, lapses);
    let mut steps = Vec::new();
    if !lives.is_empty() || !with_holds.is_empty() {
        let coupons: Set<i64> = lives.iter().map(|(coupon, _)| *coupon).collect();
        let claims = ledger.rows.iter().zip(0..).filter(|(row, _)| row.said == Said::Claimed);
        let claims = claims.filter(|(row, _)| {
            with_holds.contains(&row.coupon) || coupons.contains(&row.coupon) && lives.contains(&row.place())
        });
        steps.extend(claims.map(|(row, index)| decided(row.place(), row.offset, What::Claim(index))));
    }
    for (change, index) in ledger.changes.iter().zip(0..) {
        let row = ledger.rows.get(change.row as usize);
        steps.extend(row.map(|row| decided(row.place(), row.offset, What::Change(index))));
    }
    for (redemption, index) in ledger.redemptions.iter().zip(0..) {
        let row = ledger.rows.get(redemption.row as usize);
        steps.extend(row.map(|row| decided(row.place(), row.offset, What::Redeem(index))));
    }
    for (lapse, index) in lapses.all.iter().zip(0..) {
        let order = match (lapse.of_hold, lapse.by_release) {
            (false, _) => LOCK_LAPSES,
            (true, false) => HOLD_LAPSES,
            (true, true) => HOLD_WAS_OVER,
        };
        steps.push(Step { place: lapse.place, offset: lapse.offset, order, what: What::Lapse(index) });
    }
    steps.sort_unstable_by_key(|step| (step.place, step.offset, step.order));
    steps
}

const fn decided(place: Place, offset: i64, what: What) -> Step {
    Step { place, offset, order: DECIDED, what }
}

/// Codes that have a life; and coupons all of whose claims have one.
fn lives(ledger: &Ledger, lapses: &Lapses) -> (Set<Place>, Set<i64>) {
    let with_holds: Set<i64> = (ledger.coupons.iter())
        .filter(|(_, coupon)| coupon.rules.hold_ms.is_some() || coupon.rules.is_shared())
        .map(|(no, _)| *no)
        .collect();
    let place = |row: &u32| ledger.rows.get(*row as usize).map(|row| row.place());
    let changed = ledger.changes.iter().filter_map(|change| place(&change.row));
    let redeemed = ledger.redemptions.iter().filter_map(|redemption| place(&redemption.row));
    let lives = (ledger.terms.keys().filter_map(place))
        .chain(changed)
        .chain(redeemed)
        .chain(ledger.marks.keys().copied())
        .chain(lapses.all.iter().map(|lapse| lapse.place))
        .filter(|(coupon, _)| !with_holds.contains(coupon))
        .collect();
    (lives, with_holds)
}
