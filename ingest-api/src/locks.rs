//! `POST` and `DELETE /v1/codes/{code}/lock`: a user reserves a code of their own for a checkout, and releases it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemas::kinds;
use utoipa::ToSchema;

use crate::app::App;
use crate::asked::Asked;
use crate::auth::USER_ID_CHARACTERS;
use crate::extract::JsonBody;
use crate::fields::{Faults, Fields};
use crate::openapi::{Refusals, RequestAnswers, RequestHeaders, UserParameter, WaitParameter};
use crate::orders::ORDER_ID_CHARACTERS;
use crate::problem::Problem;
use crate::room::Room;
use crate::said::Said;

/// A lock. `{}` locks the code for whatever order it will be redeemed with.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; LockRequest is what is read")]
pub(crate) struct LockBody {
    /// Only this order can redeem the code while it is locked.
    #[schema(min_length = 1, max_length = 128)]
    order_id: Option<String>,
    /// For whom; a service's token only.
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
        let mut faults = Faults::default();
        let mut fields = Fields::of(body)?;
        let order_id = fields.line("order_id", ORDER_ID_CHARACTERS, &mut faults);
        let user_id = fields.line("user_id", USER_ID_CHARACTERS, &mut faults);
        fields.end(&mut faults);
        faults.finish()?;
        Ok(Self { order_id, user_id })
    }
}

/// Lock a code for a checkout.
///
/// The lock lasts for the coupon's `lock_seconds`; while it does, the code's hold does not lapse.
///
/// Reasons of a rejection: `code_unknown` (also for a code of somebody else), `unprocessable` (a code that is shared
/// by many), `hold_lapsed`, `not_claimed`, `code_revoked`, `ended`, `paused`, `not_started`, `code_expired`,
/// `already_redeemed`, `already_locked`.
#[utoipa::path(
    post, path = "/v1/codes/{code}/lock", tag = "requests",
    params(("code" = String, Path, description = "The code, however it is written"), WaitParameter, RequestHeaders),
    request_body = LockBody,
    responses(RequestAnswers, Refusals),
)]
pub(crate) async fn lock(
    State(app): State<Arc<App>>,
    _: Room,
    asked: Asked,
    body: JsonBody,
) -> Result<Response, Problem> {
    let LockRequest { order_id, user_id } = LockRequest::read(body)?;
    let user = asked.caller.acts_for(user_id.as_deref())?;
    asked.about_code(&app, kinds::LOCK, user, Said { order_id, ..Said::default() }).await
}

/// Release a lock.
///
/// If the code's hold has ended meanwhile, the code goes back to stock (state `RETURNED`).
///
/// Reasons of a rejection: `code_unknown` (also for a code of somebody else), `unprocessable` (a code that is shared
/// by many), `hold_lapsed`, `not_claimed`, `code_revoked`, `already_redeemed`, `lock_lapsed`, `not_locked`.
#[utoipa::path(
    delete, path = "/v1/codes/{code}/lock", tag = "requests",
    params(
        ("code" = String, Path, description = "The code, however it is written"),
        UserParameter, WaitParameter, RequestHeaders,
    ),
    responses(RequestAnswers, Refusals),
)]
pub(crate) async fn unlock(State(app): State<Arc<App>>, _: Room, asked: Asked) -> Result<Response, Problem> {
    let named = asked.named_user()?;
    let user = asked.caller.acts_for(named.as_deref())?;
    asked.about_code(&app, kinds::UNLOCK, user, Said::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lock_may_name_an_order_and_says_nothing_else() {
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
