//! Every answer that is not a success: RFC 9457, with a stable `code` and the fields at fault.
//!
//! Guarantees: a client sees what is wrong with its own request and nothing else; what goes wrong inside is logged
//! and answered as 503 (try again) or 500, without a word about the inside.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::questions::Unanswered;

/// A value that cannot be accepted, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// Where: names with dots (`discount.value`), a header, or a parameter.
    #[schema(example = "discount.value")]
    pub field: String,
    /// What is wrong with it.
    pub detail: Cow<'static, str>,
}

/// An answer other than success.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    faults: Vec<Fault>,
    retry_after: Option<u32>,
}

/// The body of every answer other than success (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A stable name of this kind of problem.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:stampede:problem:invalid")]
    kind: ProblemType,
    /// For people, the same for all problems of a kind.
    title: &'a str,
    /// The HTTP status once more.
    status: u16,
    /// A stable word for programs.
    #[schema(example = "invalid")]
    code: &'a str,
    /// For people, about this very request.
    detail: &'a str,
    /// Every field at fault, where fields are.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

#[derive(Debug)]
struct ProblemType(&'static str);

impl Serialize for ProblemType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("urn:stampede:problem:{}", self.0))
    }
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), faults: Vec::new(), retry_after: None }
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 400: the request cannot be read.
    pub fn unreadable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unreadable", detail)
    }

    /// 400: a header that cannot be used.
    pub(crate) fn header(name: &str, detail: &'static str) -> Self {
        let mut problem = Self::unreadable("a header cannot be used");
        problem.faults.push(Fault { field: name.to_owned(), detail: Cow::Borrowed(detail) });
        problem
    }

    /// 401: no token, or none that counts.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// 403: the token does not allow this.
    pub(crate) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: there is no such thing, or it is somebody else's.
    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this resource has other methods")
    }

    /// 406.
    pub(crate) fn not_acceptable() -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "answers are application/json")
    }

    /// 408: the body did not come in time.
    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time")
    }

    /// 409: the sold-out gate. Not a decided request: it may be asked again.
    pub(crate) fn sold_out() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "sold_out",
            "the coupon was sold out a moment ago; this request was not taken and may be repeated",
        )
        .retry_after(1)
    }

    /// 409: the id is taken.
    pub(crate) fn already_exists(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "already_exists", detail)
    }

    /// 410: it was there, and has been dropped by age.
    pub(crate) fn gone(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::GONE, "gone", detail)
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("a body may have {limit} bytes here"))
    }

    /// 415.
    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the body as Content-Type: application/json",
        )
    }

    /// 422: it can be read, and its values cannot be accepted.
    pub(crate) fn invalid(faults: Vec<Fault>) -> Self {
        let detail = if faults.len() == 1 { "one field is at fault" } else { "several fields are at fault" };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        problem.faults = faults;
        problem
    }

    /// 422 for one field.
    pub(crate) fn invalid_field(field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(vec![Fault { field: field.to_owned(), detail: detail.into() }])
    }

    /// 422: the key was used with another body.
    pub(crate) fn key_reused() -> Self {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this Idempotency-Key was used with another body; the first request stays as it is",
        );
        problem.faults.push(Fault {
            field: "Idempotency-Key".to_owned(),
            detail: Cow::Borrowed("was used with another body"),
        });
        problem
    }

    /// 503: too much at once; nothing was taken.
    pub(crate) fn overloaded(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(1)
    }

    /// 503: something behind does not answer.
    pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
    }

    /// 500: a fault of ours.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a fault of ours; it has been logged")
    }

    /// 503 for a question without an answer; why is logged, not told.
    pub(crate) fn database(doing: &'static str, error: &Unanswered) -> Self {
        if matches!(error, Unanswered::Crowded) {
            return Self::overloaded("too many are waiting for the database; try again");
        }
        tracing::warn!(doing, %error, "Postgres did not answer as it should");
        Self::unavailable("the database did not answer; try again")
    }

    /// The stable word.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// The sentence that all problems of a kind share.
fn title(code: &str) -> &'static str {
    match code {
        "unreadable" => "The request cannot be read",
        "unauthenticated" => "A valid token is needed",
        "forbidden" => "Not allowed",
        "not_found" => "Not found",
        "method_not_allowed" => "Method not allowed",
        "not_acceptable" => "Not acceptable",
        "too_slow" => "Too slow",
        "sold_out" => "Sold out",
        "already_exists" => "Already exists",
        "gone" => "Gone",
        "too_large" => "Too large",
        "unsupported_media_type" => "Unsupported media type",
        "invalid" => "Invalid values",
        "idempotency_key_reused" => "Idempotency-Key used with another body",
        "overloaded" => "Too many requests are undecided",
        "unavailable" => "Not available for the moment",
        _ => "Internal error",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            kind: ProblemType(self.code),
            title: title(self.code),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            errors: &self.faults,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_its_kind_its_fields_and_when_to_come_back() {
        let response = Problem::sold_out().into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let problem = Problem::invalid_field("discount.value", "must be positive");
        assert_eq!((problem.status().as_u16(), problem.code()), (422, "invalid"));
        let body = ProblemBody {
            kind: ProblemType("invalid"),
            title: title("invalid"),
            status: 422,
            code: "invalid",
            detail: "one field is at fault",
            errors: &problem.faults,
        };
        assert_eq!(
            serde_json::to_value(&body).ok(),
            Some(serde_json::json!({
                "type": "urn:stampede:problem:invalid", "title": "Invalid values", "status": 422,
                "code": "invalid", "detail": "one field is at fault",
                "errors": [{"field": "discount.value", "detail": "must be positive"}],
            }))
        );
    }
}
