//! The definition of a coupon, as it is stored and returned.

use coupon_core::money::{self, Rate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) const PERCENTAGE: &str = "PERCENTAGE";
pub(crate) const FIXED_AMOUNT: &str = "FIXED_AMOUNT";

/// Whether a text is a valid coupon id: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
pub(crate) fn is_coupon_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= 64
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

/// The discount of a coupon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Discount {
    /// PERCENTAGE or FIXED_AMOUNT.
    #[serde(rename = "type")]
    #[schema(example = "PERCENTAGE")]
    pub(crate) kind: String,
    /// Per cent, or an amount of `currency`; a decimal string.
    #[schema(example = "10.00")]
    pub(crate) value: String,
    /// ISO 4217; required with any amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) currency: Option<String>,
    /// Smallest order amount for which the coupon is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) minimum_order: Option<String>,
    /// Upper bound of the discount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) maximum_discount: Option<String>,
}

impl Discount {
    /// The discount in the form that the owner of the coupon computes with; `None` for a row that this API cannot have
    /// written.
    pub(crate) fn rules(&self) -> Option<money::Discount> {
        let value = money::parse(&self.value)?;
        let rate = match self.kind.as_str() {
            PERCENTAGE => Rate::Percentage(value),
            FIXED_AMOUNT => Rate::Fixed(value),
            _ => return None,
        };
        let amount =
            |text: &Option<String>| text.as_deref().map(|text| money::parse(text).ok_or(())).transpose();
        Some(money::Discount {
            rate,
            currency: self.currency.as_deref().map(Into::into),
            minimum_order: amount(&self.minimum_order).ok()?,
            maximum_discount: amount(&self.maximum_discount).ok()?,
        })
    }
}

/// The limits of a coupon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Limits {
    /// Live claims of one user; 1 if absent, null for no limit.
    pub(crate) claims_per_user: Option<i32>,
    /// null for no limit.
    pub(crate) redemptions_per_user: Option<i32>,
    /// 1 if absent, null for no limit.
    pub(crate) redemptions_per_code: Option<i32>,
    /// null for no limit.
    pub(crate) redemptions_total: Option<i64>,
}

/// The part of a definition that is stored as JSON. Claims do not depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) category: Option<String>,
    pub(crate) discount: Discount,
}

/// A valid definition of a new coupon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewCoupon {
    pub(crate) id: Option<String>,
    pub(crate) description: Description,
    pub(crate) starts_at_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) hold_seconds: Option<i32>,
    pub(crate) lock_seconds: i32,
    pub(crate) requires_lock: bool,
    pub(crate) limits: Limits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coupon_ids_have_safe_characters_and_begin_with_a_letter_or_digit() {
        for id in ["a", "Spring-2026", "9.x_y", &"a".repeat(64)] {
            assert!(is_coupon_id(id), "{id}");
        }
        for id in ["", "-a", ".a", "a b", "a/b", "ä", "a\0", &"a".repeat(65)] {
            assert!(!is_coupon_id(id), "{id}");
        }
    }

    #[test]
    fn a_stored_discount_can_be_computed_with_and_an_unreadable_one_is_detected() {
        let discount = Discount {
            kind: FIXED_AMOUNT.to_owned(),
            value: "5".to_owned(),
            currency: Some("EUR".to_owned()),
            minimum_order: Some("20.00".to_owned()),
            maximum_discount: Some("4.50".to_owned()),
        };
        let rules = discount.rules().expect("a discount");
        let price = money::parse("20").map(|amount| rules.price(amount, "EUR"));
        assert_eq!(
            price.and_then(Result::ok).map(|price| price.discount.to_string()),
            Some("4.50".to_owned())
        );
        assert_eq!(Discount { value: "a lot".to_owned(), ..discount }.rules(), None);
    }
}
