//! `/openapi.json`, generated from the handlers: the document itself, and the parameters and responses that several
//! handlers share.

use coupon_core::words::Reason;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{IntoParams, IntoResponses};

use crate::http::problem::ProblemBody;
use crate::outcomes::view::RequestView;
use crate::requests::responses::Accepted;

const SECURITY: &str = "bearer";

/// The document without the handlers: its subject and its authentication.
pub(crate) fn document() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(title = "Stampede", description = ""),
        // Schemas of shared responses, which no handler refers to by itself.
        components(schemas(Accepted<'static>, RequestView<'static>, ProblemBody<'static>)),
        tags(
            (name = "coupons", description = "Definitions and live counters"),
            (name = "codes", description = "Stock"),
            (name = "requests", description = "Requests of users and their outcomes"),
            (name = "users", description = "A user's codes and requests"),
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
        "Coupon codes under flash-sale load. The response to a request is 202 once it is durable; it then gets \
         exactly one final outcome. A rejection is an outcome, not an HTTP error; its reason is one of {}. Errors \
         are RFC 9457 problems.",
        reasons.join(", ")
    )
}

/// The wait for an outcome.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes a parameter in the OpenAPI document; Wait reads it")]
pub(crate) struct WaitParameter {
    /// Seconds to wait for the outcome, at most 30.
    #[param(maximum = 30, minimum = 0)]
    wait: Option<u32>,
}

/// The user of a request without a body.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes a parameter in the OpenAPI document; RequestContext reads it")]
pub(crate) struct UserParameter {
    /// The user of the request; with a service's token only. A user's token acts for that user.
    #[param(max_length = 256)]
    user_id: Option<String>,
}

/// The headers of every submission.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers in the OpenAPI document; RequestContext reads them")]
pub(crate) struct RequestHeaders {
    /// `wait=N`; the same as the parameter.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
    /// Makes a retry the same request; up to 255 printable characters.
    #[param(rename = "Idempotency-Key", max_length = 255)]
    idempotency_key: Option<String>,
}

/// The responses to every submission that succeeds.
#[derive(IntoResponses)]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "describes responses in the OpenAPI document; requests::responses writes them"
)]
pub(crate) enum RequestResponses {
    /// Decided: the client waited for the outcome, or the request was decided before.
    #[response(status = 200)]
    Decided(RequestView<'static>),
    /// Accepted: durable, and will be decided.
    #[response(status = 202)]
    Accepted(Accepted<'static>),
}

/// The error responses of every route about a code or a user.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes responses in the OpenAPI document; Problem writes them")]
pub(crate) enum ErrorResponses {
    /// The body, a header or the URL is malformed.
    #[response(status = 400, content_type = "application/problem+json")]
    Unreadable(ProblemBody<'static>),
    /// The token is missing or invalid.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(ProblemBody<'static>),
    /// The token does not allow this, or not for this user.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody<'static>),
    /// Invalid values, all of them listed; or a key that was used with another body.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
    /// Overloaded, delivery not confirmed, or the database did not respond (Retry-After).
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemBody<'static>),
}
