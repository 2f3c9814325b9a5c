//! Orders at the door: their amounts are exact decimals, no finer than what their currency can pay.

use std::ops::RangeInclusive;

use coupon_core::money::{self, is_amount_of, is_currency, minor_unit};

use crate::fields::Faults;

/// How long an order's id may be, in characters.
pub(crate) const ORDER_ID_CHARACTERS: RangeInclusive<usize> = 1..=128;
/// How long an amount's text may be; what an amount is, is [`money::parse`]'s to say.
pub(crate) const AMOUNT_CHARACTERS: RangeInclusive<usize> = 1..=32;

const NOT_AN_AMOUNT: &str =
    "must be a decimal string like \"129.90\", at most 12 digits before the point and 4 behind it";

/// Notes what is no currency.
pub(crate) fn check_currency(currency: &str, faults: &mut Faults) {
    if !is_currency(currency) {
        faults.add("currency", "must be a currency of three capitals (ISO 4217)");
    }
}

/// An amount in its one form: with exactly as many digits behind the point as its currency has. What is no amount,
/// or too fine for its currency, is noted.
pub(crate) fn amount_of(amount: &str, currency: Option<&str>, faults: &mut Faults) -> Option<String> {
    let Some(mut exact) = money::parse(amount) else {
        faults.add("order_amount", NOT_AN_AMOUNT);
        return None;
    };
    let currency = currency.filter(|currency| is_currency(currency))?;
    let digits = minor_unit(currency);
    if !is_amount_of(exact, currency) {
        faults
            .add("order_amount", format!("must have at most {digits} digits behind the point in {currency}"));
        return None;
    }
    exact.rescale(digits);
    Some(exact.to_string())
}
