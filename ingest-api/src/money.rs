//! Amounts as clients write them: decimal strings, never floating point.

/// Digits before the point: up to a trillion less one.
const INTEGER_DIGITS: usize = 12;
/// Digits behind the point: enough for every currency.
const FRACTION_DIGITS: usize = 4;

/// Ten-thousandths of one unit of currency, or of one per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(u64);

impl Amount {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const HUNDRED: Self = Self(1_000_000);

    /// Reads `10`, `10.5`, `10.50`; no sign, no exponent, no spaces, no NaN.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(integer)
            || !digits(fraction)
            || integer.len() > INTEGER_DIGITS
            || fraction.len() > FRACTION_DIGITS
        {
            return None;
        }
        let scale = 10_u64.pow(u32::try_from(FRACTION_DIGITS - fraction.len()).ok()?);
        let integer: u64 = integer.parse().ok()?;
        let fraction: u64 = fraction.parse().ok()?;
        Some(Self(integer * 10_000 + fraction * scale))
    }
}

/// Whether a word looks like a currency (ISO 4217).
pub(crate) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_anything_else_is_refused() {
        assert_eq!(Amount::parse("100"), Some(Amount::HUNDRED));
        assert_eq!(Amount::parse("0.00"), Some(Amount::ZERO));
        assert_eq!(Amount::parse("10.5"), Amount::parse("10.5000"));
        assert!(Amount::parse("999999999999.9999").is_some());
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "NaN",
            "inf",
            "1,5",
            " 1",
            "1.00001",
            "1000000000000",
            "١",
        ] {
            assert_eq!(Amount::parse(wrong), None, "{wrong}");
        }
    }
}
