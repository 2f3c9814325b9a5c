//! I6: the discount and the final price of every redemption, computed from the coupon's definition.

use crate::postgres::{Ledger, Redemption, Row, decimal, parse_amount};
use crate::report::{Invariant, Report};

/// Compares every redemption with its coupon.
pub(super) fn check_prices(ledger: &Ledger, report: &mut Report) {
    for redemption in &ledger.redemptions {
        let Some(row) = ledger.row_at(redemption.row) else { continue };
        let error = price_error(ledger, row, redemption);
        report.expect(Invariant::I6, error.is_none(), || {
            let (name, error) = (ledger.code_name(row.code()), error.unwrap_or_default());
            format!("redemption {} of {name}: {error}", row.id)
        });
    }
}

fn price_error(ledger: &Ledger, row: &Row, redemption: &Redemption) -> Option<String> {
    let currency = &redemption.currency;
    let amounts = redemption.money.each_ref().map(|text| parse_amount(text));
    let [Some(amount), Some(discount), Some(final_price)] = amounts else {
        return Some(format!("{:?} are not amounts", redemption.money));
    };
    let rules = ledger.coupons.get(&row.coupon).map(|coupon| &coupon.rules);
    let Some(rule) = rules.and_then(|rules| rules.discount.as_ref()) else {
        return Some("its coupon has no readable discount".to_owned());
    };
    let [order, ..] = &redemption.money;
    match rule.of_order(amount, currency) {
        Err(reason) => Some(format!("the order of {order} {currency} {reason}")),
        Ok(expected) if (expected, amount - expected) != (discount, final_price) => Some(format!(
            "for an order of {order} {currency} the discount is {}, not {}; the final price is {}",
            decimal(discount),
            decimal(expected),
            decimal(final_price)
        )),
        Ok(_) => None,
    }
}
