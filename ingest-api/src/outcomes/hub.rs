//! Where outcomes arrive: each one is cached and wakes its waiters. Outcomes that the consumer may have missed are
//! looked up in Postgres.
//!
//! Order that matters: an outcome is cached *before* its waiters are woken and its pending request is removed; a waiter
//! is registered *before* the cache is searched. So no client waits for an event that has passed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coupon_core::ids::{DAY_MS, RequestId};
use metrics::counter;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::cache::OutcomeCache;
use crate::clock::unix_ms;
use crate::db::query_pool::{QueryError, READ_TIMEOUT, with_timeout};
use crate::db::{days, outcomes};
use crate::model::outcome::Outcome;
use crate::outcomes::gate::SoldOutGate;
use crate::outcomes::pending::PendingRequests;
use crate::telemetry::metrics as names;

/// Pause between two rounds of lookups. It also bounds the load on Postgres when every record of the topic is
/// unreadable and each one is a gap.
const LOOKUP_INTERVAL: Duration = Duration::from_millis(250);

/// Outcomes as they arrive.
#[derive(Debug)]
pub(crate) struct OutcomeHub {
    /// The newest outcomes.
    pub(crate) cache: OutcomeCache,
    /// Requests sent from here without an outcome yet, and all waiters.
    pub(crate) pending: Arc<PendingRequests>,
    /// The sold-out gate, which outcomes open and close.
    pub(crate) gate: SoldOutGate,
    gap: AtomicBool,
    /// How far back the outcome of a pending request may have been decided: its request may be a duplicate.
    look_back_ms: i64,
}

impl OutcomeHub {
    /// A hub without outcomes.
    pub(crate) fn new(
        cache: OutcomeCache,
        pending: Arc<PendingRequests>,
        gate: SoldOutGate,
        deduplication_ms: i64,
    ) -> Arc<Self> {
        // It may have been pending for a day.
        let look_back_ms = deduplication_ms.saturating_add(DAY_MS);
        Arc::new(Self { cache, pending, gate, gap: AtomicBool::new(false), look_back_ms })
    }

    /// Publishes an outcome, from Kafka or Postgres, within this instance.
    pub(crate) fn settle(&self, outcome: Outcome, now: Instant) {
        self.gate.observe(&outcome, now);
        let outcome = Arc::new(outcome);
        self.cache.insert(Arc::clone(&outcome));
        self.pending.settle(&outcome);
    }

    /// Records that responses may have been missed: every pending request is looked up in the next round.
    pub(crate) fn note_gap(&self) {
        counter!(names::RESPONSE_GAPS).increment(1);
        self.gap.store(true, Ordering::Release);
    }

    /// Looks up requests that have been pending too long, and all of them after a gap. Ends with the process.
    pub(crate) async fn look_up_pending(self: Arc<Self>, pool: PgPool, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOKUP_INTERVAL) => {}
            }
            let after_gap = self.gap.swap(false, Ordering::Acquire);
            let due = self.pending.due(Instant::now(), after_gap);
            for ids in due.chunks(outcomes::BATCH) {
                if let Err(error) = self.look_up(ids, &pool).await {
                    tracing::warn!(%error, pending = due.len(), "lookup of pending requests failed");
                    // A gap stays open until its lookup has succeeded.
                    self.gap.fetch_or(after_gap, Ordering::Release);
                    break;
                }
            }
        }
    }

    async fn look_up(&self, ids: &[RequestId], pool: &PgPool) -> Result<(), QueryError> {
        let identities: Vec<u128> = ids.iter().map(|id| id.identity).collect();
        let wanted: HashSet<RequestId> = ids.iter().copied().collect();
        let mut found = 0;
        let now = unix_ms();
        let days = days::between(now.saturating_sub(self.look_back_ms), now);
        for outcome in with_timeout(READ_TIMEOUT, outcomes::find(pool, &identities, &days)).await? {
            if wanted.contains(&outcome.id) {
                self.settle(outcome, Instant::now());
                found += 1;
            }
        }
        counter!(names::FOUND_BY_LOOKUP).increment(found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::tests::outcome;

    #[tokio::test]
    async fn an_outcome_between_registration_and_cache_lookup_is_not_missed() {
        let pending = PendingRequests::new(1, 10, 10);
        let hub = OutcomeHub::new(OutcomeCache::new(100), pending, SoldOutGate::new(10), 0);
        drop(tokio::spawn(Arc::clone(&hub.pending.wake_batcher).run()));
        let id = RequestId { identity: 1, body: 0 };
        let waiter = hub.pending.wait_for(id, Instant::now());
        hub.settle(outcome(1, 0, None), Instant::now());
        assert!(hub.cache.get(id).is_some());
        assert_eq!(waiter.await.map(|outcome| outcome.id), Some(id));
        // A waiter that registers after the outcome is not woken, but finds it in the cache.
        drop(hub.pending.wait_for(id, Instant::now()));
        assert!(hub.cache.get(id).is_some());
    }
}
