//! Coupons, their stock, and jobs that make codes.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The definition of a new coupon.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NewCoupon {
    /// Own id: letters, digits, `.`, `_`, `-`, at most 64; the server generates one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// For people.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A word to search by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The discount.
    pub discount: Discount,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Seconds after which a claim that was not redeemed goes back to stock; never if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u64>,
    /// Seconds that a lock lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_seconds: Option<u64>,
    /// Whether a code must be locked to be redeemed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_lock: Option<bool>,
    /// Limits.
    pub limits: Limits,
    /// Fields that this version of the client does not define.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl NewCoupon {
    /// A coupon with the defaults of the server.
    #[must_use]
    pub fn new(name: &str, discount: Discount) -> Self {
        Self { name: name.to_owned(), discount, ..Self::default() }
    }
}

/// What a coupon takes off an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discount {
    /// `PERCENTAGE` or `FIXED_AMOUNT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Per cent, or an amount in `currency`.
    pub value: String,
    /// ISO 4217; required by amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The smallest order that it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_order: Option<String>,
    /// The largest discount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_discount: Option<String>,
}

impl Discount {
    /// So many per cent of the order.
    #[must_use]
    pub fn percentage(value: &str) -> Self {
        Self { kind: "PERCENTAGE".to_owned(), value: value.to_owned(), ..Self::default() }
    }

    /// A fixed amount.
    #[must_use]
    pub fn fixed_amount(value: &str, currency: &str) -> Self {
        let currency = Some(currency.to_owned());
        Self { kind: "FIXED_AMOUNT".to_owned(), value: value.to_owned(), currency, ..Self::default() }
    }
}

/// Limits of a new coupon. The server's default applies where a limit is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Live claims of one user; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims_per_user: Option<Limit>,
    /// Live redemptions of one user; unlimited by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemptions_per_user: Option<Limit>,
    /// Live redemptions of one code; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemptions_per_code: Option<Limit>,
    /// Live redemptions of all codes; unlimited by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemptions_total: Option<Limit>,
}

/// A limit: a number, or JSON `null` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many.
    AtMost(u64),
    /// Any number.
    Unlimited,
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AtMost(limit) => serializer.serialize_some(limit),
            Self::Unlimited => serializer.serialize_none(),
        }
    }
}

/// A coupon with live counters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Coupon {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// A word to search by.
    pub category: Option<String>,
    /// The discount.
    pub discount: Discount,
    /// When its window starts.
    pub starts_at: Option<String>,
    /// When its window ends.
    pub expires_at: Option<String>,
    /// Seconds after which a claim that was not redeemed goes back to stock.
    pub hold_seconds: Option<u64>,
    /// Seconds that a lock lasts.
    pub lock_seconds: u64,
    /// Whether a code must be locked to be redeemed.
    pub requires_lock: bool,
    /// `active`, `paused` or `ended`.
    pub status: String,
    /// Where its codes are.
    pub counts: Counts,
    /// When it was created.
    pub created_at: String,
}

/// Where the codes of a coupon are. `generated` is the sum of all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// All codes.
    pub generated: u64,
    /// In stock.
    pub available: u64,
    /// Claimed, not locked.
    pub claimed: u64,
    /// Locked for a checkout.
    pub locked: u64,
    /// Redeemed.
    pub redeemed: u64,
    /// Not redeemed when the coupon's window ended.
    pub expired: u64,
    /// Revoked.
    pub revoked: u64,
}

/// An order for new codes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GenerateCodes {
    /// How many.
    pub count: u64,
    /// Their form; the server's default if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
}

/// The form of generated codes. The server's default applies where a field is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pattern {
    /// Letters and digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Characters after the prefix, the check character included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// The characters to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// Characters between two hyphens; 0: no hyphens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
}

/// A long job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// Its id.
    pub job_id: String,
    /// How far it is.
    pub state: JobState,
    /// Codes stored so far.
    pub done: u64,
    /// Codes ordered.
    pub total: u64,
    /// Why there are fewer codes than ordered.
    #[serde(default)]
    pub reason: Option<String>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// Codes are being stored.
    Open,
    /// All codes are stored; they are not in stock yet.
    Sealed,
    /// The codes are in stock and can be claimed.
    Applied,
    /// The job ended before its first code was stored.
    Abandoned,
    /// A state that this version of the client does not define.
    #[serde(other)]
    Unknown,
}

impl JobState {
    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Applied => "applied",
            Self::Abandoned => "abandoned",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_absent_limit_is_left_to_the_server_and_no_limit_is_null() {
        let limits = Limits {
            claims_per_user: Some(Limit::AtMost(2)),
            redemptions_per_code: Some(Limit::Unlimited),
            ..Limits::default()
        };
        let coupon = NewCoupon { limits, ..NewCoupon::new("Spring", Discount::percentage("10.00")) };
        assert_eq!(
            serde_json::to_value(coupon).unwrap(),
            json!({
                "name": "Spring",
                "discount": {"type": "PERCENTAGE", "value": "10.00"},
                "limits": {"claims_per_user": 2, "redemptions_per_code": null},
            })
        );
    }
}
