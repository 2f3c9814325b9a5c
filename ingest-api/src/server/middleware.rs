//! What surrounds every handler: metrics, content negotiation, and the response to a panic.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};

use crate::http::problem::Problem;
use crate::telemetry::metrics::RouteMetrics;

/// Adds what every resource has in common: 405 for other methods, 406 for clients that do not accept JSON.
pub(super) fn with_common_layers<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.method_not_allowed_fallback(async || Problem::method_not_allowed()).layer(from_fn(negotiate))
}

/// Counts a response and its duration.
pub(super) async fn measure(State(route): State<RouteMetrics>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let response = next.run(request).await;
    route.record(response.status(), start.elapsed().as_secs_f64());
    response
}

/// The response to a panic, which the panic hook has logged. It has no internal detail.
pub(super) fn panic_response(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    Problem::internal().into_response()
}

async fn negotiate(request: Request, next: Next) -> Response {
    if accepts_json(request.headers()) {
        next.run(request).await
    } else {
        Problem::not_acceptable().into_response()
    }
}

/// Whether the Accept header is absent or allows JSON.
fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::ACCEPT) else { return true };
    let Ok(text) = value.to_str() else { return true };
    text.split(',').any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        ["*/*", "application/*", "application/json", "application/problem+json"]
            .iter()
            .any(|accepted| range.eq_ignore_ascii_case(accepted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn an_accept_header_without_json_is_detected() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            accepts_json(&headers)
        };
        assert!(accepts_json(&HeaderMap::new()));
        assert!(accepts("*/*") && accepts("text/html, application/json;q=0.5") && accepts("application/*"));
        assert!(!accepts("text/html"));
    }
}
