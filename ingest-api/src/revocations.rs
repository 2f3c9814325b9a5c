//! `DELETE /v1/codes/{code}`: an admin withdraws a leaked or wrong code for good.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemas::kinds;

use crate::app::App;
use crate::asked::Asked;
use crate::auth::Role;
use crate::openapi::{Refusals, RequestAnswers, RequestHeaders, WaitParameter};
use crate::problem::Problem;
use crate::room::Room;
use crate::said::Said;

/// Withdraw a code for good.
///
/// Whoever has it loses it; it is never stock again. The request is the admin's own: its outcome is read with the
/// admin's token.
///
/// Reasons of a rejection: `code_unknown`, `code_revoked`, `already_redeemed`.
#[utoipa::path(
    delete, path = "/v1/codes/{code}", tag = "codes",
    params(("code" = String, Path, description = "The code, however it is written"), WaitParameter, RequestHeaders),
    responses(RequestAnswers, Refusals),
)]
pub(crate) async fn revoke(State(app): State<Arc<App>>, _: Room, asked: Asked) -> Result<Response, Problem> {
    asked.caller.require(&[Role::Admin])?;
    asked.about_code(&app, kinds::REVOKE, &asked.caller.sub, Said::default()).await
}
