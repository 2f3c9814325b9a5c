//! What the requests about a code have in common: the code in the path, and the coupon that determines its partition.

use axum::response::Response;
use coupon_core::codes::{CodeKey, normalise};

use crate::app::App;
use crate::http::problem::Problem;
use crate::requests::command::{Command, CommandPayload};
use crate::requests::context::RequestContext;

/// Normalises the code in a path.
///
/// # Errors
/// 422 for an invalid code.
pub(super) fn code_in_path(name: &str) -> Result<CodeKey, Problem> {
    normalise(name).map_err(|error| Problem::invalid_field("code", error.to_string()))
}

/// Submits a request of this kind about the code in the path, on behalf of `user`.
///
/// # Errors
/// Those of [`crate::requests::submit`]; 422 for an invalid code; 503 while the partition of the code is unknown.
pub(super) async fn submit(
    app: &App,
    context: &RequestContext,
    kind: &'static str,
    user: &str,
    payload: CommandPayload,
) -> Result<Response, Problem> {
    let code = code_in_path(&context.name)?;
    let target = code.as_str();
    let coupon_id = app.codes.coupon_of(&code, &app.query_pool).await?;
    let coupon_id = coupon_id.as_deref().unwrap_or(target);
    let payload = CommandPayload { code: Some(target.to_owned()), ..payload };
    app.requests.submit(context, Command { kind, user, coupon_id, target, payload }).await
}
