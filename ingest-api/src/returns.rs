//! `DELETE /v1/codes/{code}/claim`: a user gives a claimed code back.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use schemas::kinds;

use crate::app::App;
use crate::asked::Asked;
use crate::openapi::{Refusals, RequestAnswers, RequestHeaders, UserParameter, WaitParameter};
use crate::problem::Problem;
use crate::room::Room;
use crate::said::Said;

/// Give a claimed code back.
///
/// It goes back to stock, and no longer counts for the user's claims. A locked code is released first.
///
/// Reasons of a rejection: `code_unknown` (also for a code of somebody else), `unprocessable` (a code that is shared
/// by many), `hold_lapsed`, `not_claimed`, `code_revoked`, `already_redeemed`, `already_locked`.
#[utoipa::path(
    delete, path = "/v1/codes/{code}/claim", tag = "requests",
    params(
        ("code" = String, Path, description = "The code, however it is written"),
        UserParameter, WaitParameter, RequestHeaders,
    ),
    responses(RequestAnswers, Refusals),
)]
pub(crate) async fn give_back(
    State(app): State<Arc<App>>,
    _: Room,
    asked: Asked,
) -> Result<Response, Problem> {
    let named = asked.named_user()?;
    let user = asked.caller.acts_for(named.as_deref())?;
    asked.about_code(&app, kinds::RETURN, user, Said::default()).await
}
