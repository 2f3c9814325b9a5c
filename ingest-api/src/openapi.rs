//! `/openapi.json`, generated from the handlers, and what several of them have in common there.

use coupon_core::words::Reason;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{IntoParams, IntoResponses};

use crate::accept::Accepted;
use crate::outcome::RequestView;
use crate::problem::ProblemBody;

const SECURITY: &str = "bearer";

/// The document before any handler is added: what it is about, and how to authenticate.
pub(crate) fn document() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(title = "Stampede", description = ""),
        // Of the answers that routes share: nothing else would name them.
        components(schemas(Accepted<'static>, RequestView<'static>, ProblemBody<'static>)),
        tags(
            (name = "coupons", description = "Definitions and live counters"),
            (name = "codes", description = "Stock"),
            (name = "requests", description = "What users ask for, and what became of it"),
            (name = "users", description = "What a user has, and has asked for"),
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

/// How an outcome is waited for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes a parameter in the OpenAPI document; Wait is what is read")]
pub(crate) struct WaitParameter {
    /// Seconds to wait for the outcome, at most 30.
    #[param(maximum = 30, minimum = 0)]
    wait: Option<u32>,
}

/// For whom, where there is no body to say it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes a parameter in the OpenAPI document; Asked is what is read")]
pub(crate) struct UserParameter {
    /// For whom; a service's token only. A user's token acts for that user.
    #[param(max_length = 256)]
    user_id: Option<String>,
}

/// Headers of everything that makes a request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers in the OpenAPI document; Asked is what is read")]
pub(crate) struct RequestHeaders {
    /// `wait=N`, as the parameter.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
    /// Makes a retry the same request; up to 255 printable characters.
    #[param(rename = "Idempotency-Key", max_length = 255)]
    idempotency_key: Option<String>,
}

/// How everything that makes a request is answered when it is taken.
#[derive(IntoResponses)]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "describes answers in the document; accept writes them"
)]
pub(crate) enum RequestAnswers {
    /// Decided: the client waited for it, or it was decided before.
    #[response(status = 200)]
    Decided(RequestView<'static>),
    /// Accepted: durable, and will be decided.
    #[response(status = 202)]
    Accepted(Accepted<'static>),
}

/// How everything that names a code or a user is refused.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes answers in the OpenAPI document; Problem writes them")]
pub(crate) enum Refusals {
    /// Not readable: JSON, a header, the address.
    #[response(status = 400, content_type = "application/problem+json")]
    Unreadable(ProblemBody<'static>),
    /// No token, or none that counts.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(ProblemBody<'static>),
    /// The token does not allow this, or not for this user.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody<'static>),
    /// Invalid values, every one listed; or a key used with another body.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
    /// Too much at once, not acknowledged, or the database did not say where the code belongs (Retry-After).
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody<'static>),
}
