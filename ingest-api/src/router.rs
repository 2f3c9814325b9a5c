//! The table of contents: every route of the HTTP interface, and what surrounds all of them.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::app::App;
use crate::metrics::Route;
use crate::problem::Problem;
use crate::{
    claims, codes, coupons, history, jobs, locks, openapi, redemptions, requests, returns, revocations,
    validation, wallet,
};

type Routes = UtoipaMethodRouter<Arc<App>>;

/// Every route, and what surrounds them.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = document.to_json().unwrap_or_default();
    let router = router.route("/openapi.json", get(move || async move { described(document) }));
    at_the_door(router)
        .with_state(Arc::clone(&app))
        .merge(runtime::probes::router(Arc::clone(&app.readiness)))
        .fallback(async || Problem::not_found("there is nothing here; /openapi.json lists what there is"))
        .layer(CatchPanicLayer::custom(panicked))
}

/// What every resource is asked through.
pub(crate) fn at_the_door<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.method_not_allowed_fallback(async || Problem::method_not_allowed()).layer(from_fn(acceptable))
}

/// Every route that the document describes.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::document())
        .routes(measured("coupons", routes!(coupons::create)))
        .routes(measured("coupon", routes!(coupons::read)))
        .routes(measured("generate", routes!(codes::generate)))
        .routes(measured("job", routes!(jobs::read)))
        .routes(measured("claims", routes!(claims::claim)))
        .routes(measured("lock", routes!(locks::lock)))
        .routes(measured("unlock", routes!(locks::unlock)))
        .routes(measured("return", routes!(returns::give_back)))
        .routes(measured("redeem", routes!(redemptions::redeem)))
        .routes(measured("rollback", routes!(redemptions::roll_back)))
        .routes(measured("revoke", routes!(revocations::revoke)))
        .routes(measured("validation", routes!(validation::validate)))
        .routes(measured("user_codes", routes!(wallet::list)))
        .routes(measured("user_requests", routes!(history::list)))
        .routes(measured("request", routes!(requests::read)))
}

fn measured(name: &'static str, routes: Routes) -> Routes {
    routes.layer(from_fn_with_state(Route::new(name), measure))
}

/// Counts an answer, and how long it took.
pub(crate) async fn measure(State(route): State<Route>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let response = next.run(request).await;
    route.answered(response.status(), start.elapsed().as_secs_f64());
    response
}

async fn acceptable(request: Request, next: Next) -> Response {
    if accepts_json(request.headers()) {
        next.run(request).await
    } else {
        Problem::not_acceptable().into_response()
    }
}

/// Without a wish anything is fine; a wish must leave room for JSON.
fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::ACCEPT) else { return true };
    let Ok(text) = value.to_str() else { return true };
    text.split(',').any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        ["*/*", "application/*", "application/json", "application/problem+json"]
            .iter()
            .any(|fine| range.eq_ignore_ascii_case(fine))
    })
}

fn described(document: String) -> impl axum::response::IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document)
}

/// A panic is a fault of ours: logged by the panic hook, answered without a word about the inside.
pub(crate) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    Problem::internal().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::words::{ClaimState, Reason};
    use serde_json::Value;

    /// Every text and every object of a document.
    fn walk(value: &Value, see: &mut impl FnMut(&Value)) {
        see(value);
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
            Value::Object(map) => map.values().for_each(|item| walk(item, see)),
            _ => {}
        }
    }

    #[test]
    fn the_document_refers_to_what_is_there_and_names_words_that_exist() {
        let (_, document) = routes().split_for_parts();
        let document = serde_json::to_value(&document).expect("it is JSON");
        let mut references = 0;
        walk(&document, &mut |value| {
            if let Some(reference) = value["$ref"].as_str() {
                let place = reference.strip_prefix('#').and_then(|place| document.pointer(place));
                assert!(place.is_some(), "{reference} is not there");
                references += 1;
            }
        });
        assert!(references > 100, "{references}");
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let text = operation["description"].as_str().unwrap_or_default();
                let Some((_, reasons)) = text.split_once("Reasons of a rejection") else { continue };
                for word in reasons.split('`').skip(1).step_by(2) {
                    assert!(Reason::parse(word).is_some(), "{method} {path} names {word}");
                }
            }
        }
        let states = ClaimState::ALL.iter().filter(|state| !document.to_string().contains(state.as_str()));
        assert_eq!(states.count(), 0);
    }

    #[test]
    fn a_wish_that_leaves_no_room_for_json_is_noticed() {
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
