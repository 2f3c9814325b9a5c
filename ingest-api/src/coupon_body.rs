//! The body of a new coupon: what it may say, and everything that is wrong with it at once.

use coupon_core::money::{self, Rate, is_currency};
use schemas::partition_for;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::coupons::is_coupon_id;
use crate::fields::{Faults, Fields};
use crate::problem::Problem;

const LONGEST_HOLD_SECONDS: i64 = 30 * 24 * 3600;
const LARGEST_LIMIT: i64 = 1_000_000;
const LARGEST_TOTAL: i64 = 1_000_000_000_000;
const DEFAULT_LOCK_SECONDS: i64 = 300;
const PERCENTAGE: &str = "PERCENTAGE";
const FIXED_AMOUNT: &str = "FIXED_AMOUNT";

/// What a coupon takes off a price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Discount {
    /// PERCENTAGE or FIXED_AMOUNT.
    #[serde(rename = "type")]
    #[schema(example = "PERCENTAGE")]
    kind: String,
    /// Per cent, or an amount of `currency`; a decimal string.
    #[schema(example = "10.00")]
    value: String,
    /// ISO 4217; required by amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    /// Orders below it get nothing off.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum_order: Option<String>,
    /// Never more off than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_discount: Option<String>,
}

impl Discount {
    /// As the owner of the coupon computes with it; `None` for a row that no version of the API wrote.
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

/// How often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Limits {
    /// Live claims a user may have; 1 if absent, null: any number.
    pub(crate) claims_per_user: Option<i32>,
    /// null: any number.
    pub(crate) redemptions_per_user: Option<i32>,
    /// 1 if absent; null: any number.
    pub(crate) redemptions_per_code: Option<i32>,
    /// null: any number.
    pub(crate) redemptions_total: Option<i64>,
}

/// The part of a definition that no decision depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) category: Option<String>,
    pub(crate) discount: Discount,
}

/// A new coupon.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; NewCoupon is what is read")]
pub(crate) struct CouponBody {
    /// Own id: letters, digits, `.`, `_`, `-`, at most 64; generated if absent.
    id: Option<String>,
    #[schema(max_length = 200)]
    name: String,
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[schema(max_length = 64)]
    category: Option<String>,
    discount: Discount,
    /// RFC 3339.
    starts_at: Option<String>,
    /// RFC 3339, after `starts_at`.
    expires_at: Option<String>,
    /// Seconds after which an unused claim goes back to stock; absent: never.
    hold_seconds: Option<i32>,
    /// Seconds that a lock lasts.
    #[schema(default = 300)]
    lock_seconds: Option<i32>,
    #[schema(default = false)]
    requires_lock: Option<bool>,
    limits: Option<Limits>,
}

/// A coupon that may be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewCoupon {
    pub(crate) id: Option<String>,
    pub(crate) described: Described,
    pub(crate) starts_at_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) hold_seconds: Option<i32>,
    pub(crate) lock_seconds: i32,
    pub(crate) requires_lock: bool,
    pub(crate) limits: Limits,
}

impl NewCoupon {
    /// Reads a body.
    ///
    /// # Errors
    /// 422 with every fault.
    pub(crate) fn read(body: Value) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body)?;
        let id = fields.text("id", 1..=64, &mut faults);
        if id.as_deref().is_some_and(|id| !is_coupon_id(id)) {
            faults.add(
                "id",
                "must begin with a letter or digit and have letters, digits, '.', '_' and '-' only",
            );
        }
        let named = fields.has("name");
        let name = fields.text("name", 1..=200, &mut faults);
        if !named {
            fields.missing("name", &mut faults);
        }
        let description = fields.text("description", 0..=2_000, &mut faults);
        let category = fields.text("category", 1..=64, &mut faults);
        let has_discount = fields.has("discount");
        let discount = fields.object("discount", &mut faults).map(|inner| discount(inner, &mut faults));
        if !has_discount {
            fields.missing("discount", &mut faults);
        }
        let starts_at_ms = fields.time("starts_at", &mut faults);
        let expires_at_ms = fields.time("expires_at", &mut faults);
        if let (Some(starts), Some(expires)) = (starts_at_ms, expires_at_ms)
            && starts >= expires
        {
            faults.add("expires_at", "must be after starts_at");
        }
        let hold_seconds = fields.integer("hold_seconds", 1..=LONGEST_HOLD_SECONDS, &mut faults);
        let lock_seconds = fields.integer("lock_seconds", 1..=LONGEST_HOLD_SECONDS, &mut faults);
        let requires_lock = fields.flag("requires_lock", &mut faults).unwrap_or(false);
        let limits = limits(fields.object("limits", &mut faults), &mut faults);
        fields.end(&mut faults);
        faults.finish()?;
        let (Some(name), Some(Some(discount))) = (name, discount) else {
            // A null where something is required.
            return Err(Problem::invalid_field("name, discount", "are required"));
        };
        let described = Described { name, description, category, discount };
        let lock_seconds = small(lock_seconds.unwrap_or(DEFAULT_LOCK_SECONDS));
        let hold_seconds = hold_seconds.map(small);
        Ok(Self {
            id,
            described,
            starts_at_ms,
            expires_at_ms,
            hold_seconds,
            lock_seconds,
            requires_lock,
            limits,
        })
    }

    /// The id it will have, and the partition that follows from it.
    pub(crate) fn place(&self, partitions: i32) -> (String, i32) {
        let id = self.id.clone().unwrap_or_else(generated_id);
        let partition = partition_for(id.as_bytes(), partitions);
        (id, partition)
    }
}

fn discount(mut fields: Fields, faults: &mut Faults) -> Option<Discount> {
    let [has_kind, has_value] = ["type", "value"].map(|name| fields.has(name));
    let kind = fields.text("type", 1..=32, faults);
    let value = fields.text("value", 1..=32, faults);
    let currency = fields.text("currency", 1..=32, faults);
    let minimum_order = amount(&mut fields, "minimum_order", faults);
    let maximum_discount = amount(&mut fields, "maximum_discount", faults);
    if !has_kind {
        fields.missing("type", faults);
    }
    if !has_value {
        fields.missing("value", faults);
    }
    let fixed = match kind.as_deref() {
        Some(PERCENTAGE) | None => false,
        Some(FIXED_AMOUNT) => true,
        Some(_) => {
            faults.add(fields.path("type"), "must be PERCENTAGE or FIXED_AMOUNT");
            false
        }
    };
    if let Some(value) = &value {
        match money::parse(value) {
            Some(value) if value.is_zero() => faults.add(fields.path("value"), NOT_AN_AMOUNT),
            Some(percent) if !fixed && Some(percent) > money::parse("100") => {
                faults.add(fields.path("value"), "must be at most 100 per cent");
            }
            Some(_) => {}
            None => faults.add(fields.path("value"), NOT_AN_AMOUNT),
        }
    }
    if currency.as_deref().is_some_and(|currency| !is_currency(currency)) {
        faults.add(fields.path("currency"), "must be a currency of three capitals (ISO 4217)");
    }
    if currency.is_none() && (fixed || minimum_order.is_some() || maximum_discount.is_some()) {
        faults.add(fields.path("currency"), "is required where there are amounts");
    }
    fields.end(faults);
    Some(Discount { kind: kind?, value: value?, currency, minimum_order, maximum_discount })
}

const NOT_AN_AMOUNT: &str =
    "must be a positive decimal string like \"10.00\", at most 12 digits before the point and 4 behind it";

fn amount(fields: &mut Fields, name: &str, faults: &mut Faults) -> Option<String> {
    let text = fields.text(name, 1..=32, faults)?;
    if money::parse(&text).is_none_or(|amount| amount.is_zero()) {
        faults.add(fields.path(name), NOT_AN_AMOUNT);
    }
    Some(text)
}

fn limits(fields: Option<Fields>, faults: &mut Faults) -> Limits {
    let mut limits = Limits {
        claims_per_user: Some(1),
        redemptions_per_user: None,
        redemptions_per_code: Some(1),
        redemptions_total: None,
    };
    let Some(mut fields) = fields else { return limits };
    let mut set = |name: &'static str, limit: &mut Option<i32>| {
        // Absent keeps the default, null lifts the limit.
        if fields.has(name) {
            *limit = fields.integer(name, 1..=LARGEST_LIMIT, faults).map(small);
        }
    };
    set("claims_per_user", &mut limits.claims_per_user);
    set("redemptions_per_user", &mut limits.redemptions_per_user);
    set("redemptions_per_code", &mut limits.redemptions_per_code);
    limits.redemptions_total = fields.integer("redemptions_total", 1..=LARGEST_TOTAL, faults);
    if fields.object("per_day", faults).is_some() {
        // Taken and not kept would be worse than refused.
        faults.add(fields.path("per_day"), "is not offered yet");
    }
    fields.end(faults);
    limits
}

/// Within bounds that were checked.
fn small(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn generated_id() -> String {
    uuid::Uuid::from_u128(rand::random()).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(body: Value) -> String {
        NewCoupon::read(body).map_or_else(|problem| format!("{problem:?}"), |coupon| format!("{coupon:?}"))
    }

    #[test]
    fn a_small_coupon_gets_the_documented_defaults() {
        let body = json!({"name": "Spring", "discount": {"type": "PERCENTAGE", "value": "10.00"}});
        let coupon = NewCoupon::read(body).expect("it is valid");
        assert_eq!((coupon.limits.claims_per_user, coupon.limits.redemptions_per_code), (Some(1), Some(1)));
        assert_eq!((coupon.lock_seconds, coupon.requires_lock, coupon.hold_seconds), (300, false, None));
        let body = json!({"name": "Spring", "discount": {"type": "PERCENTAGE", "value": "10"},
            "limits": {"claims_per_user": null}});
        assert_eq!(NewCoupon::read(body).expect("it is valid").limits.claims_per_user, None);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let body = json!({"id": "-x", "name": "", "odd": 1, "starts_at": "2026-01-02T00:00:00Z",
            "expires_at": "2026-01-01T00:00:00Z", "hold_seconds": 0,
            "discount": {"type": "GIFT", "value": 10, "minimum_order": "-1"},
            "limits": {"claims_per_user": 0, "per_day": {}}});
        let found = faults(body);
        for field in [
            "\"id\"",
            "\"name\"",
            "\"odd\"",
            "\"expires_at\"",
            "\"hold_seconds\"",
            "\"discount.type\"",
            "\"discount.value\"",
            "\"discount.minimum_order\"",
            "\"discount.currency\"",
            "\"limits.claims_per_user\"",
            "\"limits.per_day\"",
        ] {
            assert!(found.contains(field), "{field} is missing in {found}");
        }
    }

    #[test]
    fn values_that_are_no_discount_are_refused() {
        for value in ["0", "-5", "100.01", "NaN", "1e2", "99999999999999999999"] {
            let body = json!({"name": "n", "discount": {"type": "PERCENTAGE", "value": value}});
            assert!(faults(body).contains("discount.value"), "{value}");
        }
        let body =
            json!({"name": "n", "discount": {"type": "FIXED_AMOUNT", "value": "150", "currency": "eur"}});
        assert!(faults(body).contains("discount.currency"));
        assert!(faults(json!({"name": "n"})).contains("discount"));
        assert!(faults(json!({"name": null, "discount": null})).contains("discount"));
    }

    #[test]
    fn what_was_accepted_can_be_computed_with() {
        let body = json!({"name": "n", "discount": {"type": "FIXED_AMOUNT", "value": "5", "currency": "EUR",
            "minimum_order": "20.00", "maximum_discount": "4.50"}});
        let discount = NewCoupon::read(body).expect("it is valid").described.discount;
        let rules = discount.rules().expect("it is a discount");
        let price = money::parse("20").map(|amount| rules.price(amount, "EUR"));
        assert_eq!(
            price.and_then(Result::ok).map(|price| price.discount.to_string()),
            Some("4.50".to_owned())
        );
        assert_eq!(Discount { value: "a lot".to_owned(), ..discount }.rules(), None);
    }
}
