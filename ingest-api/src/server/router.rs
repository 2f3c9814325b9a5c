//! Every route of the HTTP interface, and the document that describes them.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::middleware::{measure, panic_response, with_common_layers};
use crate::api::{
    claims, codes, coupons, history, jobs, locks, openapi, redemptions, requests, returns, revocations,
    validation, wallet,
};
use crate::app::App;
use crate::http::problem::Problem;
use crate::telemetry::metrics::RouteMetrics;

type Routes = UtoipaMethodRouter<Arc<App>>;

/// Every route, with the layers around all of them.
pub(super) fn router(app: Arc<App>) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = document.to_json().unwrap_or_default();
    let router = router.route("/openapi.json", get(move || async move { json_document(document) }));
    with_common_layers(router)
        .with_state(Arc::clone(&app))
        .merge(runtime::probes::router(Arc::clone(&app.readiness)))
        .fallback(async || Problem::not_found("no such route; /openapi.json lists all routes"))
        .layer(CatchPanicLayer::custom(panic_response))
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
        .routes(measured("return", routes!(returns::return_code)))
        .routes(measured("redeem", routes!(redemptions::redeem)))
        .routes(measured("rollback", routes!(redemptions::roll_back)))
        .routes(measured("revoke", routes!(revocations::revoke)))
        .routes(measured("validation", routes!(validation::validate)))
        .routes(measured("user_codes", routes!(wallet::list)))
        .routes(measured("user_requests", routes!(history::list)))
        .routes(measured("request", routes!(requests::read)))
}

fn measured(name: &'static str, routes: Routes) -> Routes {
    routes.layer(from_fn_with_state(RouteMetrics::new(name), measure))
}

fn json_document(document: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::words::{ClaimState, Reason};
    use serde_json::Value;

    /// Visits a value and every value within it.
    fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
        visit(value);
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
            Value::Object(map) => map.values().for_each(|item| walk(item, visit)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_and_every_reason_in_the_document_exists() {
        let (_, document) = routes().split_for_parts();
        let document = serde_json::to_value(&document).expect("JSON");
        let mut references = 0;
        walk(&document, &mut |value| {
            if let Some(reference) = value["$ref"].as_str() {
                let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                assert!(target.is_some(), "{reference} does not exist");
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
}
