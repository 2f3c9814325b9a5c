//! `POST /v1/codes/{code}/redemptions` and `DELETE /v1/redemptions/{redemption_id}`: the final use of a code with an
//! order, and its roll back when the order is cancelled.
//!
//! The id of a redemption is the canonical id of its request, the same in every response and row. It is not secret and
//! has no tag: only services and admins can roll back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use coupon_core::ids::RequestId;
use schemas::kinds;
use utoipa::ToSchema;

use super::code_requests;
use super::openapi::{ErrorResponses, RequestHeaders, RequestResponses, UserParameter, WaitParameter};
use super::order_fields::{AMOUNT_CHARACTERS, ORDER_ID_CHARACTERS, amount_of, check_currency};
use crate::app::App;
use crate::auth::{Role, USER_ID_CHARACTERS};
use crate::catalogue::code_cache::coupon_of_redemption;
use crate::http::body::JsonBody;
use crate::http::problem::Problem;
use crate::http::validation::{FieldErrors, ObjectReader};
use crate::requests::admission::InstanceAdmission;
use crate::requests::command::{Command, CommandPayload};
use crate::requests::context::RequestContext;

/// A redemption.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; RedeemRequest reads it")]
pub(crate) struct RedeemBody {
    /// The order that the code is used for.
    #[schema(min_length = 1, max_length = 128)]
    order_id: String,
    /// The order's amount before the discount: a decimal string, no finer than the currency's smallest unit.
    #[schema(example = "129.90", pattern = r"^[0-9]{1,12}(\.[0-9]{1,4})?$")]
    order_amount: String,
    /// ISO 4217.
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: String,
    /// The user of the request; with a service's token only.
    #[schema(max_length = 256)]
    user_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct RedeemRequest {
    order_id: String,
    /// With the decimal places of its currency.
    order_amount: String,
    currency: String,
    user_id: Option<String>,
}

impl RedeemRequest {
    fn read(JsonBody(body): JsonBody) -> Result<Self, Problem> {
        let mut errors = FieldErrors::default();
        let mut object = ObjectReader::of(body)?;
        let order_id = object.required("order_id", ORDER_ID_CHARACTERS, &mut errors);
        let amount = object.required("order_amount", AMOUNT_CHARACTERS, &mut errors);
        let currency = object.required("currency", 1..=32, &mut errors);
        let user_id = object.line("user_id", USER_ID_CHARACTERS, &mut errors);
        object.end(&mut errors);
        if let Some(currency) = &currency {
            check_currency(currency, &mut errors);
        }
        let order_amount = amount.and_then(|amount| amount_of(&amount, currency.as_deref(), &mut errors));
        errors.finish()?;
        let (Some(order_id), Some(order_amount), Some(currency)) = (order_id, order_amount, currency) else {
            // Unreachable: every missing field has added an error.
            return Err(Problem::internal());
        };
        Ok(Self { order_id, order_amount, currency, user_id })
    }
}

/// Redeem a code with an order.
///
/// The outcome of an accepted request has the discount and the final price, as exact decimals. A shared code is
/// redeemed without a claim.
///
/// Reasons of a rejection: `code_unknown` (also for another user's code), `hold_lapsed`, `not_claimed`,
/// `code_revoked`, `ended`, `paused`, `not_started`, `code_expired`, `order_already_used`, `already_redeemed`,
/// `already_locked` (its lock names another order), `lock_lapsed`, `not_locked`, `currency_mismatch`,
/// `minimum_order_not_met`, `usage_limit_reached`; the first that applies.
#[utoipa::path(
    post, path = "/v1/codes/{code}/redemptions", tag = "requests",
    params(("code" = String, Path, description = "The code, in any spelling"), WaitParameter, RequestHeaders),
    request_body = RedeemBody,
    responses(RequestResponses, ErrorResponses),
)]
pub(crate) async fn redeem(
    State(app): State<Arc<App>>,
    _: InstanceAdmission,
    context: RequestContext,
    body: JsonBody,
) -> Result<Response, Problem> {
    let RedeemRequest { order_id, order_amount, currency, user_id } = RedeemRequest::read(body)?;
    let user = context.caller.acts_for(user_id.as_deref())?;
    let payload = CommandPayload {
        order_id: Some(order_id),
        order_amount: Some(order_amount),
        currency: Some(currency),
        ..CommandPayload::default()
    };
    code_requests::submit(&app, &context, kinds::REDEEM, user, payload).await
}

/// Roll back a redemption.
///
/// Once only. The code is claimed again by the user who redeemed it, with a fresh hold if the coupon has holds. The
/// request is the caller's own, or of the user that a service names.
///
/// Reasons of a rejection: `redemption_unknown`, `already_rolled_back`.
#[utoipa::path(
    delete, path = "/v1/redemptions/{redemption_id}", tag = "requests",
    params(
        ("redemption_id" = String, Path, description = "From the outcome of the redeem request"),
        UserParameter, WaitParameter, RequestHeaders,
    ),
    responses(RequestResponses, ErrorResponses),
)]
pub(crate) async fn roll_back(
    State(app): State<Arc<App>>,
    _: InstanceAdmission,
    context: RequestContext,
) -> Result<Response, Problem> {
    context.caller.require(&[Role::Service, Role::Admin])?;
    let named = context.user_parameter()?;
    let user = named.as_deref().unwrap_or(&context.caller.sub);
    let invalid =
        |_| Problem::invalid_field("redemption_id", "invalid id; send the redemption_id of an outcome");
    let id = RequestId::parse(&context.name).map_err(invalid)?;
    // Normalised: two spellings of one redemption would be two targets of an Idempotency-Key.
    let target = id.to_string();
    let coupon_id = coupon_of_redemption(id, &app.query_pool).await?;
    let coupon_id = coupon_id.as_deref().unwrap_or(&target);
    let payload = CommandPayload { redemption_id: Some(target.clone()), ..CommandPayload::default() };
    let command = Command { kind: kinds::ROLLBACK, user, coupon_id, target: &target, payload };
    app.requests.submit(&context, command).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<RedeemRequest, String> {
        RedeemRequest::read(JsonBody(body)).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn an_amount_is_normalised_to_the_decimal_places_of_its_currency() {
        let amount = |amount: &str, currency: &str| {
            let body = json!({"order_id": "o", "order_amount": amount, "currency": currency});
            read(body).map(|request| request.order_amount).expect("an amount")
        };
        assert_eq!(amount("129.9", "EUR"), "129.90");
        assert_eq!(amount("129.9000", "EUR"), "129.90");
        assert_eq!(amount("0", "EUR"), "0.00");
        assert_eq!(amount("007", "JPY"), "7");
        assert_eq!(amount("1.5", "KWD"), "1.500");
        assert_eq!(amount("999999999999.99", "EUR"), "999999999999.99");
    }

    #[test]
    fn an_invalid_amount_or_currency_is_rejected_by_its_field() {
        let amounts = [
            json!("-1"),
            json!("-0"),
            json!("+1"),
            json!("1e3"),
            json!("NaN"),
            json!("inf"),
            json!("1,5"),
            json!(""),
            json!(" 1"),
            json!("1 "),
            json!("1."),
            json!(".5"),
            json!("1.005"),
            json!("1.00000"),
            json!("1000000000000"),
            json!("9".repeat(100_000)),
            json!("١"),
            json!(12.5),
            json!(12),
            json!(null),
            json!(["1"]),
        ];
        for amount in amounts {
            let rejected = read(json!({"order_id": "o", "order_amount": amount, "currency": "EUR"}));
            assert!(rejected.is_err_and(|problem| problem.contains("\"order_amount\"")), "{amount}");
        }
        for currency in [json!("eur"), json!("EURO"), json!("E"), json!("€€€"), json!(978), json!(null)]
        {
            let rejected = read(json!({"order_id": "o", "order_amount": "1", "currency": currency}));
            let rejected = rejected.expect_err("an invalid currency");
            assert!(
                rejected.contains("\"currency\"") && !rejected.contains("\"order_amount\""),
                "{rejected}"
            );
        }
        assert!(read(json!({"order_id": "o", "order_amount": "1.5", "currency": "JPY"})).is_err());
    }

    #[test]
    fn every_invalid_field_is_reported_together() {
        let found = read(json!({"order_amount": "x", "currency": "x", "odd": 1, "user_id": ""}));
        let found = found.expect_err("every field is invalid");
        for field in ["\"order_id\"", "\"order_amount\"", "\"currency\"", "\"odd\"", "\"user_id\""] {
            assert!(found.contains(field), "{field} is missing in {found}");
        }
    }
}
