//! `POST` and `DELETE /v1/codes/{code}/lock`: a user locks a claimed code for a checkout, and releases it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemas::kinds;
use utoipa::ToSchema;

use super::code_requests;
use super::openapi::{ErrorResponses, RequestHeaders, RequestResponses, UserParameter, WaitParameter};
use super::order_fields::ORDER_ID_CHARACTERS;
use crate::app::App;
use crate::auth::USER_ID_CHARACTERS;
use crate::http::body::JsonBody;
use crate::http::problem::Problem;
use crate::http::validation::{FieldErrors, ObjectReader};
use crate::requests::admission::InstanceAdmission;
use crate::requests::command::CommandPayload;
use crate::requests::context::RequestContext;

/// A lock. `{}` locks the code for any order.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; LockRequest reads it")]
pub(crate) struct LockBody {
    /// Only this order can redeem the code while it is locked.
    #[schema(min_length = 1, max_length = 128)]
    order_id: Option<String>,
    /// The user of the request; with a service's token only.
    #[schema(max_length = 256)]
    user_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct LockRequest {
    order_id: Option<String>,
    user_id: Option<String>,
}

impl LockRequest {
    fn read(JsonBody(body): JsonBody) -> Result<Self, Problem> {
        let mut errors = FieldErrors::default();
        let mut object = ObjectReader::of(body)?;
        let order_id = object.line("order_id", ORDER_ID_CHARACTERS, &mut errors);
        let user_id = object.line("user_id", USER_ID_CHARACTERS, &mut errors);
        object.end(&mut errors);
        errors.finish()?;
        Ok(Self { order_id, user_id })
    }
}

/// Lock a code for a checkout.
///
/// The lock lasts for the coupon's `lock_seconds`; meanwhile the code's hold does not lapse.
///
/// Reasons of a rejection: `code_unknown` (also for another user's code), `unprocessable` (a shared code),
/// `hold_lapsed`, `not_claimed`, `code_revoked`, `ended`, `paused`, `not_started`, `code_expired`,
/// `already_redeemed`, `already_locked`.
#[utoipa::path(
    post, path = "/v1/codes/{code}/lock", tag = "requests",
    params(("code" = String, Path, description = "The code, in any spelling"), WaitParameter, RequestHeaders),
    request_body = LockBody,
    responses(RequestResponses, ErrorResponses),
)]
pub(crate) async fn lock(
    State(app): State<Arc<App>>,
    _: InstanceAdmission,
    context: RequestContext,
    body: JsonBody,
) -> Result<Response, Problem> {
    let LockRequest { order_id, user_id } = LockRequest::read(body)?;
    let user = context.caller.acts_for(user_id.as_deref())?;
    let payload = CommandPayload { order_id, ..CommandPayload::default() };
    code_requests::submit(&app, &context, kinds::LOCK, user, payload).await
}

/// Release a lock.
///
/// If the code's hold has ended meanwhile, the code goes back to stock (state `RETURNED`).
///
/// Reasons of a rejection: `code_unknown` (also for another user's code), `unprocessable` (a shared code),
/// `hold_lapsed`, `not_claimed`, `code_revoked`, `already_redeemed`, `lock_lapsed`, `not_locked`.
#[utoipa::path(
    delete, path = "/v1/codes/{code}/lock", tag = "requests",
    params(
        ("code" = String, Path, description = "The code, in any spelling"),
        UserParameter, WaitParameter, RequestHeaders,
    ),
    responses(RequestResponses, ErrorResponses),
)]
pub(crate) async fn unlock(
    State(app): State<Arc<App>>,
    _: InstanceAdmission,
    context: RequestContext,
) -> Result<Response, Problem> {
    let named = context.user_parameter()?;
    let user = context.caller.acts_for(named.as_deref())?;
    code_requests::submit(&app, &context, kinds::UNLOCK, user, CommandPayload::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lock_has_an_optional_order_and_no_unknown_field() {
        let read = |body| LockRequest::read(JsonBody(body)).map_err(|problem| problem.status().as_u16());
        assert_eq!(read(json!({})), Ok(LockRequest { order_id: None, user_id: None }));
        let longest = "x".repeat(128);
        assert_eq!(read(json!({"order_id": longest})).map(|lock| lock.order_id), Ok(Some(longest.clone())));
        for wrong in [json!(""), json!(5), json!("a\nb"), json!("a\u{0}"), json!(longest + "x")] {
            assert_eq!(read(json!({"order_id": wrong})), Err(422), "{wrong}");
        }
        assert_eq!(read(json!({"seconds": 5})), Err(422));
    }
}
