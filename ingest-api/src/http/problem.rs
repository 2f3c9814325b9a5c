//! Error responses: RFC 9457 problems with a stable `code` and the invalid fields.
//!
//! Guarantees: a problem describes the client's own request and nothing else; an internal failure is logged and
//! returned as 503 (retry) or 500, without internal detail.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// One invalid value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field as a dotted path (`discount.value`), a header, or a parameter.
    #[schema(example = "discount.value")]
    pub field: String,
    /// What is wrong with it.
    pub detail: Cow<'static, str>,
}

/// An error response.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<u32>,
}

/// The body of every error response (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A stable URN for this kind of problem.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "urn:stampede:problem:invalid")]
    kind: ProblemType,
    /// For people; the same for all problems of a kind.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// A stable word for programs.
    #[schema(example = "invalid")]
    code: &'a str,
    /// For people; about this request.
    detail: &'a str,
    /// Every invalid field, where the problem is about fields.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
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
        Self { status, code, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 400: the request cannot be parsed.
    pub fn unreadable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unreadable", detail)
    }

    /// 400: an invalid header.
    pub(crate) fn header(name: &str, detail: &'static str) -> Self {
        let mut problem = Self::unreadable("a request header is invalid");
        problem.errors.push(FieldError { field: name.to_owned(), detail: Cow::Borrowed(detail) });
        problem
    }

    /// 401: no token, or an invalid one.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// 403: the token does not allow this.
    pub(crate) fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: the resource does not exist or belongs to another user.
    pub(crate) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "method not allowed on this resource; /openapi.json lists its methods",
        )
    }

    /// 406.
    pub(crate) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "not_acceptable",
            "responses are application/json; accept that media type",
        )
    }

    /// 408: the body was too slow.
    pub(crate) fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the request body did not arrive in time; send the request again",
        )
    }

    /// 409: short-circuited by the sold-out gate. The request was not submitted and may be retried.
    pub(crate) fn sold_out() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "sold_out",
            "the coupon was sold out a moment ago; the request was not submitted and may be retried",
        )
        .retry_after(1)
    }

    /// 409: the id is in use.
    pub(crate) fn already_exists(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "already_exists", detail)
    }

    /// 410: deleted at the end of its retention.
    pub(crate) fn gone(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::GONE, "gone", detail)
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is larger than {limit} bytes, the limit of this resource"),
        )
    }

    /// 415.
    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the media type is not supported; send the body as Content-Type: application/json",
        )
    }

    /// 422: the request is well-formed, but values are invalid.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = if errors.len() == 1 { "one field is invalid" } else { "several fields are invalid" };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        problem.errors = errors;
        problem
    }

    /// 422 for one field.
    pub(crate) fn invalid_field(field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::invalid(vec![FieldError { field: field.to_owned(), detail: detail.into() }])
    }

    /// 422: the key was used with another body.
    pub(crate) fn key_reused() -> Self {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "the Idempotency-Key was used with another body; the first request is unchanged; use a new key",
        );
        problem.errors.push(FieldError {
            field: "Idempotency-Key".to_owned(),
            detail: Cow::Borrowed("was used with another body"),
        });
        problem
    }

    /// 503: a bound is reached; the request was not submitted.
    pub(crate) fn overloaded(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(1)
    }

    /// 503: a dependency does not respond.
    pub(crate) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
    }

    /// 500: a defect of the server.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error; it has been logged")
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

/// The title that all problems of a kind share.
fn title(code: &str) -> &'static str {
    match code {
        "unreadable" => "Malformed request",
        "unauthenticated" => "A valid token is required",
        "forbidden" => "Forbidden",
        "not_found" => "Not found",
        "method_not_allowed" => "Method not allowed",
        "not_acceptable" => "Not acceptable",
        "too_slow" => "Request timeout",
        "sold_out" => "Sold out",
        "already_exists" => "Already exists",
        "gone" => "Gone",
        "too_large" => "Body too large",
        "unsupported_media_type" => "Unsupported media type",
        "invalid" => "Invalid values",
        "idempotency_key_reused" => "Idempotency-Key used with another body",
        "overloaded" => "Too many pending requests",
        "unavailable" => "Temporarily unavailable",
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
            errors: &self.errors,
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
    fn a_problem_states_its_kind_its_fields_and_when_to_retry() {
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
            detail: "one field is invalid",
            errors: &problem.errors,
        };
        assert_eq!(
            serde_json::to_value(&body).ok(),
            Some(serde_json::json!({
                "type": "urn:stampede:problem:invalid", "title": "Invalid values", "status": 422,
                "code": "invalid", "detail": "one field is invalid",
                "errors": [{"field": "discount.value", "detail": "must be positive"}],
            }))
        );
    }
}
