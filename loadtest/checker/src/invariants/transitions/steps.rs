//! The steps of every code, in the order in which they happened.
//!
//! Only codes with more transitions than a plain claim are included, each with all of its claims.

use crate::collections::Set;
use crate::invariants::lapses::Lapses;
use crate::postgres::{CodeId, Ledger};

#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) code: CodeId,
    /// The record of the request; for a lapse, the record before whose decision it happened.
    offset: i64,
    order: Order,
    pub(super) source: StepSource,
}

/// The index of the entry that shows the step.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepSource {
    /// In `lapses.all`.
    Lapse(u32),
    /// In `rows`: a claim.
    Row(u32),
    /// In `changes`.
    Change(u32),
    /// In `redemptions`.
    Redemption(u32),
}

/// The order at one record: first locks lapse, then holds, then the record is decided. An unlock whose hold has ended makes
/// the hold lapse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    LockLapses,
    HoldLapses,
    Decided,
    LapsesOnRelease,
}

/// All steps: those of one code together, in order.
pub(super) fn steps(ledger: &Ledger, lapses: &Lapses) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut decided = |row: u32, source: StepSource| {
        let row = ledger.row_at(row);
        steps.extend(row.map(|row| Step {
            code: row.code(),
            offset: row.offset,
            order: Order::Decided,
            source,
        }));
    };
    for index in claims(ledger, lapses) {
        decided(index, StepSource::Row(index));
    }
    for (change, index) in ledger.changes.iter().zip(0..) {
        decided(change.row, StepSource::Change(index));
    }
    for (redemption, index) in ledger.redemptions.iter().zip(0..) {
        decided(redemption.row, StepSource::Redemption(index));
    }
    for (lapse, index) in lapses.all.iter().zip(0..) {
        let order = match (lapse.of_hold, lapse.by_release) {
            (false, _) => Order::LockLapses,
            (true, false) => Order::HoldLapses,
            (true, true) => Order::LapsesOnRelease,
        };
        steps.push(Step { code: lapse.code, offset: lapse.offset, order, source: StepSource::Lapse(index) });
    }
    steps.sort_unstable_by_key(|step| (step.code, step.offset, step.order));
    steps
}

/// The rows of all claims of codes with more transitions than a plain claim.
fn claims(ledger: &Ledger, lapses: &Lapses) -> Vec<u32> {
    let (codes, coupons) = replayed(ledger, lapses);
    if codes.is_empty() && coupons.is_empty() {
        return Vec::new();
    }
    let coupons_of_codes: Set<i64> = codes.iter().map(|(coupon, _)| *coupon).collect();
    let claims = ledger.rows.iter().zip(0..).filter(|(row, _)| row.is_claim());
    let claims = claims.filter(|(row, _)| {
        coupons.contains(&row.coupon) || coupons_of_codes.contains(&row.coupon) && codes.contains(&row.code())
    });
    claims.map(|(_, index)| index).collect()
}

/// Codes with more transitions than a plain claim, and coupons all of whose claims have more.
fn replayed(ledger: &Ledger, lapses: &Lapses) -> (Set<CodeId>, Set<i64>) {
    let coupons = ledger.coupons.iter();
    let coupons: Set<i64> = coupons
        .filter(|(_, coupon)| coupon.rules.hold_ms.is_some() || coupon.rules.is_shared())
        .map(|(no, _)| *no)
        .collect();
    let code = |row: &u32| ledger.row_at(*row).map(|row| row.code());
    let changed = ledger.changes.iter().filter_map(|change| code(&change.row));
    let redeemed = ledger.redemptions.iter().filter_map(|redemption| code(&redemption.row));
    let codes = (ledger.claim_status.keys().filter_map(code))
        .chain(changed)
        .chain(redeemed)
        .chain(ledger.code_flags.keys().copied())
        .chain(lapses.all.iter().map(|lapse| lapse.code))
        .filter(|(coupon, _)| !coupons.contains(coupon))
        .collect();
    (codes, coupons)
}
