//! I6: what every redemption took off its order, computed anew from the coupon's definition.
//!
//! Integers in ten-thousandths, nothing of the workers' arithmetic. A percentage is rounded to the currency's minor
//! unit, a half up; a maximum finer than that is rounded down; nobody pays less than nothing.

use serde::Deserialize;

use super::ledger::{Ledger, Redemption, Row};
use super::report::{Invariant, Report};

/// One, in ten-thousandths.
const ONE: i128 = 10_000;

/// ISO 4217: currencies whose minor unit is not a hundredth, by its digits.
const MINOR_UNITS: [(u32, &[&str]); 3] = [
    (
        0,
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV",
            "XAF", "XOF", "XPF",
        ],
    ),
    (3, &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]),
    (4, &["CLF", "UYW"]),
];

/// What a coupon takes off, in ten-thousandths (of a per cent, or of the currency).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Discount {
    is_percentage: bool,
    value: i128,
    currency: Option<Box<str>>,
    minimum_order: Option<i128>,
    maximum: Option<i128>,
}

#[derive(Deserialize)]
struct Defined {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    currency: Option<Box<str>>,
    minimum_order: Option<String>,
    maximum_discount: Option<String>,
}

impl Discount {
    /// From the JSON of a definition.
    pub(super) fn read(json: &str) -> Option<Self> {
        let defined: Defined = serde_json::from_str(json).ok()?;
        let amount = |text: Option<String>| text.map_or(Some(None), |text| units(&text).map(Some));
        Some(Self {
            is_percentage: match defined.kind.as_str() {
                "PERCENTAGE" => true,
                "FIXED_AMOUNT" => false,
                _ => return None,
            },
            value: units(&defined.value)?,
            currency: defined.currency,
            minimum_order: amount(defined.minimum_order)?,
            maximum: amount(defined.maximum_discount)?,
        })
    }

    /// What is taken off an order of this amount; or why it should not have been taken off at all.
    fn off(&self, amount: i128, currency: &str) -> Result<i128, &'static str> {
        let unit = minor_unit(currency);
        if amount % unit != 0 {
            return Err("is finer than the currency");
        }
        if self.currency.as_deref().is_some_and(|own| own != currency) {
            return Err("is in another currency than the coupon's");
        }
        if self.minimum_order.is_some_and(|least| amount < least) {
            return Err("is below the coupon's minimum");
        }
        // Of a percentage: ten-thousandths of ten-thousandths of a hundredth.
        let (exact, scale) =
            if self.is_percentage { (amount * self.value, 100 * ONE) } else { (self.value, 1) };
        let step = unit * scale;
        let rounded = (2 * exact + step) / (2 * step) * unit;
        let most = self.maximum.map_or(amount, |maximum| maximum / unit * unit);
        Ok(rounded.min(most).min(amount))
    }
}

/// Holds every redemption against its coupon.
pub(super) fn prices(ledger: &Ledger, report: &mut Report) {
    for redemption in &ledger.redemptions {
        let Some(row) = ledger.rows.get(redemption.row as usize) else { continue };
        let wrong = wrong_price(ledger, row, redemption);
        report.expect(Invariant::I6, wrong.is_none(), || {
            format!(
                "redemption {} of {}: {}",
                row.id,
                ledger.code_name(row.place()),
                wrong.unwrap_or_default()
            )
        });
    }
}

fn wrong_price(ledger: &Ledger, row: &Row, redemption: &Redemption) -> Option<String> {
    let currency = &redemption.currency;
    let [Some(amount), Some(off), Some(left)] = redemption.money.each_ref().map(|text| units(text)) else {
        return Some(format!("{:?} are no amounts", redemption.money));
    };
    let Some(discount) = ledger.coupons.get(&row.coupon).and_then(|coupon| coupon.rules.discount.as_ref())
    else {
        return Some("its coupon takes nothing off that can be read".to_owned());
    };
    let [shown, ..] = &redemption.money;
    match discount.off(amount, currency) {
        Err(why) => Some(format!("the order of {shown} {currency} {why}")),
        Ok(expected) if (expected, amount - expected) != (off, left) => Some(format!(
            "of an order of {shown} {currency} {} were taken off, not {}; {} is left",
            decimal(off),
            decimal(expected),
            decimal(left)
        )),
        Ok(_) => None,
    }
}

/// A minor unit in ten-thousandths.
fn minor_unit(currency: &str) -> i128 {
    let digits = MINOR_UNITS.iter().find(|(_, currencies)| currencies.contains(&currency));
    ONE / 10_i128.pow(digits.map_or(2, |(digits, _)| *digits))
}

/// A decimal of at most four digits behind the point, in ten-thousandths. Zeros beyond them are allowed: Postgres
/// may show more than it was given.
pub(super) fn units(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 15 || fraction.len() > 4 || !is_number(whole) || !is_number(fraction)
    {
        return None;
    }
    format!("{whole}{fraction:0<4}").parse().ok()
}

/// An amount for people.
fn decimal(units: i128) -> String {
    format!("{}.{:04}", units / ONE, units % ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(json: &str, amount: &str, currency: &str) -> Result<String, &'static str> {
        let discount = Discount::read(json).expect("a discount");
        discount.off(units(amount).expect("an amount"), currency).map(decimal)
    }

    #[test]
    fn a_percentage_is_rounded_half_up_to_the_minor_unit() {
        let ten = r#"{"type":"PERCENTAGE","value":"10.00"}"#;
        let cases = [
            ("0.05", "EUR", "0.0100"),
            ("0.04", "EUR", "0.0000"),
            ("129.99", "EUR", "13.0000"),
            ("15", "JPY", "2.0000"),
            ("14", "JPY", "1.0000"),
            ("1.005", "KWD", "0.1010"),
        ];
        for (amount, currency, expected) in cases {
            assert_eq!(off(ten, amount, currency).as_deref(), Ok(expected), "10 % of {amount} {currency}");
        }
    }

    #[test]
    fn nothing_is_taken_off_beyond_the_maximum_or_the_order() {
        let half = r#"{"type":"PERCENTAGE","value":"50","maximum_discount":"5.009"}"#;
        assert_eq!(off(half, "100.00", "EUR").as_deref(), Ok("5.0000"));
        let fixed = r#"{"type":"FIXED_AMOUNT","value":"20","currency":"EUR","minimum_order":"8"}"#;
        assert_eq!(off(fixed, "12.34", "EUR").as_deref(), Ok("12.3400"));
        assert_eq!(off(fixed, "7.99", "EUR"), Err("is below the coupon's minimum"));
        assert_eq!(off(fixed, "12.34", "USD"), Err("is in another currency than the coupon's"));
        assert_eq!(off(fixed, "12.345", "EUR"), Err("is finer than the currency"));
    }

    #[test]
    fn what_is_no_amount_is_not_read_as_one() {
        assert_eq!(units("12.5"), Some(125_000));
        assert_eq!(units("12.500000"), Some(125_000));
        for text in ["", ".5", "-1", "1e3", "NaN", "1.00001", "1_0"] {
            assert_eq!(units(text), None, "{text:?}");
        }
    }
}
