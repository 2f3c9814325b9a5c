//! The one way by which a request is accepted: an id, a place among the undecided, Kafka's acknowledgement, `202`;
//! or, if the client waits and it comes in time, the outcome alone: what is decided was acknowledged.
//!
//! Order that matters: the waiter is registered before the record is sent; from the moment it is sent, nothing
//! here is needed any more for the request to get its outcome (the handler may be dropped at every `await`).

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use coupon_core::ids::RequestId;
use coupon_core::words::Reason;
use schemas::{CouponRequest, partition_for};
use serde::Serialize;
use tokio::time::timeout_at;
use utoipa::ToSchema;

use crate::app::App;
use crate::clock::unix_ms;
use crate::extract::Wait;
use crate::lookup;
use crate::outcome::Outcome;
use crate::problem::Problem;
use crate::questions::BRIEF_PATIENCE;
use crate::request_ids::{Minted, Scope};
use crate::request_sink::{Sent, SinkError};
use crate::said::Said;
use crate::undecided::{Full, Waiter};

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A valid request of an authorised caller.
pub(crate) struct Submission<'a> {
    /// The token's subject.
    pub(crate) caller: &'a str,
    /// The user it is for.
    pub(crate) user: &'a str,
    /// A word of [`schemas::kinds`].
    pub(crate) kind: &'static str,
    /// The coupon, which is the record's key; for a code or redemption that nobody knows, its own text.
    pub(crate) coupon_id: &'a str,
    /// The whole target as the address names it: a coupon, a code (normalised), a redemption.
    pub(crate) target: &'a str,
    /// What else it says.
    pub(crate) said: Said,
    /// The Idempotency-Key.
    pub(crate) key: Option<&'a str>,
    /// How long the client waits.
    pub(crate) wait: Option<Wait>,
}

/// A request that was accepted and is not decided.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted<'a> {
    request_id: &'a str,
    /// Always `pending` here.
    status: &'static str,
    links: Links<'a>,
}

/// Where to go on.
#[derive(Serialize, ToSchema)]
struct Links<'a> {
    /// The request and, later, its outcome.
    #[serde(rename = "self")]
    this: &'a str,
    /// The same, answered when it is decided.
    wait: String,
}

/// Accepts a request.
///
/// # Errors
/// 422 for a key known to be used with another body; 503 when it could not be accepted, or nobody knows whether
/// it was.
pub(crate) async fn submit(app: &App, submission: Submission<'_>) -> Result<Response, Problem> {
    let partition = partition_for(submission.coupon_id.as_bytes(), app.partitions);
    let minted = mint(app, &submission, partition);
    if minted.id.is_keyed()
        && let Some(outcome) = known_outcome(app, minted.id).await?
    {
        return Ok(replayed(&minted.shown, &outcome));
    }
    let now = Instant::now();
    app.hub.undecided.admit(minted.id, partition, now).map_err(|full| refuse(app, full))?;
    let wait = submission.wait.map(|wait| (wait, app.hub.undecided.wait_for(minted.id, now)));
    let waiter = wait.as_ref().map(|(_, waiter)| waiter.ticket);
    let sent = Sent { id: minted.id, since: now, waiter };
    let acknowledgement = app
        .sink
        .send_request(&record(&minted, submission), partition, sent)
        .map_err(|error| unsent(app, &error))?;
    // What is decided was in the log, so there is nothing else to wait for.
    if let Some((wait, waiter)) = wait
        && let Some(outcome) = in_time(app, waiter, now + wait.limit).await
    {
        return Ok(decided(&minted.shown, &outcome, Some(wait)));
    }
    if let Err(error) = acknowledgement.received().await {
        return match app.hub.recent.get(minted.id) {
            // Decided before the acknowledgement was given up: it was in the log.
            Some(outcome) => Ok(decided(&minted.shown, &outcome, None)),
            None => Err(unsent(app, &error)),
        };
    }
    Ok(accepted(&minted.shown))
}

/// The outcome, if it comes before the deadline and before the process stops.
pub(crate) async fn in_time(app: &App, waiter: Waiter, deadline: Instant) -> Option<Arc<Outcome>> {
    tokio::select! {
        outcome = timeout_at(deadline.into(), waiter) => outcome.ok().flatten(),
        () = app.stopping.cancelled() => None,
    }
}

fn mint(app: &App, submission: &Submission<'_>, partition: i32) -> Minted {
    match submission.key {
        None => app.ids.mint(submission.user, unix_ms()),
        Some(key) => {
            let scope = Scope {
                caller: submission.caller,
                user: submission.user,
                operation: submission.kind,
                target: submission.target,
                partition,
                key,
            };
            app.ids.mint_keyed(&scope, &submission.said.canonical(), unix_ms())
        }
    }
}

fn record(minted: &Minted, submission: Submission<'_>) -> CouponRequest {
    CouponRequest {
        request_id: minted.id.to_string(),
        kind: submission.kind.to_owned(),
        coupon_id: submission.coupon_id.to_owned(),
        user_id: submission.user.to_owned(),
        minted_at_ms: minted.at_ms,
        caller: (submission.caller != submission.user).then(|| submission.caller.to_owned()),
        ..submission.said.record()
    }
}

/// What is known of a request with a key, here or in Postgres.
async fn known_outcome(app: &App, id: RequestId) -> Result<Option<Arc<Outcome>>, Problem> {
    let recent = &app.hub.recent;
    let known = match recent.get(id) {
        Some(outcome) => Some(outcome),
        None if recent.is_reused(id) => return Err(Problem::key_reused()),
        None => stored_outcome(app, id).await?,
    };
    match known {
        Some(outcome) if outcome.is_rejected_as(Reason::IdempotencyKeyReused) => Err(Problem::key_reused()),
        known => Ok(known),
    }
}

async fn stored_outcome(app: &App, id: RequestId) -> Result<Option<Arc<Outcome>>, Problem> {
    let identities = [id.identity];
    let asked = async { lookup::outcomes(app.questions.connection().await?.server(), &identities).await };
    // Without an answer it is sent: the owner answers a repetition with what is stored.
    let Ok(outcomes) = app.questions.ask(BRIEF_PATIENCE, asked).await else { return Ok(None) };
    if let Some(outcome) = outcomes.iter().find(|outcome| outcome.id == id) {
        return Ok(Some(Arc::new(outcome.clone())));
    }
    // Nothing of this body, but of another one: that one came first.
    if outcomes.is_empty() { Ok(None) } else { Err(Problem::key_reused()) }
}

/// 503, and counted.
pub(crate) fn refuse(app: &App, full: Full) -> Problem {
    match full {
        Full::Instance => {
            app.handles.instance_full.increment(1);
            Problem::overloaded("too many requests are undecided; nothing was taken, try again")
        }
        Full::Partition => {
            app.handles.partition_full.increment(1);
            Problem::overloaded(
                "too many requests for this coupon are undecided; nothing was taken, try again",
            )
        }
    }
}

fn unsent(app: &App, error: &SinkError) -> Problem {
    match error {
        SinkError::QueueFull => {
            app.handles.queue_full.increment(1);
            Problem::overloaded("the queue is full; nothing was taken, try again")
        }
        SinkError::Unacknowledged(error) => {
            app.handles.unacknowledged.increment(1);
            tracing::debug!(%error, "a request was not acknowledged");
            Problem::unavailable(
                "nobody can say whether the request was taken; with an Idempotency-Key it can be repeated safely",
            )
        }
        SinkError::Encode(error) => {
            tracing::error!(%error, "a valid request cannot be encoded");
            Problem::internal()
        }
    }
}

/// 202: durable, and will be decided.
pub(crate) fn accepted(shown: &str) -> Response {
    let location = location(shown);
    let wait = format!("{location}?wait=30");
    let body = Accepted { request_id: shown, status: "pending", links: Links { this: &location, wait } };
    let mut response = json(StatusCode::ACCEPTED, &body);
    set_location(&mut response, &location);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// 200 with the outcome.
fn decided(shown: &str, outcome: &Outcome, wait: Option<Wait>) -> Response {
    let mut response = json(StatusCode::OK, &outcome.view(shown));
    set_location(&mut response, &location(shown));
    if let Some(wait) = wait {
        set_applied(&mut response, wait);
    }
    response
}

fn replayed(shown: &str, outcome: &Outcome) -> Response {
    let mut response = decided(shown, outcome, None);
    response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    response
}

/// Says that a preference was heeded.
pub(crate) fn set_applied(response: &mut Response, wait: Wait) {
    if wait.preferred
        && let Ok(value) = HeaderValue::try_from(format!("wait={}", wait.limit.as_secs()))
    {
        response.headers_mut().insert(APPLIED.clone(), value);
    }
}

fn location(shown: &str) -> String {
    ["/v1/requests/", shown].concat()
}

fn set_location(response: &mut Response, location: &str) {
    // Ids are of letters, digits, hyphens, underscores and a dot.
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(512);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => {
            let content_type = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Problem::internal().into_response()
        }
    }
}
