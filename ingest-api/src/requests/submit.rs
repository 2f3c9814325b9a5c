//! Submits a request: an id, a place among the pending requests, Kafka's acknowledgement, `202`. If the client waits and
//! the outcome arrives in time, the response is the outcome: a decided request is in the log, so its acknowledgement
//! needs no wait.
//!
//! Order that matters: the waiter is registered before the record is sent. Once it is sent, the request gets its outcome
//! without this handler, which may be dropped at every `await`.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use coupon_core::ids::RequestId;
use coupon_core::words::Reason;
use schemas::{CouponRequest, partition_for};
use serde::Serialize;
use tokio::time::timeout_at;
use utoipa::ToSchema;

use super::ids::{Minted, Scope};
use super::payload::CommandPayload;
use super::pending::{Full, Waiter};
use super::producer::ProduceError;
use crate::app::App;
use crate::clock::unix_ms;
use crate::db::outcomes;
use crate::db::query_pool::SHORT_TIMEOUT;
use crate::http::headers::Wait;
use crate::http::problem::Problem;
use crate::http::responses::json;
use crate::outcomes::outcome::Outcome;
use crate::outcomes::view::RequestView;

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A valid request of an authorised caller.
pub(crate) struct Submission<'a> {
    /// The token's subject.
    pub(crate) caller: &'a str,
    /// The user of the request.
    pub(crate) user: &'a str,
    /// A word of [`schemas::kinds`].
    pub(crate) kind: &'static str,
    /// The record's key: the coupon; for an unknown code or redemption its own text.
    pub(crate) coupon_id: &'a str,
    /// The whole target of the URL, normalised: a coupon, a code or a redemption.
    pub(crate) target: &'a str,
    /// The other fields of the record.
    pub(crate) payload: CommandPayload,
    /// The Idempotency-Key.
    pub(crate) key: Option<&'a str>,
    /// How long the client waits.
    pub(crate) wait: Option<Wait>,
}

/// A request that is accepted and not decided yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted<'a> {
    request_id: &'a str,
    /// Always `pending`.
    status: &'static str,
    links: Links<'a>,
}

/// Where to read the outcome.
#[derive(Serialize, ToSchema)]
struct Links<'a> {
    /// The request and, later, its outcome.
    #[serde(rename = "self")]
    this: &'a str,
    /// The same, with a response when the request is decided.
    wait: String,
}

/// Submits a request.
///
/// # Errors
/// 422 for a key known to be used with another body; 503 if the request was not submitted or its delivery is not
/// confirmed.
pub(crate) async fn submit(app: &App, submission: Submission<'_>) -> Result<Response, Problem> {
    let partition = partition_for(submission.coupon_id.as_bytes(), app.partitions);
    let minted = mint(app, &submission, partition);
    if minted.id.is_keyed()
        && let Some(outcome) = known_outcome(app, minted.id).await?
    {
        return Ok(replayed(&minted.shown, &outcome));
    }
    let now = Instant::now();
    app.hub.pending.admit(minted.id, partition, now).map_err(|full| rejected(app, full))?;
    let wait = submission.wait.map(|wait| (wait, app.hub.pending.wait_for(minted.id, now)));
    let waiter = wait.as_ref().map(|(_, waiter)| waiter.id);
    let acknowledgement = app
        .producer
        .send_request(&record(&minted, submission), partition, minted.id, now, waiter)
        .map_err(|error| not_accepted(app, &error))?;
    if let Some((wait, waiter)) = wait
        && let Some(outcome) = in_time(app, waiter, now + wait.limit).await
    {
        return Ok(decided(&minted.shown, &outcome, Some(wait)));
    }
    if let Err(error) = acknowledgement.received().await {
        return match app.hub.cache.get(minted.id) {
            // Decided before the acknowledgement timed out: the record is in the log.
            Some(outcome) => Ok(decided(&minted.shown, &outcome, None)),
            None => Err(not_accepted(app, &error)),
        };
    }
    Ok(accepted(&minted.shown))
}

/// The outcome, if it arrives before the deadline and before the process stops.
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
            app.ids.mint_keyed(&scope, &submission.payload.canonical(), unix_ms())
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
        ..submission.payload.record()
    }
}

/// The outcome of a request with a key, from the cache or from Postgres.
async fn known_outcome(app: &App, id: RequestId) -> Result<Option<Arc<Outcome>>, Problem> {
    let cache = &app.hub.cache;
    let known = match cache.get(id) {
        Some(outcome) => Some(outcome),
        None if cache.is_reused(id) => return Err(Problem::key_reused()),
        None => stored_outcome(app, id).await?,
    };
    match known {
        Some(outcome) if outcome.is_rejected_as(Reason::IdempotencyKeyReused) => Err(Problem::key_reused()),
        known => Ok(known),
    }
}

async fn stored_outcome(app: &App, id: RequestId) -> Result<Option<Arc<Outcome>>, Problem> {
    let identities = [id.identity];
    let query = async { outcomes::find(&mut *app.query_pool.connection().await?, &identities).await };
    // Without a response the request is sent: the owner publishes the stored outcome of a duplicate.
    let Ok(outcomes) = app.query_pool.run(SHORT_TIMEOUT, query).await else { return Ok(None) };
    if let Some(outcome) = outcomes.iter().find(|outcome| outcome.id == id) {
        return Ok(Some(Arc::new(outcome.clone())));
    }
    // An outcome of another body only: that request was the first with this key.
    if outcomes.is_empty() { Ok(None) } else { Err(Problem::key_reused()) }
}

/// Counts a request over a bound, and returns its 503.
pub(crate) fn rejected(app: &App, full: Full) -> Problem {
    match full {
        Full::Instance => {
            app.handles.instance_full.increment(1);
            Problem::overloaded("too many requests are pending; this one was not submitted; retry")
        }
        Full::Partition => {
            app.handles.partition_full.increment(1);
            Problem::overloaded(
                "too many requests are pending for this coupon; this one was not submitted; retry",
            )
        }
    }
}

fn not_accepted(app: &App, error: &ProduceError) -> Problem {
    match error {
        ProduceError::QueueFull => {
            app.handles.queue_full.increment(1);
            Problem::overloaded("the producer queue is full; the request was not submitted; retry")
        }
        ProduceError::Unacknowledged(error) => {
            app.handles.unacknowledged.increment(1);
            tracing::debug!(%error, "request not acknowledged");
            Problem::unavailable("delivery not confirmed; retry with the same Idempotency-Key")
        }
        ProduceError::Encode(error) => {
            tracing::error!(%error, "valid request cannot be encoded");
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
    let mut response = json(StatusCode::OK, &RequestView::decided(shown, outcome));
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

/// Confirms a preference that was applied.
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
    // Ids consist of letters, digits, hyphens, underscores and a dot.
    if let Ok(value) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}
