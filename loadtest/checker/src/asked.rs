//! I7: what was granted is what was asked for: this code, by this user, for this order, at this amount.

use super::ledger::{Did, Ledger, Row, Said, holder};
use super::log::{Log, Wish};
use super::money::units;
use super::report::{Invariant, Report};

/// Holds every accepted request that named something against its record.
pub(super) fn granted(ledger: &Ledger, log: &Log, report: &mut Report) {
    if log.wishes.is_empty() {
        return;
    }
    let mut hold = |row: Option<&Row>, fits: &dyn Fn(&Wish) -> bool| {
        let Some(row) = row else { return };
        let Some(wish) = log.wishes.get(&(row.partition, row.offset)) else { return };
        let code = wish.code.as_ref();
        let is_of_code = code.is_none_or(|code| ledger.codes.is_key_of(row.coupon, row.number, code));
        let is_by_user = holder(&wish.user, row.coupon) == row.holder;
        report.expect(Invariant::I7, is_of_code && is_by_user && fits(wish), || {
            let (partition, offset, name) = (row.partition, row.offset, ledger.code_name(row.place()));
            format!(
                "{partition}@{offset} asks for {wish:?}, and what was done, with {name}, is something else"
            )
        });
    };
    for row in ledger.rows.iter().filter(|row| row.said == Said::Claimed) {
        hold(Some(row), &|wish| &*wish.kind == "claim");
    }
    for redemption in &ledger.redemptions {
        let [amount, ..] = &redemption.money;
        hold(ledger.rows.get(redemption.row as usize), &|wish| {
            &*wish.kind == "redeem"
                && wish.order.as_ref() == Some(&redemption.order)
                && wish.currency.as_ref() == Some(&redemption.currency)
                && wish.amount.as_deref().and_then(units) == units(amount)
        });
    }
    for change in &ledger.changes {
        hold(ledger.rows.get(change.row as usize), &|wish| match change.did {
            Did::Lock => &*wish.kind == "lock" && wish.order == change.order,
            Did::Unlock => &*wish.kind == "unlock",
            Did::Return => &*wish.kind == "return",
            Did::Rollback => &*wish.kind == "rollback" && wish.redemption == change.redemption,
            Did::Revoke => &*wish.kind == "revoke",
            Did::Nonsense => false,
        });
    }
}
