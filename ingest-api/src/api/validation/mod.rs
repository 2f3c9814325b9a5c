//! `GET /v1/codes/{code}/validation`: whether a user could redeem a code now, and with which discount. Reads Postgres
//! and changes nothing.
//!
//! The [checks] and their order are those of a redeem. A deadline that has passed counts as lapsed, even before the
//! owner of the partition has written it. The response is valid for this moment: only a redeem decides.

mod checks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use coupon_core::codes::CodeKey;
use coupon_core::money;
use coupon_core::words::Reason;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::code_requests::code_in_path;
use super::openapi::{ErrorResponses, UserParameter};
use super::order_fields::{amount_of, check_currency};
use crate::app::App;
use crate::auth::Caller;
use crate::db::validation::{self, CodeSnapshot};
use crate::http::parameters::{Parameters, PathName};
use crate::http::problem::Problem;
use crate::http::responses::json;
use crate::http::validation::FieldErrors;
use crate::requests::context::user_parameter;

/// The order with which the code would be redeemed, as far as the client has sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Order {
    amount: Option<String>,
    currency: Option<String>,
}

impl Order {
    fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let mut errors = FieldErrors::default();
        let amount = parameters.get("order_amount")?.map(str::to_owned);
        let currency = parameters.get("currency")?.map(str::to_owned);
        if let Some(currency) = &currency {
            check_currency(currency, &mut errors);
        }
        if let Some(amount) = &amount {
            amount_of(amount, currency.as_deref(), &mut errors);
        }
        errors.finish()?;
        Ok(Self { amount, currency })
    }

    /// The price of the order; `None` without an amount.
    fn price(&self, discount: &money::Discount) -> Result<Result<Option<Price>, Reason>, Problem> {
        let Some(amount) = &self.amount else {
            let differs =
                self.currency.as_deref().zip(discount.currency.as_deref()).is_some_and(|(a, b)| a != b);
            return Ok(if differs { Err(Reason::CurrencyMismatch) } else { Ok(None) });
        };
        let required =
            || Problem::invalid_field("currency", "is required: this coupon is valid for any currency");
        let currency = self.currency.as_deref().or(discount.currency.as_deref()).ok_or_else(required)?;
        let mut errors = FieldErrors::default();
        let amount = amount_of(amount, Some(currency), &mut errors);
        errors.finish()?;
        let (Some(order_amount), Some(exact)) = (amount.clone(), amount.as_deref().and_then(money::parse))
        else {
            return Err(Problem::internal());
        };
        Ok(discount.price(exact, currency).map(|price| {
            Some(Price {
                order_amount,
                discount: price.discount.to_string(),
                final_price: price.final_price.to_string(),
                currency: currency.to_owned(),
            })
        }))
    }
}

/// The price of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Priced)]
struct Price {
    #[schema(example = "129.90")]
    order_amount: String,
    #[schema(example = "12.99")]
    discount: String,
    #[schema(example = "116.91")]
    final_price: String,
    #[schema(example = "EUR")]
    currency: String,
}

/// Whether a code could be redeemed now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Validation)]
pub(crate) struct ValidationView {
    valid: bool,
    /// The reason with which a redeem would be rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// As shown to people; normalised for an unknown code.
    code: String,
    /// Absent for an unknown code.
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon_id: Option<String>,
    #[serde(flatten)]
    price: Option<Price>,
}

impl ValidationView {
    /// The same response for an unknown code and another user's code.
    fn unknown(code: &CodeKey) -> Self {
        let code = code.as_str().to_owned();
        let reason = Some(Reason::CodeUnknown.as_str());
        Self { valid: false, reason, code, coupon_id: None, price: None }
    }

    fn of(code: &CodeKey, snapshot: CodeSnapshot, order: &Order) -> Result<Self, Problem> {
        let checked = match snapshot.check_usable() {
            Err(Reason::CodeUnknown) => return Ok(Self::unknown(code)),
            Err(reason) => Err(reason),
            Ok(()) => {
                let rules = snapshot.definition.0.discount.rules().ok_or_else(|| {
                    tracing::error!(coupon_id = snapshot.coupon_id, "stored discount is invalid");
                    Problem::internal()
                })?;
                order.price(&rules)?.and_then(|price| snapshot.check_limits().map(|()| price))
            }
        };
        let (reason, price) = match checked {
            Ok(price) => (None, price),
            Err(reason) => (Some(reason.as_str()), None),
        };
        Ok(Self {
            valid: reason.is_none(),
            reason,
            code: snapshot.code,
            coupon_id: Some(snapshot.coupon_id),
            price,
        })
    }
}

/// The order with which the code would be redeemed.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters in the OpenAPI document; Order reads them")]
pub(crate) struct OrderParameters {
    /// A decimal string; without it no discount is computed.
    #[param(example = "129.90")]
    order_amount: Option<String>,
    /// ISO 4217; the coupon's currency if absent. Required with an amount if the coupon has no currency.
    #[param(example = "EUR")]
    currency: Option<String>,
}

/// Validate a code.
///
/// Whether this user could redeem the code now, by the checks of a redeem in their order, and the discount. Changes and
/// reserves nothing: only a redeem decides.
#[utoipa::path(
    get, path = "/v1/codes/{code}/validation", tag = "codes",
    params(
        ("code" = String, Path, description = "The code, in any spelling"),
        OrderParameters, UserParameter,
    ),
    responses((status = 200, description = "Valid, or the reason why not", body = ValidationView), ErrorResponses),
)]
pub(crate) async fn validate(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathName(name): PathName,
    uri: Uri,
) -> Result<Response, Problem> {
    let parameters = Parameters::of(&uri)?;
    let named = user_parameter(&parameters)?;
    let user = caller.acts_for(named.as_deref())?;
    let code = code_in_path(&name)?;
    let order = Order::read(&parameters)?;
    let snapshot = app.query("validating a code", validation::snapshot(&app.query_pool, &code, user)).await?;
    let view = match snapshot {
        Some(snapshot) => ValidationView::of(&code, snapshot, &order)?,
        None => ValidationView::unknown(&code),
    };
    Ok(json(StatusCode::OK, &view))
}
