//! `POST /v1/coupons/{coupon_id}/codes/generate`: codes from a pattern, made in the background.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use coupon_core::codes::{Pattern, PatternError, PatternSpec};
use serde_json::Value;
use utoipa::ToSchema;

use crate::accept::json;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::coupons::is_coupon_id;
use crate::extract::{JsonBody, Named};
use crate::fields::{Faults, Fields};
use crate::jobs::JobView;
use crate::problem::{Problem, ProblemBody};

/// Codes in one request.
const MOST_CODES: i64 = 10_000_000;

/// How many codes, and what they look like.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; Wanted is what is read")]
pub(crate) struct GenerateBody {
    /// 1 to 10,000,000.
    #[schema(example = 1000)]
    count: i64,
    pattern: Option<PatternBody>,
}

/// `SUMMER-7K2M-9QXR-T4VW`: a prefix, and a body in groups, whose last character finds typing errors.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document; PatternSpec is what is read")]
pub(crate) struct PatternBody {
    /// Letters and digits, at most 16; none if absent.
    prefix: Option<String>,
    /// Characters of the body, the check character included.
    #[schema(default = 12)]
    length: Option<u32>,
    /// 2 to 33 different ones of 0-9 and A-Z without I, L and O.
    #[schema(default = "0123456789ABCDEFGHJKMNPQRSTVWXYZ")]
    charset: Option<String>,
    /// Characters between two hyphens; 0: no hyphens.
    #[schema(default = 4)]
    group: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    count: i64,
    spec: PatternSpec,
    pattern: Pattern,
}

impl Wanted {
    fn read(body: Value) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        let mut fields = Fields::of(body)?;
        let has_count = fields.has("count");
        let count = fields.integer("count", 1..=MOST_CODES, &mut faults);
        if !has_count {
            fields.missing("count", &mut faults);
        }
        let spec = fields.object("pattern", &mut faults).map(|inner| spec(inner, &mut faults));
        let spec = spec.unwrap_or_default();
        fields.end(&mut faults);
        let pattern = Pattern::new(&spec);
        for error in pattern.as_ref().err().into_iter().flatten() {
            faults.add(field(error), error.fault.to_string());
        }
        faults.finish()?;
        match (count, pattern) {
            (Some(count), Ok(pattern)) => Ok(Self { count, spec, pattern }),
            _ => Err(Problem::invalid_field("count", "is required")),
        }
    }

    /// The pattern as the load's row keeps it.
    fn pattern_json(&self) -> Value {
        let PatternSpec { prefix, charset, length, group } = &self.spec;
        serde_json::json!({
            "prefix": prefix.to_ascii_uppercase(), "charset": charset.to_ascii_uppercase(), "length": length,
            "group": group,
        })
    }
}

fn spec(mut fields: Fields, faults: &mut Faults) -> PatternSpec {
    let mut spec = PatternSpec::default();
    // What is out of the pattern's own bounds is refused there, with a better word; these only keep it small.
    if let Some(prefix) = fields.text("prefix", 0..=256, faults) {
        spec.prefix = prefix;
    }
    if let Some(charset) = fields.text("charset", 0..=256, faults) {
        spec.charset = charset;
    }
    let mut number = |name, number: &mut usize| {
        let given = fields.integer(name, 0..=1_000, faults);
        *number = given.and_then(|given| usize::try_from(given).ok()).unwrap_or(*number);
    };
    number("length", &mut spec.length);
    number("group", &mut spec.group);
    fields.end(faults);
    spec
}

fn field(error: &PatternError) -> String {
    format!("pattern.{}", error.field)
}

/// Generate codes for a coupon.
///
/// They become stock, all at once, when the job's state is `applied`.
#[utoipa::path(
    post, path = "/v1/coupons/{coupon_id}/codes/generate", tag = "codes",
    params(("coupon_id" = String, Path, description = "The coupon")),
    request_body = GenerateBody,
    responses(
        (status = 202, description = "Begun; Location names the job", body = JobView),
        (status = 403, description = "Needs the role admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "There is no such coupon", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid values, or a pattern too small or too guessable", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(coupon_id): Named,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let wanted = Wanted::read(body)?;
    let no_coupon = || Problem::not_found("there is no such coupon");
    if !is_coupon_id(&coupon_id) {
        return Err(no_coupon());
    }
    let pattern_json = wanted.pattern_json();
    let doing = "opening a load of codes";
    // Codes that exist already make guessing easier, whichever coupon they are of.
    let before = app.ask(doing, app.loads.asked_for(&pattern_json)).await?;
    let all = u64::try_from(before.saturating_add(wanted.count)).unwrap_or(u64::MAX);
    let room = wanted.pattern.ensure_room(all);
    room.map_err(|error| Problem::invalid_field(&field(&error), error.fault.to_string()))?;
    let opened = app.loads.open(&coupon_id, wanted.count, wanted.pattern, pattern_json);
    let job = app.ask(doing, opened).await?.ok_or_else(no_coupon)?;
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

    fn faults(body: Value) -> String {
        Wanted::read(body).map_or_else(|problem| format!("{problem:?}"), |wanted| format!("{wanted:?}"))
    }

    #[test]
    fn a_count_alone_gets_the_default_pattern() {
        let wanted = Wanted::read(json!({"count": 1000})).expect("it is valid");
        assert_eq!((wanted.count, wanted.spec), (1000, PatternSpec::default()));
    }

    #[test]
    fn wrong_counts_and_patterns_are_refused_by_name() {
        for count in [json!(0), json!(-1), json!(10_000_001), json!("5"), json!(1.5), json!(null)] {
            assert!(faults(json!({"count": count})).contains("\"count\""), "{count}");
        }
        let found =
            faults(json!({"count": 1, "pattern": {"prefix": "a b", "charset": "AO", "length": 2, "odd": 1}}));
        for field in ["pattern.prefix", "pattern.charset", "pattern.length", "pattern.odd"] {
            assert!(found.contains(field), "{field} is missing in {found}");
        }
    }
}
