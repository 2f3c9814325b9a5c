//! `POST /v1/codes/{code}/redemptions` and `DELETE /v1/redemptions/{redemption_id}`: the final use of a code with an
//! order, and its undoing when the order is cancelled.
//!
//! A redemption is known by the canonical id of the request that made it: the same in every answer and every row. It
//! is no secret, and needs no tag: only services and admins can roll back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use coupon_core::ids::RequestId;
use schemas::kinds;
use utoipa::ToSchema;

use crate::app::App;
use crate::asked::{Asked, Target};
use crate::auth::{Role, USER_ID_CHARACTERS};
use crate::extract::JsonBody;
use crate::fields::{Faults, Fields};
use crate::known_codes::coupon_of_redemption;
use crate::openapi::{Refusals, RequestAnswers, RequestHeaders, UserParameter, WaitParameter};
use crate::orders::{AMOUNT_CHARACTERS, ORDER_ID_CHARACTERS, amount_of, check_currency};
use crate::problem::Problem;
use crate::room::Room;
use crate::said::Said;

/// A redemption.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; RedeemRequest is what is read")]
pub(crate) struct RedeemBody {
    /// The order that the code pays for.
    #[schema(min_length = 1, max_length = 128)]
    order_id: String,
    /// What the order comes to before the discount: a decimal string, no finer than the currency's smallest unit.
    #[schema(example = "129.90", pattern = r"^[0-9]{1,12}(\.[0-9]{1,4})?$")]
    order_amount: String,
    /// ISO 4217.
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: String,
    /// For whom; a service's token only.
    #[schema(max_length = 256)]
    user_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct RedeemRequest {
    order_id: String,
    /// With the digits of its currency.
    order_amount: String,
    currency: String,
    user_id: Option<String>,
}

impl RedeemRequest {
    fn read(JsonBody(body): JsonBody) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body)?;
        let order_id = fields.required("order_id", ORDER_ID_CHARACTERS, &mut faults);
        let amount = fields.required("order_amount", AMOUNT_CHARACTERS, &mut faults);
        let currency = fields.required("currency", 1..=32, &mut faults);
        let user_id = fields.line("user_id", USER_ID_CHARACTERS, &mut faults);
        fields.end(&mut faults);
        if let Some(currency) = &currency {
            check_currency(currency, &mut faults);
        }
        let order_amount = amount.and_then(|amount| amount_of(&amount, currency.as_deref(), &mut faults));
        faults.finish()?;
        let (Some(order_id), Some(order_amount), Some(currency)) = (order_id, order_amount, currency) else {
            // What is missing was named.
            return Err(Problem::internal());
        };
        Ok(Self { order_id, order_amount, currency, user_id })
    }
}

/// Redeem a code with an order.
///
/// Accepted, the outcome says what the code takes off the order and the final price, as exact decimals. A code that is
/// shared by many is redeemed without a claim.
///
/// Reasons of a rejection: `code_unknown` (also for a code of somebody else), `hold_lapsed`, `not_claimed`,
/// `code_revoked`, `ended`, `paused`, `not_started`, `code_expired`, `order_already_used`, `already_redeemed`,
/// `already_locked` (its lock named another order), `lock_lapsed`, `not_locked`, `currency_mismatch`,
/// `minimum_order_not_met`, `usage_limit_reached`; the first that applies.
#[utoipa::path(
    post, path = "/v1/codes/{code}/redemptions", tag = "requests",
    params(("code" = String, Path, description = "The code, however it is written"), WaitParameter, RequestHeaders),
    request_body = RedeemBody,
    responses(RequestAnswers, Refusals),
)]
pub(crate) async fn redeem(
    State(app): State<Arc<App>>,
    _: Room,
    asked: Asked,
    body: JsonBody,
) -> Result<Response, Problem> {
    let RedeemRequest { order_id, order_amount, currency, user_id } = RedeemRequest::read(body)?;
    let user = asked.caller.acts_for(user_id.as_deref())?;
    let said = Said {
        order_id: Some(order_id),
        order_amount: Some(order_amount),
        currency: Some(currency),
        ..Said::default()
    };
    asked.about_code(&app, kinds::REDEEM, user, said).await
}

/// Roll a redemption back.
///
/// Once only; the code is claimed again by whoever redeemed it, with a fresh hold if the coupon has holds. The request
/// is the caller's own, or of the user that a service names.
///
/// Reasons of a rejection: `redemption_unknown`, `already_rolled_back`.
#[utoipa::path(
    delete, path = "/v1/redemptions/{redemption_id}", tag = "requests",
    params(
        ("redemption_id" = String, Path, description = "As the outcome of the redemption told it"),
        UserParameter, WaitParameter, RequestHeaders,
    ),
    responses(RequestAnswers, Refusals),
)]
pub(crate) async fn roll_back(
    State(app): State<Arc<App>>,
    _: Room,
    asked: Asked,
) -> Result<Response, Problem> {
    asked.caller.require(&[Role::Service, Role::Admin])?;
    let named = asked.named_user()?;
    let user = named.as_deref().unwrap_or(&asked.caller.sub);
    let no_id = |_| Problem::invalid_field("redemption_id", "must be a redemption's id as it was told");
    let id = RequestId::parse(&asked.named).map_err(no_id)?;
    // Told back in one form only: two spellings of one redemption would be two targets of a key.
    let name = id.to_string();
    let coupon_id = coupon_of_redemption(id, &app.questions).await?;
    let target = Target { coupon_id: coupon_id.as_deref().unwrap_or(&name), name: &name };
    let said = Said { redemption_id: Some(name.clone()), ..Said::default() };
    asked.submit(&app, kinds::ROLLBACK, user, target, said).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<RedeemRequest, String> {
        RedeemRequest::read(JsonBody(body)).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn an_amount_gets_the_digits_of_its_currency() {
        let amount = |amount: &str, currency: &str| {
            let body = json!({"order_id": "o", "order_amount": amount, "currency": currency});
            read(body).map(|request| request.order_amount).expect("it is an amount")
        };
        assert_eq!(amount("129.9", "EUR"), "129.90");
        assert_eq!(amount("129.9000", "EUR"), "129.90");
        assert_eq!(amount("0", "EUR"), "0.00");
        assert_eq!(amount("007", "JPY"), "7");
        assert_eq!(amount("1.5", "KWD"), "1.500");
        assert_eq!(amount("999999999999.99", "EUR"), "999999999999.99");
    }

    #[test]
    fn what_is_no_amount_is_refused_by_name() {
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
            let refused = read(json!({"order_id": "o", "order_amount": amount, "currency": "EUR"}));
            assert!(refused.is_err_and(|problem| problem.contains("\"order_amount\"")), "{amount}");
        }
        for currency in [json!("eur"), json!("EURO"), json!("E"), json!("€€€"), json!(978), json!(null)]
        {
            let refused = read(json!({"order_id": "o", "order_amount": "1", "currency": currency}));
            let refused = refused.expect_err("it is no currency");
            assert!(refused.contains("\"currency\"") && !refused.contains("\"order_amount\""), "{refused}");
        }
        assert!(read(json!({"order_id": "o", "order_amount": "1.5", "currency": "JPY"})).is_err());
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let found = read(json!({"order_amount": "x", "currency": "x", "odd": 1, "user_id": ""}));
        let found = found.expect_err("nothing is right");
        for field in ["\"order_id\"", "\"order_amount\"", "\"currency\"", "\"odd\"", "\"user_id\""] {
            assert!(found.contains(field), "{field} is missing in {found}");
        }
    }
}
