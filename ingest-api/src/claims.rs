//! `POST /v1/coupons/{coupon_id}/claims`: a user asks for a code, any one or a named one.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use coupon_core::codes::CodeKey;
use schemas::kinds;
use utoipa::ToSchema;

use crate::app::App;
use crate::asked::{Asked, Target};
use crate::auth::USER_ID_CHARACTERS;
use crate::coupons::is_coupon_id;
use crate::extract::JsonBody;
use crate::fields::{Faults, Fields};
use crate::openapi::{Refusals, RequestAnswers, RequestHeaders, WaitParameter};
use crate::problem::{Problem, ProblemBody};
use crate::remembered::Known;
use crate::room::RoomForCoupon;
use crate::said::Said;

/// A claim. `{}` asks for any code.
#[derive(Debug, Default, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; ClaimRequest is what is read")]
pub(crate) struct ClaimBody {
    /// The code that is wanted; any, if none is named. Case, spaces, hyphens and look-alikes make no difference.
    #[schema(max_length = 256)]
    code: Option<String>,
    /// For whom; a service's token only.
    #[schema(max_length = 256)]
    user_id: Option<String>,
}

/// A claim's body, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimRequest {
    /// Normalised.
    code: Option<String>,
    /// For whom.
    pub(crate) user_id: Option<String>,
}

impl ClaimRequest {
    /// Reads it.
    ///
    /// # Errors
    /// 422, with every fault.
    pub(crate) fn read(JsonBody(body): JsonBody) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body)?;
        let code = fields.code("code", &mut faults).map(CodeKey::into_string);
        let user_id = fields.line("user_id", USER_ID_CHARACTERS, &mut faults);
        fields.end(&mut faults);
        faults.finish()?;
        Ok(Self { code, user_id })
    }
}

/// Claim a code.
///
/// Answers 202 once the request is durable; with `?wait=N` or `Prefer: wait=N`, 200 with the outcome if it comes
/// in time. A rejection is an outcome, not an error.
///
/// Reasons of a rejection, any code: `ended`, `paused`, `not_started`, `expired`, `sold_out`, `user_limit_reached`;
/// a named one: `ended`, `paused`, `not_started`, `expired`, `code_unknown`, `code_revoked`, `code_taken`,
/// `user_limit_reached`; the first that applies.
#[utoipa::path(
    post, path = "/v1/coupons/{coupon_id}/claims", tag = "requests",
    params(("coupon_id" = String, Path, description = "The coupon"), WaitParameter, RequestHeaders),
    request_body = ClaimBody,
    responses(
        RequestAnswers, Refusals,
        (status = 404, description = "There is no such coupon", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Sold out a moment ago; not a decided request (Retry-After)", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn claim(
    State(app): State<Arc<App>>,
    _: RoomForCoupon,
    asked: Asked,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request = ClaimRequest::read(body)?;
    let user = asked.caller.acts_for(request.user_id.as_deref())?;
    let coupon_id = &asked.named;
    // A retry of a winner must hear that it won; a named code may be free although the rest is gone.
    let gated = request.code.is_none() && asked.key()?.is_none();
    if gated && !app.hub.gate.lets_through(coupon_id, Instant::now()) {
        app.handles.gated.increment(1);
        return Err(Problem::sold_out());
    }
    if !is_coupon_id(coupon_id) || app.coupons.look(coupon_id, &app.questions).await == Known::Absent {
        return Err(Problem::not_found("there is no such coupon"));
    }
    let said = Said { code: request.code, ..Said::default() };
    asked.submit(&app, kinds::CLAIM, user, Target { coupon_id, name: coupon_id }, said).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_asks_for_any_code_or_a_named_one_and_nothing_else() {
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
