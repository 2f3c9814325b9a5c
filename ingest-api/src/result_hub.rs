//! Where outcomes arrive: every instance reads all of `coupon.responses`, wakes whoever waits, and remembers the
//! newest. What the reading may have missed is looked up in Postgres.
//!
//! Order that matters: an outcome is remembered *before* its waiters are woken and its place is given back, and a
//! waiter is registered *before* anybody looks whether the outcome is remembered. So nobody waits for an event that
//! has passed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use metrics::counter;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::lookup;
use crate::metrics as names;
use crate::outcome::Outcome;
use crate::questions::{self, Unanswered};
use crate::recent::RecentOutcomes;
use crate::sold_out_gate::SoldOutGate;
use crate::undecided::Undecided;

/// Also the pause between two gaps: a topic full of rubbish must not keep Postgres busy.
const LOOK: Duration = Duration::from_millis(250);

/// Outcomes as they arrive.
#[derive(Debug)]
pub(crate) struct ResultHub {
    /// The newest outcomes.
    pub(crate) recent: RecentOutcomes,
    /// What was sent from here and is not decided, and everybody who waits.
    pub(crate) undecided: Arc<Undecided>,
    /// The gate, which learns from outcomes.
    pub(crate) gate: SoldOutGate,
    gap: AtomicBool,
}

impl ResultHub {
    /// A hub that knows nothing yet.
    pub(crate) fn new(recent: RecentOutcomes, undecided: Arc<Undecided>, gate: SoldOutGate) -> Arc<Self> {
        Arc::new(Self { recent, undecided, gate, gap: AtomicBool::new(false) })
    }

    /// An outcome was found, on Kafka or in Postgres.
    pub(crate) fn settle(&self, outcome: Outcome, now: Instant) {
        self.gate.observe(&outcome, now);
        let outcome = Arc::new(outcome);
        self.recent.insert(Arc::clone(&outcome));
        self.undecided.settle(&outcome);
    }

    /// Some responses may have passed unread: everything undecided is looked up, soon.
    pub(crate) fn note_gap(&self) {
        counter!(names::RESPONSE_GAPS).increment(1);
        self.gap.store(true, Ordering::Release);
    }

    /// Looks up what is undecided for too long, or after a gap. Ends with the process.
    pub(crate) async fn look_up_forgotten(self: Arc<Self>, pool: PgPool, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let after_gap = self.gap.swap(false, Ordering::Acquire);
            let due = self.undecided.due(Instant::now(), after_gap);
            for ids in due.chunks(lookup::BATCH) {
                if let Err(error) = self.look_up(ids, &pool).await {
                    tracing::warn!(%error, undecided = due.len(), "undecided requests cannot be looked up");
                    // What was missed stays missed until it has been looked up.
                    self.gap.fetch_or(after_gap, Ordering::Release);
                    break;
                }
            }
        }
    }

    async fn look_up(&self, ids: &[RequestId], pool: &PgPool) -> Result<(), Unanswered> {
        let identities: Vec<u128> = ids.iter().map(|id| id.identity).collect();
        let wanted: HashSet<RequestId> = ids.iter().copied().collect();
        let mut found = 0;
        for outcome in questions::within(questions::PATIENCE, lookup::outcomes(pool, &identities)).await? {
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
    use crate::recent::tests::outcome;

    #[tokio::test]
    async fn a_waiter_hears_of_an_outcome_wherever_it_comes_between_registering_and_looking() {
        let hub = ResultHub::new(RecentOutcomes::new(100), Undecided::new(1, 10, 10), SoldOutGate::new(10));
        drop(tokio::spawn(Arc::clone(&hub.undecided.herald).run()));
        let id = RequestId { identity: 1, body: 0 };
        let waiter = hub.undecided.wait_for(id, Instant::now());
        hub.settle((*outcome(1, 0, None)).clone(), Instant::now());
        assert!(hub.recent.get(id).is_some());
        assert_eq!(waiter.await.map(|outcome| outcome.id), Some(id));
        // Too late to be woken, but in time to see it.
        drop(hub.undecided.wait_for(id, Instant::now()));
        assert!(hub.recent.get(id).is_some());
    }
}
