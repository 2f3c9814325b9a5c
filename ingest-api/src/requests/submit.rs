//! Submits a request: an id, a place among the pending requests, Kafka's acknowledgement, `202`. If the client waits
//! and the outcome arrives in time, the response is the outcome: a decided request is in the log, so its
//! acknowledgement needs no wait.
//!
//! Order that matters: the waiter is registered before the record is sent. Once it is sent, the request gets its
//! outcome without this handler, which may be dropped at every `await`.

use std::sync::Arc;
use std::time::Instant;

use axum::response::Response;
use coupon_core::ids::RequestId;
use coupon_core::words::Reason;
use schemas::{CouponRequest, partition_for};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::command::Command;
use super::context::RequestContext;
use super::ids::{Minted, RequestIds, Scope};
use super::producer::{ProduceError, RequestProducer};
use super::responses::{accepted, decided, replayed};
use crate::clock::unix_ms;
use crate::db::query_pool::{QueryPool, SHORT_TIMEOUT};
use crate::db::{days, outcomes};
use crate::http::problem::Problem;
use crate::model::outcome::Outcome;
use crate::outcomes::hub::OutcomeHub;
use crate::outcomes::pending::Waiter;
use crate::telemetry::metrics::SubmitMetrics;

/// Submits requests, and waits for their outcomes.
pub(crate) struct Submitter {
    pub(crate) ids: RequestIds,
    pub(crate) producer: Arc<RequestProducer>,
    pub(crate) hub: Arc<OutcomeHub>,
    pub(crate) query_pool: Arc<QueryPool>,
    /// The owners' deduplication window.
    pub(crate) deduplication_ms: i64,
    /// Recorded number of partitions of `coupon.requests`.
    pub(crate) partitions: i32,
    pub(crate) metrics: SubmitMetrics,
    /// Cancelled at shutdown: waiting clients get their 202.
    pub(crate) stopping: CancellationToken,
}

/// The state of a router whose handlers submit requests.
pub(crate) trait HasSubmitter: Send + Sync {
    /// Submits requests.
    fn submitter(&self) -> &Submitter;
}

impl Submitter {
    /// Submits a request.
    ///
    /// # Errors
    /// 422 for a key known to be used with another body; 503 if the request was not submitted or its delivery is not
    /// confirmed.
    pub(crate) async fn submit(
        &self,
        context: &RequestContext,
        command: Command<'_>,
    ) -> Result<Response, Problem> {
        let partition = partition_for(command.coupon_id.as_bytes(), self.partitions);
        let minted = self.mint(context, &command, partition);
        let id = minted.id;
        if id.is_keyed()
            && let Some(outcome) = self.known_outcome(id).await?
        {
            return Ok(replayed(&minted.shown, &outcome));
        }
        let (pending, now) = (&self.hub.pending, Instant::now());
        pending.admit(id, partition, now).map_err(|full| self.overloaded(full))?;
        let wait = context.wait.map(|wait| (wait, pending.wait_for(id, now)));
        let waiter = wait.as_ref().map(|(_, waiter)| waiter.id);
        let acknowledgement = self
            .producer
            .send_request(&record(&minted, context, command), partition, id, now, waiter)
            .map_err(|error| self.not_accepted(&error))?;
        if let Some((wait, waiter)) = wait
            && let Some(outcome) = self.outcome_in_time(waiter, now + wait.limit).await
        {
            return Ok(decided(&minted.shown, &outcome, Some(wait)));
        }
        if let Err(error) = acknowledgement.received().await {
            return match self.hub.cache.get(id) {
                // Decided before the acknowledgement timed out: the record is in the log.
                Some(outcome) => Ok(decided(&minted.shown, &outcome, None)),
                None => Err(self.not_accepted(&error)),
            };
        }
        Ok(accepted(&minted.shown))
    }

    /// The outcome, if it arrives before the deadline and before the process stops.
    pub(crate) async fn outcome_in_time(&self, waiter: Waiter, deadline: Instant) -> Option<Arc<Outcome>> {
        tokio::select! {
            outcome = timeout_at(deadline.into(), waiter) => outcome.ok().flatten(),
            () = self.stopping.cancelled() => None,
        }
    }

    fn mint(&self, context: &RequestContext, command: &Command<'_>, partition: i32) -> Minted {
        match &context.key {
            None => self.ids.mint(command.user, unix_ms()),
            Some(key) => {
                let scope = Scope {
                    caller: &context.caller.sub,
                    user: command.user,
                    operation: command.kind,
                    target: command.target,
                    partition,
                    key,
                };
                self.ids.mint_keyed(&scope, &command.payload.canonical(), unix_ms())
            }
        }
    }

    /// The outcome of a request with a key, from the cache or from Postgres.
    async fn known_outcome(&self, id: RequestId) -> Result<Option<Arc<Outcome>>, Problem> {
        let cache = &self.hub.cache;
        let known = match cache.get(id) {
            Some(outcome) => Some(outcome),
            None if cache.is_reused(id) => return Err(Problem::key_reused()),
            None => self.stored_outcome(id).await?,
        };
        match known {
            Some(outcome) if outcome.is_rejected_as(Reason::IdempotencyKeyReused) => {
                Err(Problem::key_reused())
            }
            known => Ok(known),
        }
    }

    async fn stored_outcome(&self, id: RequestId) -> Result<Option<Arc<Outcome>>, Problem> {
        let identities = [id.identity];
        let now = unix_ms();
        let days = days::between(now.saturating_sub(self.deduplication_ms), now);
        let query =
            async { outcomes::find(&mut *self.query_pool.connection().await?, &identities, &days).await };
        // Without a response the request is sent: the owner publishes the stored outcome of a duplicate.
        let Ok(outcomes) = self.query_pool.run(SHORT_TIMEOUT, query).await else { return Ok(None) };
        if let Some(outcome) = outcomes.iter().find(|outcome| outcome.id == id) {
            return Ok(Some(Arc::new(outcome.clone())));
        }
        // An outcome of another body only: that request was the first with this key.
        if outcomes.is_empty() { Ok(None) } else { Err(Problem::key_reused()) }
    }

    fn not_accepted(&self, error: &ProduceError) -> Problem {
        match error {
            ProduceError::QueueFull => {
                self.metrics.queue_full.increment(1);
                Problem::overloaded("the producer queue is full; the request was not submitted; retry")
            }
            ProduceError::Unacknowledged(error) => {
                self.metrics.unacknowledged.increment(1);
                tracing::debug!(%error, "request not acknowledged");
                Problem::unavailable("delivery not confirmed; retry with the same Idempotency-Key")
            }
            ProduceError::Encode(error) => {
                tracing::error!(%error, "valid request cannot be encoded");
                Problem::internal()
            }
        }
    }
}

fn record(minted: &Minted, context: &RequestContext, command: Command<'_>) -> CouponRequest {
    let caller = &context.caller.sub;
    CouponRequest {
        request_id: minted.id.to_string(),
        kind: command.kind.to_owned(),
        coupon_id: command.coupon_id.to_owned(),
        user_id: command.user.to_owned(),
        minted_at_ms: minted.at_ms,
        caller: (caller != command.user).then(|| caller.clone()),
        ..command.payload.record()
    }
}
