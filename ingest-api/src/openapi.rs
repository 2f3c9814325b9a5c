//! `/openapi.json`, generated from the handlers.

use coupon_core::vocabulary::Reason;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};

const SECURITY: &str = "bearer";

/// The document before any handler is added: what it is about, and how to authenticate.
pub(crate) fn document() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(title = "Stampede", description = ""),
        tags(
            (name = "coupons", description = "Definitions and live counters"),
            (name = "codes", description = "Stock"),
            (name = "requests", description = "What users ask for, and what became of it"),
        )
    )]
    struct Document;

    let mut document = <Document as utoipa::OpenApi>::openapi();
    document.info.description = Some(description());
    document.security = Some(vec![SecurityRequirement::new(SECURITY, Vec::<String>::new())]);
    let mut http = Http::new(HttpAuthScheme::Bearer);
    http.bearer_format = Some("JWT".to_owned());
    document
        .components
        .get_or_insert_with(Components::new)
        .add_security_scheme(SECURITY, SecurityScheme::Http(http));
    document
}

fn description() -> String {
    let reasons: Vec<String> = Reason::ALL.iter().map(|reason| format!("`{reason}`")).collect();
    format!(
        "Coupon codes under flash-sale load. A request is answered 202 once it is durable, and gets exactly one \
         final outcome. A rejection is an outcome, not an HTTP error; its reason is one of {}. Errors are RFC 9457.",
        reasons.join(", ")
    )
}
