//! `POST /v1/coupons/{coupon_id}/codes/generate`: generates codes from a pattern, in the background.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use coupon_core::codes::{Pattern, PatternError, PatternSpec};
use serde_json::Value;
use utoipa::ToSchema;

use super::jobs::JobView;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::catalogue::stored_pattern;
use crate::http::body::JsonBody;
use crate::http::parameters::PathName;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::responses::json;
use crate::http::validation::{FieldErrors, ObjectReader};
use crate::model::coupon::is_coupon_id;

/// Maximum number of codes in one request.
const MAX_CODES: i64 = 10_000_000;

/// The number of codes, and their pattern.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; GenerateRequest reads it")]
pub(crate) struct GenerateBody {
    /// 1 to 10,000,000.
    #[schema(example = 1000)]
    count: i64,
    pattern: Option<PatternBody>,
}

/// `SUMMER-7K2M-9QXR-T4VW`: a prefix, and a body in groups whose last character is a check character.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; read_pattern reads it")]
pub(crate) struct PatternBody {
    /// Letters and digits, at most 16; none if absent.
    prefix: Option<String>,
    /// Length of the body, with the check character.
    #[schema(default = 12)]
    length: Option<u32>,
    /// 2 to 33 different characters of 0-9 and A-Z without I, L and O.
    #[schema(default = "0123456789ABCDEFGHJKMNPQRSTVWXYZ")]
    charset: Option<String>,
    /// Characters between two hyphens; 0 for no hyphens.
    #[schema(default = 4)]
    group: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
struct GenerateRequest {
    count: i64,
    spec: PatternSpec,
    pattern: Pattern,
}

impl GenerateRequest {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut errors = FieldErrors::default();
        let mut object = ObjectReader::of(body)?;
        let has_count = object.has("count");
        let count = object.integer("count", 1..=MAX_CODES, &mut errors);
        if !has_count {
            object.missing("count", &mut errors);
        }
        let spec = object.object("pattern", &mut errors).map(|inner| read_pattern(inner, &mut errors));
        let spec = spec.unwrap_or_default();
        object.end(&mut errors);
        let pattern = Pattern::new(&spec);
        for error in pattern.as_ref().err().into_iter().flatten() {
            errors.add(field(error), error.fault.to_string());
        }
        errors.finish()?;
        match (count, pattern) {
            (Some(count), Ok(pattern)) => Ok(Self { count, spec, pattern }),
            _ => Err(Problem::invalid_field("count", "is required")),
        }
    }
}

fn read_pattern(mut object: ObjectReader, errors: &mut FieldErrors) -> PatternSpec {
    let mut spec = PatternSpec::default();
    // The bounds here only limit the size; `Pattern::new` checks the real bounds, with better messages.
    if let Some(prefix) = object.text("prefix", 0..=256, errors) {
        spec.prefix = prefix;
    }
    if let Some(charset) = object.text("charset", 0..=256, errors) {
        spec.charset = charset;
    }
    let mut number = |name, number: &mut usize| {
        let given = object.integer(name, 0..=1_000, errors);
        *number = given.and_then(|given| usize::try_from(given).ok()).unwrap_or(*number);
    };
    number("length", &mut spec.length);
    number("group", &mut spec.group);
    object.end(errors);
    spec
}

fn field(error: &PatternError) -> String {
    format!("pattern.{}", error.field)
}

/// Generate codes for a coupon.
///
/// They become stock together, when the job's state is `applied`.
#[utoipa::path(
    post, path = "/v1/coupons/{coupon_id}/codes/generate", tag = "codes",
    params(("coupon_id" = String, Path, description = "The coupon")),
    request_body = GenerateBody,
    responses(
        (status = 202, description = "Started; Location names the job", body = JobView),
        (status = 403, description = "Requires the role admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such coupon", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid values, or a pattern with too few or too guessable codes", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathName(coupon_id): PathName,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let request = GenerateRequest::read(body)?;
    let no_coupon = || Problem::not_found("no such coupon");
    if !is_coupon_id(&coupon_id) {
        return Err(no_coupon());
    }
    let pattern_json = stored_pattern::to_json(&request.spec);
    let operation = "opening a load of codes";
    // Existing codes of the pattern, of any coupon, make a code easier to guess.
    let requested = app.query(operation, app.loads.store().requested(&pattern_json)).await?;
    let total = u64::try_from(requested.saturating_add(request.count)).unwrap_or(u64::MAX);
    let room = request.pattern.ensure_room(total);
    room.map_err(|error| Problem::invalid_field(&field(&error), error.fault.to_string()))?;
    let opened = app.loads.open(&coupon_id, request.count, request.pattern, pattern_json);
    let job = app.query(operation, opened).await?.ok_or_else(no_coupon)?;
    let mut response = json(StatusCode::ACCEPTED, &JobView::of(&job));
    if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{}", job.job_id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(body: Value) -> String {
        GenerateRequest::read(body)
            .map_or_else(|problem| format!("{problem:?}"), |request| format!("{request:?}"))
    }

    #[test]
    fn a_count_alone_gets_the_default_pattern() {
        let request = GenerateRequest::read(json!({"count": 1000})).expect("a valid request");
        assert_eq!((request.count, request.spec), (1000, PatternSpec::default()));
    }

    #[test]
    fn invalid_counts_and_patterns_are_rejected_by_their_fields() {
        for count in [json!(0), json!(-1), json!(10_000_001), json!("5"), json!(1.5), json!(null)] {
            assert!(errors(json!({"count": count})).contains("\"count\""), "{count}");
        }
        let found =
            errors(json!({"count": 1, "pattern": {"prefix": "a b", "charset": "AO", "length": 2, "odd": 1}}));
        for field in ["pattern.prefix", "pattern.charset", "pattern.length", "pattern.odd"] {
            assert!(found.contains(field), "{field} is missing in {found}");
        }
    }
}
