//! `POST /v1/coupons/{coupon_id}/claims`: a user claims any code of a coupon, or a named one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use coupon_core::codes::CodeKey;
use schemas::kinds;
use utoipa::ToSchema;

use super::openapi::{ErrorResponses, RequestHeaders, RequestResponses, WaitParameter};
use crate::app::App;
use crate::auth::USER_ID_CHARACTERS;
use crate::http::body::JsonBody;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::validation::{FieldErrors, ObjectReader};
use crate::requests::admission::PartitionAdmission;
use crate::requests::command::{Command, CommandPayload};
use crate::requests::context::RequestContext;

/// A claim. `{}` claims any code.
#[derive(Debug, Default, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; ClaimRequest reads it")]
pub(crate) struct ClaimBody {
    /// The code to claim; any code if absent. Case, spaces, hyphens and look-alike characters make no difference.
    #[schema(max_length = 256)]
    code: Option<String>,
    /// The user of the request; with a service's token only.
    #[schema(max_length = 256)]
    user_id: Option<String>,
}

/// A valid body of a claim.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimRequest {
    /// Normalised.
    code: Option<String>,
    pub(crate) user_id: Option<String>,
}

impl ClaimRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// 422 with every invalid field.
    pub(crate) fn read(JsonBody(body): JsonBody) -> Result<Self, Problem> {
        let mut errors = FieldErrors::default();
        let mut object = ObjectReader::of(body)?;
        let code = object.code("code", &mut errors).map(CodeKey::into_string);
        let user_id = object.line("user_id", USER_ID_CHARACTERS, &mut errors);
        object.end(&mut errors);
        errors.finish()?;
        Ok(Self { code, user_id })
    }
}

/// Claim a code.
///
/// The response is 202 once the request is durable; with `?wait=N` or `Prefer: wait=N` it is 200 with the outcome, if
/// the outcome arrives in time. A rejection is an outcome, not an error.
///
/// Reasons of a rejection, any code: `ended`, `paused`, `not_started`, `expired`, `sold_out`, `user_limit_reached`;
/// a named code: `ended`, `paused`, `not_started`, `expired`, `code_unknown`, `code_revoked`, `code_taken`,
/// `user_limit_reached`; the first that applies.
#[utoipa::path(
    post, path = "/v1/coupons/{coupon_id}/claims", tag = "requests",
    params(("coupon_id" = String, Path, description = "The coupon"), WaitParameter, RequestHeaders),
    request_body = ClaimBody,
    responses(
        RequestResponses, ErrorResponses,
        (status = 404, description = "No such coupon", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Sold out a moment ago; not a decided request (Retry-After)", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn claim(
    State(app): State<Arc<App>>,
    _: PartitionAdmission,
    context: RequestContext,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request = ClaimRequest::read(body)?;
    let user = context.caller.acts_for(request.user_id.as_deref())?;
    let coupon_id = context.name.as_str();
    // A claim with a key may be the retry of an accepted one; a named code may be free although the others are not.
    if request.code.is_none() && context.key.is_none() {
        app.requests.check_gate(coupon_id)?;
    }
    app.coupons.require(coupon_id, &app.query_pool).await?;
    let payload = CommandPayload { code: request.code, ..CommandPayload::default() };
    let command = Command { kind: kinds::CLAIM, user, coupon_id, target: coupon_id, payload };
    app.requests.submit(&context, command).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_has_an_optional_code_and_no_unknown_field() {
        let read = |body| ClaimRequest::read(JsonBody(body)).map_err(|problem| problem.status().as_u16());
        assert_eq!(read(json!({})), Ok(ClaimRequest::default()));
        assert_eq!(read(json!({"code": "ab-1o"})).map(|claim| claim.code), Ok(Some("AB10".to_owned())));
        let long = "A".repeat(65);
        for wrong in [
            json!([]),
            json!(null),
            json!({"cod": "ABCD"}),
            json!({"code": "ABCD\u{0}"}),
            json!({"code": "A-B-C"}),
            json!({"code": "AB_CD"}),
            json!({"code": long}),
            json!({"code": 1234}),
            json!({"user_id": "a\nb"}),
        ] {
            assert_eq!(read(wrong), Err(422));
        }
    }
}
