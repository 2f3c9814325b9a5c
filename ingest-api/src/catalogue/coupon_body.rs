//! The body that creates a coupon. Reading it reports every invalid field.

use coupon_core::money::{self, is_currency};
use schemas::partition_for;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::problem::Problem;
use crate::http::validation::{FieldErrors, ObjectReader};
use crate::model::coupon::{
    Description, Discount, FIXED_AMOUNT, Limits, NewCoupon, PERCENTAGE, is_coupon_id,
};

const MAX_HOLD_SECONDS: i64 = 30 * 24 * 3600;
const MAX_LIMIT: i64 = 1_000_000;
const MAX_TOTAL: i64 = 1_000_000_000_000;
const DEFAULT_LOCK_SECONDS: i64 = 300;

const INVALID_AMOUNT: &str = "must be a positive decimal string such as \"10.00\", with at most 12 integer digits \
                              and 4 decimal places";

/// A new coupon.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; NewCoupon::read reads it")]
pub(crate) struct CouponBody {
    /// Letters, digits, `.`, `_` and `-`, at most 64; generated if absent.
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
    /// Seconds after which an unused claim goes back to stock; never if absent.
    hold_seconds: Option<i32>,
    /// Duration of a lock in seconds.
    #[schema(default = 300)]
    lock_seconds: Option<i32>,
    #[schema(default = false)]
    requires_lock: Option<bool>,
    limits: Option<Limits>,
}

impl NewCoupon {
    /// Reads a body.
    ///
    /// # Errors
    /// 422 with every invalid field.
    pub(crate) fn read(body: Value) -> Result<Self, Problem> {
        let mut errors = FieldErrors::default();
        let mut object = ObjectReader::of(body)?;
        let id = read_id(&mut object, &mut errors);
        let has_name = object.has("name");
        let name = object.text("name", 1..=200, &mut errors);
        if !has_name {
            object.missing("name", &mut errors);
        }
        let description = object.text("description", 0..=2_000, &mut errors);
        let category = object.text("category", 1..=64, &mut errors);
        let has_discount = object.has("discount");
        let discount = object.object("discount", &mut errors).map(|inner| read_discount(inner, &mut errors));
        if !has_discount {
            object.missing("discount", &mut errors);
        }
        let (starts_at_ms, expires_at_ms) = read_window(&mut object, &mut errors);
        let hold_seconds = object.integer("hold_seconds", 1..=MAX_HOLD_SECONDS, &mut errors);
        let lock_seconds = object.integer("lock_seconds", 1..=MAX_HOLD_SECONDS, &mut errors);
        let requires_lock = object.flag("requires_lock", &mut errors).unwrap_or(false);
        let limits = read_limits(object.object("limits", &mut errors), &mut errors);
        object.end(&mut errors);
        errors.finish()?;
        let (Some(name), Some(Some(discount))) = (name, discount) else {
            // A required field is null.
            return Err(Problem::invalid_field("name, discount", "are required"));
        };
        Ok(Self {
            id,
            description: Description { name, description, category, discount },
            starts_at_ms,
            expires_at_ms,
            hold_seconds: hold_seconds.map(small),
            lock_seconds: small(lock_seconds.unwrap_or(DEFAULT_LOCK_SECONDS)),
            requires_lock,
            limits,
        })
    }

    /// The coupon's id, generated if the body has none, and the partition that follows from it.
    pub(crate) fn id_and_partition(&self, partitions: i32) -> (String, i32) {
        let id = self.id.clone().unwrap_or_else(generated_id);
        let partition = partition_for(id.as_bytes(), partitions);
        (id, partition)
    }
}

fn read_id(object: &mut ObjectReader, errors: &mut FieldErrors) -> Option<String> {
    let id = object.text("id", 1..=64, errors);
    if id.as_deref().is_some_and(|id| !is_coupon_id(id)) {
        errors.add(
            "id",
            "must begin with a letter or digit and contain only letters, digits, '.', '_' and '-'",
        );
    }
    id
}

fn read_window(object: &mut ObjectReader, errors: &mut FieldErrors) -> (Option<i64>, Option<i64>) {
    let starts_at_ms = object.time("starts_at", errors);
    let expires_at_ms = object.time("expires_at", errors);
    if let (Some(starts), Some(expires)) = (starts_at_ms, expires_at_ms)
        && starts >= expires
    {
        errors.add("expires_at", "must be after starts_at");
    }
    (starts_at_ms, expires_at_ms)
}

fn read_discount(mut object: ObjectReader, errors: &mut FieldErrors) -> Option<Discount> {
    let [has_kind, has_value] = ["type", "value"].map(|name| object.has(name));
    let kind = object.text("type", 1..=32, errors);
    let value = object.text("value", 1..=32, errors);
    let currency = object.text("currency", 1..=32, errors);
    let minimum_order = read_amount(&mut object, "minimum_order", errors);
    let maximum_discount = read_amount(&mut object, "maximum_discount", errors);
    if !has_kind {
        object.missing("type", errors);
    }
    if !has_value {
        object.missing("value", errors);
    }
    let fixed = match kind.as_deref() {
        Some(PERCENTAGE) | None => false,
        Some(FIXED_AMOUNT) => true,
        Some(_) => {
            errors.add(object.path("type"), "must be PERCENTAGE or FIXED_AMOUNT");
            false
        }
    };
    if let Some(value) = &value {
        match money::parse(value) {
            Some(value) if value.is_zero() => errors.add(object.path("value"), INVALID_AMOUNT),
            Some(percent) if !fixed && Some(percent) > money::parse("100") => {
                errors.add(object.path("value"), "must be at most 100 per cent");
            }
            Some(_) => {}
            None => errors.add(object.path("value"), INVALID_AMOUNT),
        }
    }
    if currency.as_deref().is_some_and(|currency| !is_currency(currency)) {
        errors.add(object.path("currency"), "must be an ISO 4217 code of three capital letters");
    }
    if currency.is_none() && (fixed || minimum_order.is_some() || maximum_discount.is_some()) {
        errors.add(object.path("currency"), "is required with an amount");
    }
    object.end(errors);
    Some(Discount { kind: kind?, value: value?, currency, minimum_order, maximum_discount })
}

fn read_amount(object: &mut ObjectReader, name: &str, errors: &mut FieldErrors) -> Option<String> {
    let text = object.text(name, 1..=32, errors)?;
    if money::parse(&text).is_none_or(|amount| amount.is_zero()) {
        errors.add(object.path(name), INVALID_AMOUNT);
    }
    Some(text)
}

fn read_limits(object: Option<ObjectReader>, errors: &mut FieldErrors) -> Limits {
    let mut limits = Limits {
        claims_per_user: Some(1),
        redemptions_per_user: None,
        redemptions_per_code: Some(1),
        redemptions_total: None,
    };
    let Some(mut object) = object else { return limits };
    let mut set = |name: &'static str, limit: &mut Option<i32>| {
        // An absent field keeps the default, null removes the limit.
        if object.has(name) {
            *limit = object.integer(name, 1..=MAX_LIMIT, errors).map(small);
        }
    };
    set("claims_per_user", &mut limits.claims_per_user);
    set("redemptions_per_user", &mut limits.redemptions_per_user);
    set("redemptions_per_code", &mut limits.redemptions_per_code);
    limits.redemptions_total = object.integer("redemptions_total", 1..=MAX_TOTAL, errors);
    if object.object("per_day", errors).is_some() {
        // A limit that is accepted and not enforced would be worse than an error.
        errors.add(object.path("per_day"), "is not supported yet");
    }
    object.end(errors);
    limits
}

/// Converts a number within bounds that were checked.
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

    fn errors(body: Value) -> String {
        NewCoupon::read(body).map_or_else(|problem| format!("{problem:?}"), |coupon| format!("{coupon:?}"))
    }

    #[test]
    fn a_small_coupon_gets_the_documented_defaults() {
        let body = json!({"name": "Spring", "discount": {"type": "PERCENTAGE", "value": "10.00"}});
        let coupon = NewCoupon::read(body).expect("a valid coupon");
        assert_eq!((coupon.limits.claims_per_user, coupon.limits.redemptions_per_code), (Some(1), Some(1)));
        assert_eq!((coupon.lock_seconds, coupon.requires_lock, coupon.hold_seconds), (300, false, None));
        let body = json!({"name": "Spring", "discount": {"type": "PERCENTAGE", "value": "10"},
            "limits": {"claims_per_user": null}});
        assert_eq!(NewCoupon::read(body).expect("a valid coupon").limits.claims_per_user, None);
    }

    #[test]
    fn every_invalid_field_is_reported_together() {
        let body = json!({"id": "-x", "name": "", "odd": 1, "starts_at": "2026-01-02T00:00:00Z",
            "expires_at": "2026-01-01T00:00:00Z", "hold_seconds": 0,
            "discount": {"type": "GIFT", "value": 10, "minimum_order": "-1"},
            "limits": {"claims_per_user": 0, "per_day": {}}});
        let found = errors(body);
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
    fn an_invalid_discount_is_rejected() {
        for value in ["0", "-5", "100.01", "NaN", "1e2", "99999999999999999999"] {
            let body = json!({"name": "n", "discount": {"type": "PERCENTAGE", "value": value}});
            assert!(errors(body).contains("discount.value"), "{value}");
        }
        let body =
            json!({"name": "n", "discount": {"type": "FIXED_AMOUNT", "value": "150", "currency": "eur"}});
        assert!(errors(body).contains("discount.currency"));
        assert!(errors(json!({"name": "n"})).contains("discount"));
        assert!(errors(json!({"name": null, "discount": null})).contains("discount"));
    }

    #[test]
    fn an_accepted_discount_can_be_computed_with() {
        let body = json!({"name": "n", "discount": {"type": "FIXED_AMOUNT", "value": "5", "currency": "EUR",
            "minimum_order": "20.00", "maximum_discount": "4.50"}});
        let discount = NewCoupon::read(body).expect("a valid coupon").description.discount;
        assert!(discount.rules().is_some());
    }
}
