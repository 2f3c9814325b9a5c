//! The fields of an order. Amounts are exact decimals, no finer than the smallest unit of their currency.

use std::ops::RangeInclusive;

use coupon_core::money::{self, is_amount_of, is_currency, minor_unit};

use crate::http::validation::FieldErrors;

/// Length of an order id, in characters.
pub(crate) const ORDER_ID_CHARACTERS: RangeInclusive<usize> = 1..=128;
/// Length of the text of an amount; [`money::parse`] checks its form.
pub(crate) const AMOUNT_CHARACTERS: RangeInclusive<usize> = 1..=32;

const INVALID_AMOUNT: &str =
    "must be a decimal string such as \"129.90\", with at most 12 integer digits and 4 decimal places";

/// Adds an error for an invalid currency.
pub(crate) fn check_currency(currency: &str, errors: &mut FieldErrors) {
    if !is_currency(currency) {
        errors.add("currency", "must be an ISO 4217 code of three capital letters");
    }
}

/// Normalises an amount to the decimal places of its currency. Adds an error for an invalid amount, or one that is too
/// fine for its currency.
pub(crate) fn amount_of(amount: &str, currency: Option<&str>, errors: &mut FieldErrors) -> Option<String> {
    let Some(mut exact) = money::parse(amount) else {
        errors.add("order_amount", INVALID_AMOUNT);
        return None;
    };
    let currency = currency.filter(|currency| is_currency(currency))?;
    let digits = minor_unit(currency);
    if !is_amount_of(exact, currency) {
        errors.add("order_amount", format!("must have at most {digits} decimal places for {currency}"));
        return None;
    }
    exact.rescale(digits);
    Some(exact.to_string())
}
