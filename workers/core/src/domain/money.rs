//! Exact money: amounts as clients write them, and what a coupon takes off an order.
//!
//! Rounding, in one place: a percentage is computed exactly and the discount is rounded to the currency's minor unit
//! (ISO 4217: two digits for most, none for yen, three for some dinars), a half going up. Then it is cut to the
//! coupon's maximum, then to the order's amount: a final price is never below zero.

use crate::domain::words::Reason;
use rust_decimal::{Decimal, RoundingStrategy};

/// Digits before the point: up to a trillion less one.
const INTEGER_DIGITS: usize = 12;
/// Digits behind the point: enough for every currency.
const FRACTION_DIGITS: usize = 4;
/// Currencies without a minor unit.
const WITHOUT_MINOR_UNIT: &[&str] = &[
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
    "XOF", "XPF",
];
/// Currencies with a thousandth.
const WITH_THOUSANDTHS: &[&str] = &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
/// Currencies with a ten-thousandth.
const WITH_TEN_THOUSANDTHS: &[&str] = &["CLF", "UYW"];

/// What a coupon takes off an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discount {
    /// How much.
    pub rate: Rate,
    /// The only currency of orders that it is for; `None`: any.
    pub currency: Option<Box<str>>,
    /// Orders below this are refused.
    pub minimum_order: Option<Decimal>,
    /// Never more off than this.
    pub maximum_discount: Option<Decimal>,
}

/// How much is taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// So many per cent of the order's amount.
    Percentage(Decimal),
    /// This amount.
    Fixed(Decimal),
}

/// What an order comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// What is taken off.
    pub discount: Decimal,
    /// What is left to pay.
    pub final_price: Decimal,
}

impl Default for Discount {
    /// Takes nothing off.
    fn default() -> Self {
        let rate = Rate::Percentage(Decimal::ZERO);
        Self { rate, currency: None, minimum_order: None, maximum_discount: None }
    }
}

impl Discount {
    /// What an order of this amount comes to: the currency is checked first, then the minimum.
    ///
    /// # Errors
    /// `currency_mismatch`, `minimum_order_not_met`; `unprocessable` for an amount that [`is_amount_of`] refuses.
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
        // A maximum finer than the minor unit is rounded down: never more off than it says.
        let most = self
            .maximum_discount
            .map_or(amount, |most| most.round_dp_with_strategy(digits, RoundingStrategy::ToZero).min(amount));
        let discount = shown(rounded.min(most), digits);
        Ok(Price { discount, final_price: shown(amount - discount, digits) })
    }
}

/// With exactly so many digits behind the point: `12.9` is shown as `12.90`.
fn shown(mut amount: Decimal, digits: u32) -> Decimal {
    amount.rescale(digits);
    amount
}

/// Reads `10`, `10.5`, `10.50`: at most twelve digits before the point and four behind it; no sign, no exponent, no
/// spaces, no NaN.
#[must_use]
pub fn parse(text: &str) -> Option<Decimal> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let fine = digits(integer, INTEGER_DIGITS) && digits(fraction, FRACTION_DIGITS);
    if fine { text.parse().ok() } else { None }
}

/// Whether a word looks like a currency (ISO 4217).
#[must_use]
pub fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Whether this is an amount of this currency: not negative, and no finer than its minor unit.
#[must_use]
pub fn is_amount_of(amount: Decimal, currency: &str) -> bool {
    is_currency(currency) && amount >= Decimal::ZERO && amount.normalize().scale() <= minor_unit(currency)
}

/// Digits behind the point of a currency's smallest unit.
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
