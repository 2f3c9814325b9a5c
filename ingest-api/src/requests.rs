//! `GET /v1/requests/{request_id}`: what became of a request.
//!
//! Guarantees: `pending` is answered only for an id that was really given out, to its user, and only as long as it
//! can be true; everybody else's ids look like ids that never were.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;

use crate::accept::{in_time, json, set_applied};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::clock::unix_ms;
use crate::extract::{Named, Wait};
use crate::lookup;
use crate::outcome::{Outcome, RequestView};
use crate::problem::{Problem, ProblemBody};
use crate::questions::PATIENCE;
use crate::request_ids::Verified;

/// What became of a request.
///
/// With `?wait=N` or `Prefer: wait=N` the answer comes when the request is decided, or after N seconds.
#[utoipa::path(
    get, path = "/v1/requests/{request_id}", tag = "requests",
    params(
        ("request_id" = String, Path, description = "As it was given out"),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for the outcome, at most 30"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, as the parameter"),
    ),
    responses(
        (status = 200, description = "The outcome, or `pending` (with Retry-After)", body = RequestView),
        (status = 404, description = "Not an id that was given out to this user", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "The outcome has been dropped by age", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(shown): Named,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wait = Wait::of(&uri, &headers)?;
    let verified = allowed(&app, &caller, &shown)?;
    let now = Instant::now();
    let Some(limit) = wait.map(|wait| wait.limit) else {
        let found = find(&app, verified, PATIENCE).await?;
        return Ok(answer(&shown, found.as_deref(), None));
    };
    // Registered before looking: nothing falls between.
    let mut waiter = pin!(in_time(&app, app.hub.undecided.wait_for(verified.id, now), now + limit));
    let outcome = tokio::select! {
        // Told while Postgres was asked: its answer is not needed any more.
        outcome = &mut waiter => Some(outcome.ok_or_else(|| {
            Problem::unavailable("the database did not say in time what became of the request; try again")
        })?),
        found = find(&app, verified, limit.min(PATIENCE)) => match found? {
            Some(outcome) => Some(outcome),
            None => waiter.await,
        },
    };
    Ok(answer(&shown, outcome.as_deref(), wait))
}

/// The request, if it is the caller's, or the caller is a service. An admin sees what an admin asked for.
fn allowed(app: &App, caller: &Caller, shown: &str) -> Result<Verified, Problem> {
    let verified = app.ids.verify(shown);
    if let Some(own) = verified.filter(|id| app.ids.belongs_to(id, &caller.sub)) {
        return Ok(own);
    }
    caller.require(&[Role::User, Role::Service])?;
    let known = verified.filter(|_| caller.roles.has(Role::Service));
    known.ok_or_else(|| Problem::not_found("there is no such request"))
}

async fn find(app: &App, verified: Verified, patience: Duration) -> Result<Option<Arc<Outcome>>, Problem> {
    if let Some(outcome) = app.hub.recent.get(verified.id) {
        return Ok(Some(outcome));
    }
    // Sent from here and not seen decided: the hub looks it up by age, so not everybody who polls has to.
    if app.hub.undecided.holds(verified.id) {
        return Ok(None);
    }
    let identities = [verified.id.identity];
    let asked = async { lookup::outcomes(app.questions.connection().await?.server(), &identities).await };
    let stored = app.questions.ask(patience, asked).await;
    let stored = stored.map_err(|error| Problem::database("reading an outcome", &error))?;
    if let Some(outcome) = stored.into_iter().find(|outcome| outcome.id == verified.id) {
        return Ok(Some(Arc::new(outcome)));
    }
    if unix_ms() - verified.at_ms > app.config.retention_ms() {
        return Err(Problem::gone("the outcome of this request has been dropped by age"));
    }
    Ok(None)
}

fn answer(shown: &str, outcome: Option<&Outcome>, wait: Option<Wait>) -> Response {
    let view = outcome.map_or_else(|| RequestView::pending(shown), |outcome| outcome.view(shown));
    let mut response = json(StatusCode::OK, &view);
    if outcome.is_none() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(wait) = wait {
        set_applied(&mut response, wait);
    }
    response
}
