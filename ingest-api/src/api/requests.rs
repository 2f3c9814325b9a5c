//! `GET /v1/requests/{request_id}`: a request and its outcome.
//!
//! Guarantees: `pending` is returned only for an id that the API issued, to its user, and only as long as it can be
//! true; another user's id gets the same response as an invalid one.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use coupon_core::ids::{DAY_MS, RequestId};

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::clock::unix_ms;
use crate::db::query_pool::READ_TIMEOUT;
use crate::db::{days, outcomes};
use crate::http::headers::Wait;
use crate::http::parameters::PathName;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::responses::json;
use crate::model::outcome::Outcome;
use crate::outcomes::view::RequestView;
use crate::requests::ids::Verified;
use crate::requests::responses::set_applied;

/// Read a request and its outcome.
///
/// With `?wait=N` or `Prefer: wait=N` the response is sent when the request is decided, or after N seconds.
#[utoipa::path(
    get, path = "/v1/requests/{request_id}", tag = "requests",
    params(
        ("request_id" = String, Path, description = "From the response that accepted the request"),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for the outcome, at most 30"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`; the same as the parameter"),
    ),
    responses(
        (status = 200, description = "The outcome, or `pending` (with Retry-After)", body = RequestView),
        (status = 404, description = "Not a request of this user", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "The outcome was deleted at the end of its retention", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathName(shown): PathName,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = Wait::of(&uri, &headers)?;
    let verified = verify(&app, &caller, &shown)?;
    let now = Instant::now();
    let Some(limit) = wait.map(|wait| wait.limit) else {
        let found = find(&app, verified, READ_TIMEOUT).await?;
        return Ok(respond(&shown, found.as_deref(), None));
    };
    // Registered before the search, so that an outcome that arrives in between is not missed.
    let waiter = app.requests.hub.pending.wait_for(verified.id, now);
    let mut waiter = pin!(app.requests.outcome_in_time(waiter, now + limit));
    let outcome = tokio::select! {
        // The outcome arrived during the query, whose result is no longer needed.
        outcome = &mut waiter => Some(outcome.ok_or_else(|| {
            Problem::unavailable("the database did not return the outcome in time; retry")
        })?),
        found = find(&app, verified, limit.min(READ_TIMEOUT)) => match found? {
            Some(outcome) => Some(outcome),
            None => waiter.await,
        },
    };
    Ok(respond(&shown, outcome.as_deref(), wait))
}

/// Verifies that the request is the caller's, or that the caller is a service. An admin sees only its own requests.
fn verify(app: &App, caller: &Caller, shown: &str) -> Result<Verified, Problem> {
    let verified = app.requests.ids.verify(shown);
    if let Some(own) = verified.filter(|id| app.requests.ids.belongs_to(id, &caller.sub)) {
        return Ok(own);
    }
    caller.require(&[Role::User, Role::Service])?;
    let visible = verified.filter(|_| caller.roles.has(Role::Service));
    visible.ok_or_else(|| Problem::not_found("no such request"))
}

async fn find(app: &App, verified: Verified, limit: Duration) -> Result<Option<Arc<Outcome>>, Problem> {
    if let Some(outcome) = app.requests.hub.cache.get(verified.id) {
        return Ok(Some(outcome));
    }
    // Pending here: the hub looks it up by age, so a client that polls needs no query of its own.
    if app.requests.hub.pending.contains(verified.id) {
        return Ok(None);
    }
    let (now, minted) = (unix_ms(), verified.at_ms);
    // A duplicate has the outcome of a request within the window before it.
    let days = days::between(minted.saturating_sub(app.config.deduplication_ms()), minted);
    if let Some(outcome) = stored(app, verified.id, &days, limit).await? {
        return Ok(Some(outcome));
    }
    if now - minted > app.config.retention_ms() {
        return Err(Problem::gone("the outcome of this request was deleted at the end of its retention"));
    }
    // It was decided much later, for example after an operator replayed it.
    let later = days::between(minted.saturating_add(2 * DAY_MS), now);
    if later.is_empty() { Ok(None) } else { stored(app, verified.id, &later, limit).await }
}

async fn stored(
    app: &App,
    id: RequestId,
    days: &[i32],
    limit: Duration,
) -> Result<Option<Arc<Outcome>>, Problem> {
    let identities = [id.identity];
    let query = async { outcomes::find(&mut *app.query_pool.connection().await?, &identities, days).await };
    let found = app.query_within(limit, "reading an outcome", query).await?;
    Ok(found.into_iter().find(|outcome| outcome.id == id).map(Arc::new))
}

fn respond(shown: &str, outcome: Option<&Outcome>, wait: Option<Wait>) -> Response {
    let view =
        outcome.map_or_else(|| RequestView::pending(shown), |outcome| RequestView::decided(shown, outcome));
    let mut response = json(StatusCode::OK, &view);
    if outcome.is_none() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(wait) = wait {
        set_applied(&mut response, wait);
    }
    response
}
