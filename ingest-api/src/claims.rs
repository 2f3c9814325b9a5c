//! `POST /v1/coupons/{coupon_id}/claims`: a user asks for a code, any one or a named one.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use schemas::kinds;
use utoipa::ToSchema;

use crate::accept::{Accepted, Submission, submit};
use crate::app::App;
use crate::auth::{Caller, USER_ID_CHARACTERS};
use crate::coupons::is_coupon_id;
use crate::extract::{JsonBody, Wait, idempotency_key};
use crate::fields::{Faults, Fields};
use crate::known_coupons::Known;
use crate::outcome::RequestView;
use crate::problem::{Problem, ProblemBody};

/// A claim. `{}` asks for any code.
#[derive(Debug, Default, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; ClaimRequest is what is read")]
pub(crate) struct ClaimBody {
    /// The code that is wanted; any, if none is named.
    #[schema(max_length = 256)]
    code: Option<String>,
    /// For whom; a service's token only.
    #[schema(max_length = 256)]
    user_id: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ClaimRequest {
    code: Option<String>,
    user_id: Option<String>,
}

impl ClaimRequest {
    fn read(JsonBody(body): JsonBody) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body)?;
        let code = fields.text("code", 1..=256, &mut faults);
        let user_id = fields.text("user_id", USER_ID_CHARACTERS, &mut faults);
        fields.end(&mut faults);
        faults.finish()?;
        Ok(Self { code, user_id })
    }
}

/// Claim a code.
///
/// Answers 202 once the request is durable; with `?wait=N` or `Prefer: wait=N`, 200 with the outcome if it comes
/// in time. A rejection is an outcome, not an error.
#[utoipa::path(
    post, path = "/v1/coupons/{coupon_id}/claims", tag = "requests",
    params(
        ("coupon_id" = String, Path, description = "The coupon"),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for the outcome, at most 30"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, as the parameter"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry the same request; up to 255 printable characters"),
    ),
    request_body = ClaimBody,
    responses(
        (status = 200, description = "Decided", body = RequestView),
        (status = 202, description = "Accepted, and will be decided", body = Accepted),
        (status = 404, description = "There is no such coupon", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Sold out a moment ago; not a decided request (Retry-After)", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid values, or a key used with another body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Too much at once, or not acknowledged (Retry-After)", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn claim(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(coupon_id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request = ClaimRequest::read(body)?;
    let user = caller.acts_for(request.user_id.as_deref())?;
    let wait = Wait::of(&uri, &headers)?;
    let key = idempotency_key(&headers)?;
    // A retry of a winner must hear that it won; a named code may be free although the rest is gone.
    if request.code.is_none() && key.is_none() && !app.hub.gate.lets_through(&coupon_id, Instant::now()) {
        app.handles.gated.increment(1);
        return Err(Problem::sold_out());
    }
    if !is_coupon_id(&coupon_id) || app.coupons.look(&coupon_id, &app.pool).await == Known::Absent {
        return Err(Problem::not_found("there is no such coupon"));
    }
    let body = request.code.as_deref().map_or_else(String::new, |code| ["code:", code].concat());
    let submission = Submission {
        caller: &caller.sub,
        user,
        kind: kinds::CLAIM,
        coupon_id: &coupon_id,
        code: request.code.clone(),
        key,
        body: &body,
        wait,
    };
    submit(&app, submission).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_asks_for_any_code_or_a_named_one_and_nothing_else() {
        let read = |body| ClaimRequest::read(JsonBody(body)).map_err(|problem| problem.status().as_u16());
        assert_eq!(read(json!({})), Ok(ClaimRequest::default()));
        assert_eq!(read(json!({"code": "AB-1"})).map(|claim| claim.code), Ok(Some("AB-1".to_owned())));
        for wrong in
            [json!([]), json!({"cod": "A"}), json!({"code": "A\u{0}"}), json!({"code": ""}), json!(null)]
        {
            assert_eq!(read(wrong), Err(422));
        }
    }
}
