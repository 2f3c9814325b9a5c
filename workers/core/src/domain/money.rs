//! Exact money: amounts as clients write them, and the discount of a coupon on an order.
//!
//! Rounding happens in one place, once. A percentage is computed exactly, and the discount is rounded half up to the
//! currency's minor unit (ISO 4217: two decimal places for most currencies, none for yen, three for some dinars). Then
//! it is limited by the coupon's maximum and by the order's amount: a final price is never below zero.

use crate::domain::words::Reason;
use rust_decimal::{Decimal, RoundingStrategy};

/// Most integer digits of an amount: amounts are below a trillion.
const INTEGER_DIGITS: usize = 12;
/// Most decimal places of an amount: enough for every currency.
const FRACTION_DIGITS: usize = 4;
/// Currencies without decimal places.
const WITHOUT_MINOR_UNIT: &[&str] = &[
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
    "XOF", "XPF",
];
/// Currencies with three decimal places.
const WITH_THOUSANDTHS: &[&str] = &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
/// Currencies with four decimal places.
const WITH_TEN_THOUSANDTHS: &[&str] = &["CLF", "UYW"];

/// The discount of a coupon on an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discount {
    /// The rate.
    pub rate: Rate,
    /// The currency that an order must have; `None`: any.
    pub currency: Option<Box<str>>,
    /// The lowest amount of an order.
    pub minimum_order: Option<Decimal>,
    /// Upper bound of the discount.
    pub maximum_discount: Option<Decimal>,
}

/// The rate of a discount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Per cent of the order's amount.
    Percentage(Decimal),
    /// A fixed amount.
    Fixed(Decimal),
}

/// The price of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// The discount.
    pub discount: Decimal,
    /// The amount less the discount.
    pub final_price: Decimal,
}

impl Default for Discount {
    /// A discount of zero.
    fn default() -> Self {
        let rate = Rate::Percentage(Decimal::ZERO);
        Self { rate, currency: None, minimum_order: None, maximum_discount: None }
    }
}

impl Discount {
    /// The price of an order of this amount. The currency is checked first, then the minimum.
    ///
    /// # Errors
    /// `currency_mismatch`, `minimum_order_not_met`; `unprocessable` for an amount that [`is_amount_of`] rejects.
    pub fn price(&self, amount: Decimal, currency: &str) -> Result<Price, Reason> {
        if !is_amount_of(amount, currency) {
            return Err(Reason::Unprocessable);
        }
        if self.currency.as_deref().is_some_and(|own| own != currency) {
            return Err(Reason::CurrencyMismatch);
        }
        if self.minimum_order.is_some_and(|least| amount < least) {
            return Err(Reason::MinimumOrderNotMet);
        }
        let exact = match self.rate {
            Rate::Percentage(rate) => amount * rate / Decimal::ONE_HUNDRED,
            Rate::Fixed(value) => value,
        };
        let digits = minor_unit(currency);
        let rounded = exact.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
        // A maximum with more decimal places than the minor unit is rounded down: the discount never exceeds it.
        let limit = self.maximum_discount.map_or(amount, |maximum| {
            maximum.round_dp_with_strategy(digits, RoundingStrategy::ToZero).min(amount)
        });
        let discount = with_decimal_places(rounded.min(limit), digits);
        Ok(Price { discount, final_price: with_decimal_places(amount - discount, digits) })
    }
}

/// `12.9` with two decimal places is `12.90`.
fn with_decimal_places(mut amount: Decimal, digits: u32) -> Decimal {
    amount.rescale(digits);
    amount
}

/// Parses `10`, `10.5`, `10.50`: at most twelve integer digits and four decimal places; no sign, no exponent, no
/// spaces, no NaN. `None` for any other text.
#[must_use]
pub fn parse(text: &str) -> Option<Decimal> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, limit: usize| {
        (1..=limit).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let valid = digits(integer, INTEGER_DIGITS) && digits(fraction, FRACTION_DIGITS);
    if valid { text.parse().ok() } else { None }
}

/// Whether a text has the form of a currency code (ISO 4217).
#[must_use]
pub fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Whether an amount is valid in a currency: not negative, with no more decimal places than the minor unit.
#[must_use]
pub fn is_amount_of(amount: Decimal, currency: &str) -> bool {
    is_currency(currency) && amount >= Decimal::ZERO && amount.normalize().scale() <= minor_unit(currency)
}

/// Decimal places of a currency's minor unit.
#[must_use]
pub fn minor_unit(currency: &str) -> u32 {
    if WITHOUT_MINOR_UNIT.contains(&currency) {
        0
    } else if WITH_THOUSANDTHS.contains(&currency) {
        3
    } else if WITH_TEN_THOUSANDTHS.contains(&currency) {
        4
    } else {
        2
    }
}

#[cfg(test)]
#[path = "money_tests.rs"]
mod tests;
