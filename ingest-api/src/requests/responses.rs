//! The responses to a submitted request.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::headers::Wait;
use crate::http::responses::json;
use crate::model::outcome::Outcome;
use crate::outcomes::view::RequestView;

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A request that is accepted and not decided yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted<'a> {
    request_id: &'a str,
    /// Always `pending`.
    status: &'static str,
    links: Links<'a>,
}

/// Where to read the outcome.
#[derive(Serialize, ToSchema)]
struct Links<'a> {
    /// The request and, later, its outcome.
    #[serde(rename = "self")]
    this: &'a str,
    /// The same, with a response when the request is decided.
    wait: String,
}

/// 202: durable, and will be decided.
pub(crate) fn accepted(shown: &str) -> Response {
    let location = location(shown);
    let wait = format!("{location}?wait=30");
    let body = Accepted { request_id: shown, status: "pending", links: Links { this: &location, wait } };
    let mut response = json(StatusCode::ACCEPTED, &body);
    set_location(&mut response, &location);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// 200 with the outcome.
pub(super) fn decided(shown: &str, outcome: &Outcome, wait: Option<Wait>) -> Response {
    let mut response = json(StatusCode::OK, &RequestView::decided(shown, outcome));
    set_location(&mut response, &location(shown));
    if let Some(wait) = wait {
        set_applied(&mut response, wait);
    }
    response
}

/// 200 with the outcome of an earlier request with the same key.
pub(super) fn replayed(shown: &str, outcome: &Outcome) -> Response {
    let mut response = decided(shown, outcome, None);
    response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    response
}

/// Confirms a preference that was applied.
pub(crate) fn set_applied(response: &mut Response, wait: Wait) {
    if wait.preferred
        && let Ok(value) = HeaderValue::try_from(format!("wait={}", wait.limit.as_secs()))
    {
        response.headers_mut().insert(APPLIED.clone(), value);
    }
}

fn location(shown: &str) -> String {
    ["/v1/requests/", shown].concat()
}

fn set_location(response: &mut Response, location: &str) {
    // Ids consist of letters, digits, hyphens, underscores and a dot.
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}
