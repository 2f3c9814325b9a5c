//! `DELETE /v1/codes/{code}`: an admin revokes a leaked or wrong code.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemas::kinds;

use super::code_requests;
use super::openapi::{ErrorResponses, RequestHeaders, RequestResponses, WaitParameter};
use crate::app::App;
use crate::auth::Role;
use crate::http::problem::Problem;
use crate::requests::admission::InstanceAdmission;
use crate::requests::command::CommandPayload;
use crate::requests::context::RequestContext;

/// Revoke a code.
///
/// A user who has claimed it loses it, and it never goes back to stock. The request is the admin's own: its outcome is
/// read with the admin's token.
///
/// Reasons of a rejection: `code_unknown`, `code_revoked`, `already_redeemed`.
#[utoipa::path(
    delete, path = "/v1/codes/{code}", tag = "codes",
    params(("code" = String, Path, description = "The code, in any spelling"), WaitParameter, RequestHeaders),
    responses(RequestResponses, ErrorResponses),
)]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    _: InstanceAdmission,
    context: RequestContext,
) -> Result<Response, Problem> {
    context.caller.require(&[Role::Admin])?;
    code_requests::submit(&app, &context, kinds::REVOKE, &context.caller.sub, CommandPayload::default()).await
}
