//! `DELETE /v1/codes/{code}/claim`: a user returns a claimed code.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemas::kinds;

use super::code_requests;
use super::openapi::{ErrorResponses, RequestHeaders, RequestResponses, UserParameter, WaitParameter};
use crate::app::App;
use crate::http::problem::Problem;
use crate::requests::admission::InstanceAdmission;
use crate::requests::command::CommandPayload;
use crate::requests::context::RequestContext;

/// Return a claimed code.
///
/// The code goes back to stock and no longer counts for the user's claims. A locked code must be released first.
///
/// Reasons of a rejection: `code_unknown` (also for another user's code), `unprocessable` (a shared code),
/// `hold_lapsed`, `not_claimed`, `code_revoked`, `already_redeemed`, `already_locked`.
#[utoipa::path(
    delete, path = "/v1/codes/{code}/claim", tag = "requests",
    params(
        ("code" = String, Path, description = "The code, in any spelling"),
        UserParameter, WaitParameter, RequestHeaders,
    ),
    responses(RequestResponses, ErrorResponses),
)]
pub(crate) async fn return_code(
    State(app): State<Arc<App>>,
    _: InstanceAdmission,
    context: RequestContext,
) -> Result<Response, Problem> {
    let named = context.user_parameter()?;
    let user = context.caller.acts_for(named.as_deref())?;
    code_requests::submit(&app, &context, kinds::RETURN, user, CommandPayload::default()).await
}
