//! I7: an accepted request did what its record requests: this code, this user, this order, this amount.

use crate::kafka::{Log, RequestFields};
use crate::postgres::{Ledger, Operation, Row, parse_amount, user_key};
use crate::report::{Invariant, Report};

/// Compares every accepted request that names more than a coupon with its record.
pub(super) fn check_granted(ledger: &Ledger, log: &Log, report: &mut Report) {
    if log.fields.is_empty() {
        return;
    }
    let mut compare = |row: Option<&Row>, matches: &dyn Fn(&RequestFields) -> bool| {
        let Some(row) = row else { return };
        let Some(fields) = log.fields.get(&(row.partition, row.offset)) else { return };
        let code = fields.code.as_ref();
        let is_code = code.is_none_or(|code| ledger.codes.is_key_of(row.coupon, row.number, code));
        let is_user = user_key(&fields.user, row.coupon) == row.user;
        report.expect(Invariant::I7, is_code && is_user && matches(fields), || {
            let (partition, offset, name) = (row.partition, row.offset, ledger.code_name(row.code()));
            format!("{partition}@{offset} requests {fields:?}, but its outcome, on {name}, does not match")
        });
    };
    for row in ledger.rows.iter().filter(|row| row.is_claim()) {
        compare(Some(row), &|fields| &*fields.kind == "claim");
    }
    for redemption in &ledger.redemptions {
        let [amount, ..] = &redemption.money;
        compare(ledger.row_at(redemption.row), &|fields| {
            &*fields.kind == "redeem"
                && fields.order.as_ref() == Some(&redemption.order)
                && fields.currency.as_ref() == Some(&redemption.currency)
                && fields.amount.as_deref().and_then(parse_amount) == parse_amount(amount)
        });
    }
    for change in &ledger.changes {
        compare(ledger.row_at(change.row), &|fields| match change.operation {
            Operation::Lock => &*fields.kind == "lock" && fields.order == change.order,
            Operation::Unlock => &*fields.kind == "unlock",
            Operation::Return => &*fields.kind == "return",
            Operation::Rollback => &*fields.kind == "rollback" && fields.redemption == change.redemption,
            Operation::Revoke => &*fields.kind == "revoke",
            Operation::Unknown => false,
        });
    }
}
