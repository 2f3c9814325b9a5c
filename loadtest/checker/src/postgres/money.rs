//! Amounts and discounts, computed independently of the workers' arithmetic.
//!
//! Amounts are integers in ten-thousandths. A percentage is rounded half up to the currency's minor unit. A maximum finer
//! than the minor unit is rounded down. A discount never exceeds the order amount.

use serde::Deserialize;

/// 1 in ten-thousandths.
const ONE: i128 = 10_000;

/// ISO 4217: currencies whose minor unit does not have two digits, by the number of digits.
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

/// The discount of a coupon, in ten-thousandths (of a per cent, or of the currency).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discount {
    is_percentage: bool,
    value: i128,
    currency: Option<Box<str>>,
    minimum_order: Option<i128>,
    maximum: Option<i128>,
}

#[derive(Deserialize)]
struct DiscountJson {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    currency: Option<Box<str>>,
    minimum_order: Option<String>,
    maximum_discount: Option<String>,
}

impl Discount {
    /// Parses the discount of a coupon definition.
    pub(super) fn from_json(json: &str) -> Option<Self> {
        let defined: DiscountJson = serde_json::from_str(json).ok()?;
        let amount = |text: Option<String>| text.map_or(Some(None), |text| parse_amount(&text).map(Some));
        Some(Self {
            is_percentage: match defined.kind.as_str() {
                "PERCENTAGE" => true,
                "FIXED_AMOUNT" => false,
                _ => return None,
            },
            value: parse_amount(&defined.value)?,
            currency: defined.currency,
            minimum_order: amount(defined.minimum_order)?,
            maximum: amount(defined.maximum_discount)?,
        })
    }

    /// The discount for an order of this amount, or why the order must have none.
    pub(crate) fn of_order(&self, amount: i128, currency: &str) -> Result<i128, &'static str> {
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
        // A percentage: amount and value are ten-thousandths each, and a per cent is a hundredth.
        let (exact, scale) =
            if self.is_percentage { (amount * self.value, 100 * ONE) } else { (self.value, 1) };
        let step = unit * scale;
        let rounded = (2 * exact + step) / (2 * step) * unit;
        let most = self.maximum.map_or(amount, |maximum| maximum / unit * unit);
        Ok(rounded.min(most).min(amount))
    }
}

/// A minor unit in ten-thousandths.
fn minor_unit(currency: &str) -> i128 {
    let digits = MINOR_UNITS.iter().find(|(_, currencies)| currencies.contains(&currency));
    ONE / 10_i128.pow(digits.map_or(2, |(digits, _)| *digits))
}

/// Parses a decimal with at most four decimal places into ten-thousandths. Further zeros are allowed, because Postgres
/// may return more decimal places than were stored.
pub(crate) fn parse_amount(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 15 || fraction.len() > 4 || !is_number(whole) || !is_number(fraction)
    {
        return None;
    }
    format!("{whole}{fraction:0<4}").parse().ok()
}

/// Formats an amount.
pub(crate) fn decimal(units: i128) -> String {
    format!("{}.{:04}", units / ONE, units % ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discount(json: &str, amount: &str, currency: &str) -> Result<String, &'static str> {
        let discount = Discount::from_json(json).expect("a discount");
        discount.of_order(parse_amount(amount).expect("an amount"), currency).map(decimal)
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
            assert_eq!(
                discount(ten, amount, currency).as_deref(),
                Ok(expected),
                "10 % of {amount} {currency}"
            );
        }
    }

    #[test]
    fn a_discount_never_exceeds_the_maximum_or_the_order() {
        let half = r#"{"type":"PERCENTAGE","value":"50","maximum_discount":"5.009"}"#;
        assert_eq!(discount(half, "100.00", "EUR").as_deref(), Ok("5.0000"));
        let fixed = r#"{"type":"FIXED_AMOUNT","value":"20","currency":"EUR","minimum_order":"8"}"#;
        assert_eq!(discount(fixed, "12.34", "EUR").as_deref(), Ok("12.3400"));
        assert_eq!(discount(fixed, "7.99", "EUR"), Err("is below the coupon's minimum"));
        assert_eq!(discount(fixed, "12.34", "USD"), Err("is in another currency than the coupon's"));
        assert_eq!(discount(fixed, "12.345", "EUR"), Err("is finer than the currency"));
    }

    #[test]
    fn a_text_that_is_not_an_amount_is_not_parsed() {
        assert_eq!(parse_amount("12.5"), Some(125_000));
        assert_eq!(parse_amount("12.500000"), Some(125_000));
        for text in ["", ".5", "-1", "1e3", "NaN", "1.00001", "1_0"] {
            assert_eq!(parse_amount(text), None, "{text:?}");
        }
    }
}
