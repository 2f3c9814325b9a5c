//! Requests that this instance has sent without an outcome yet, and the waiters for outcomes.
//!
//! Guarantees: the number of pending requests is bounded, for the instance and for each partition (one hot coupon
//! cannot use up the places of all); a waiter that is registered before its request is sent is woken by the outcome,
//! from whichever source; everything pending is looked up in Postgres by age, so no client waits for an event that has
//! passed.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::wake_batcher::WakeBatcher;
use crate::model::outcome::Outcome;

const SHARDS: usize = 64;
/// Age at which a request is looked up; each unsuccessful lookup doubles the pause before the next.
const FIRST_LOOKUP: Duration = Duration::from_secs(3);
const MAX_LOOKUP_PAUSE: Duration = Duration::from_secs(60);
/// Age at which a request without waiters is dropped (an operator skipped its record): its place becomes free.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Identifies one waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterId(u64);

/// The bound that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The bound of the instance.
    Instance,
    /// The bound of the partition.
    Partition,
}

/// Pending requests and their waiters.
#[derive(Debug)]
pub(crate) struct PendingRequests {
    shards: Vec<Mutex<Shard>>,
    total: AtomicUsize,
    partitions: Vec<AtomicUsize>,
    /// Never reused: a new entry for the same request must not contain the waiter ids of a previous one.
    next_waiter: AtomicU64,
    bound: usize,
    partition_bound: usize,
    /// Wakes the waiters.
    pub(crate) wake_batcher: Arc<WakeBatcher<Arc<Outcome>>>,
}

type Shard = HashMap<RequestId, Entry, RandomState>;

#[derive(Debug)]
struct Entry {
    /// Sends from this instance that have not failed; 0 if there are only waiters.
    sends: u32,
    partition: i32,
    since: Instant,
    lookup_at: Instant,
    lookups: u32,
    waiters: Vec<(WaiterId, oneshot::Sender<Arc<Outcome>>)>,
}

impl Entry {
    fn new(partition: i32, now: Instant) -> Self {
        let lookup_at = now + FIRST_LOOKUP;
        Self { sends: 0, partition, since: now, lookup_at, lookups: 0, waiters: Vec::new() }
    }
}

impl PendingRequests {
    /// At most `bound` requests, of which at most `partition_bound` in each partition.
    pub(crate) fn new(partitions: i32, bound: usize, partition_bound: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            total: AtomicUsize::new(0),
            partitions: (0..partitions).map(|_| AtomicUsize::new(0)).collect(),
            next_waiter: AtomicU64::new(0),
            bound,
            partition_bound,
            wake_batcher: WakeBatcher::new(),
        })
    }

    /// Takes a place for a request that is about to be sent.
    ///
    /// # Errors
    /// [`Full`]; no place was taken.
    pub(crate) fn admit(&self, id: RequestId, partition: i32, now: Instant) -> Result<(), Full> {
        let mut shard = self.shard(id);
        let entry = shard.entry(id).or_insert_with(|| Entry::new(partition, now));
        if entry.sends == 0
            && let Err(full) = self.take_place(partition)
        {
            if entry.waiters.is_empty() {
                shard.remove(&id);
            }
            return Err(full);
        }
        entry.partition = partition;
        entry.sends += 1;
        Ok(())
    }

    /// One send of the request has failed, or its result is unknown and was reported as such.
    pub(crate) fn send_failed(&self, id: RequestId) {
        let mut shard = self.shard(id);
        let Some(entry) = shard.get_mut(&id).filter(|entry| entry.sends > 0) else { return };
        entry.sends -= 1;
        if entry.sends == 0 {
            self.release_place(entry.partition);
            if entry.waiters.is_empty() {
                shard.remove(&id);
            }
        }
    }

    /// Waits for the outcome of a request, sent from any instance. Search the cache *after* this.
    pub(crate) fn wait_for(self: &Arc<Self>, id: RequestId, now: Instant) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        let waiter = WaiterId(self.next_waiter.fetch_add(1, Relaxed));
        self.shard(id).entry(id).or_insert_with(|| Entry::new(0, now)).waiters.push((waiter, sender));
        Waiter { pending: Arc::clone(self), request: id, id: waiter, receiver }
    }

    /// Removes one waiter, which ends without an outcome.
    pub(crate) fn cancel_wait(&self, id: RequestId, waiter: WaiterId) {
        let mut shard = self.shard(id);
        let Some(entry) = shard.get_mut(&id) else { return };
        // Dropping the sender wakes the waiter.
        entry.waiters.retain(|(other, _)| *other != waiter);
        if entry.waiters.is_empty() && entry.sends == 0 {
            shard.remove(&id);
        }
    }

    /// The request is decided: wakes its waiters and releases its place.
    pub(crate) fn settle(&self, outcome: &Arc<Outcome>) {
        let Some(entry) = self.shard(outcome.id).remove(&outcome.id) else { return };
        if entry.sends > 0 {
            self.release_place(entry.partition);
        }
        for (_, waiter) in entry.waiters {
            self.wake_batcher.send(waiter, Arc::clone(outcome));
        }
    }

    /// Whether the request was sent from here and has no outcome yet.
    pub(crate) fn contains(&self, id: RequestId) -> bool {
        self.shard(id).get(&id).is_some_and(|entry| entry.sends > 0)
    }

    /// The requests to look up now; `all` of them after a gap in the consumption of responses.
    pub(crate) fn due(&self, now: Instant, all: bool) -> Vec<RequestId> {
        let mut due = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|id, entry| {
                if all || entry.lookup_at <= now {
                    due.push(*id);
                    let pause = FIRST_LOOKUP * 2_u32.saturating_pow(entry.lookups.min(8));
                    // A waiting client waits for half a minute at most.
                    let longest = if entry.waiters.is_empty() { MAX_LOOKUP_PAUSE } else { FIRST_LOOKUP };
                    entry.lookup_at = now + pause.min(longest);
                    entry.lookups = entry.lookups.saturating_add(1);
                }
                let kept = !entry.waiters.is_empty() || now.duration_since(entry.since) < MAX_AGE;
                if !kept && entry.sends > 0 {
                    self.release_place(entry.partition);
                }
                kept
            });
        }
        due
    }

    /// The bound that is reached at the moment, of the instance or of this partition. It may change before a place is
    /// [taken](Self::admit).
    pub(crate) fn full(&self, partition: Option<i32>) -> Option<Full> {
        if self.len() >= self.bound {
            return Some(Full::Instance);
        }
        let places = partition.and_then(|partition| self.places(partition))?;
        (places.load(Relaxed) >= self.partition_bound).then_some(Full::Partition)
    }

    /// While fewer requests than this are pending, no bound is reached.
    pub(crate) fn smallest_bound(&self) -> usize {
        self.bound.min(self.partition_bound)
    }

    /// The number of requests sent from here without an outcome.
    pub(crate) fn len(&self) -> usize {
        self.total.load(Relaxed)
    }

    fn take_place(&self, partition: i32) -> Result<(), Full> {
        if self.total.fetch_add(1, Relaxed) >= self.bound {
            self.total.fetch_sub(1, Relaxed);
            return Err(Full::Instance);
        }
        let Some(places) = self.places(partition) else { return Ok(()) };
        if places.fetch_add(1, Relaxed) >= self.partition_bound {
            places.fetch_sub(1, Relaxed);
            self.total.fetch_sub(1, Relaxed);
            return Err(Full::Partition);
        }
        Ok(())
    }

    fn release_place(&self, partition: i32) {
        self.total.fetch_sub(1, Relaxed);
        if let Some(places) = self.places(partition) {
            places.fetch_sub(1, Relaxed);
        }
    }

    fn places(&self, partition: i32) -> Option<&AtomicUsize> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    fn shard(&self, id: RequestId) -> MutexGuard<'_, Shard> {
        self.shards[(id.identity as usize) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an outcome. Dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct Waiter {
    pending: Arc<PendingRequests>,
    request: RequestId,
    /// Cancels this waiter.
    pub(crate) id: WaiterId,
    receiver: oneshot::Receiver<Arc<Outcome>>,
}

impl Future for Waiter {
    /// `None` if the wait was cancelled or the request was dropped.
    type Output = Option<Arc<Outcome>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(Result::ok)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.pending.cancel_wait(self.request, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(identity: u128) -> RequestId {
        RequestId { identity, body: 0 }
    }

    fn outcome(identity: u128, reason: Option<&str>) -> Arc<Outcome> {
        Arc::new(crate::model::outcome::tests::outcome(identity, 0, reason))
    }

    /// Pending requests whose waiters are woken.
    fn with_wake_batcher() -> Arc<PendingRequests> {
        let pending = PendingRequests::new(1, 10, 10);
        drop(tokio::spawn(Arc::clone(&pending.wake_batcher).run()));
        pending
    }

    #[test]
    fn one_hot_partition_cannot_use_up_the_places_of_all() {
        let pending = PendingRequests::new(2, 3, 2);
        let now = Instant::now();
        assert_eq!(pending.admit(id(1), 0, now), Ok(()));
        assert_eq!(pending.admit(id(2), 0, now), Ok(()));
        assert_eq!(pending.admit(id(3), 0, now), Err(Full::Partition));
        assert_eq!((pending.full(Some(0)), pending.full(Some(1))), (Some(Full::Partition), None));
        assert_eq!(pending.full(None), None);
        assert_eq!(pending.admit(id(4), 1, now), Ok(()));
        assert_eq!(pending.admit(id(5), 1, now), Err(Full::Instance));
        assert_eq!((pending.full(Some(1)), pending.full(None)), (Some(Full::Instance), Some(Full::Instance)));
        pending.settle(&outcome(1, None));
        assert_eq!(pending.admit(id(5), 1, now), Ok(()));
        assert_eq!(pending.len(), 3);
    }

    #[test]
    fn a_request_sent_twice_has_one_place_until_both_sends_fail_or_it_is_decided() {
        let pending = PendingRequests::new(1, 10, 10);
        let now = Instant::now();
        assert_eq!((pending.admit(id(1), 0, now), pending.admit(id(1), 0, now)), (Ok(()), Ok(())));
        assert_eq!(pending.len(), 1);
        pending.send_failed(id(1));
        assert!(pending.contains(id(1)));
        pending.send_failed(id(1));
        assert!(!pending.contains(id(1)));
        pending.send_failed(id(1));
        assert_eq!(pending.len(), 0);
    }

    #[tokio::test]
    async fn every_waiter_is_woken_and_a_dropped_one_leaves_no_entry() {
        let pending = with_wake_batcher();
        let now = Instant::now();
        let first = pending.wait_for(id(1), now);
        let second = pending.wait_for(id(1), now);
        drop(pending.wait_for(id(1), now));
        drop(pending.wait_for(id(2), now));
        pending.settle(&outcome(1, Some("sold_out")));
        assert!(first.await.is_some() && second.await.is_some());
        assert!(pending.shards.iter().all(|shard| shard.lock().is_ok_and(|shard| shard.is_empty())));
    }

    #[tokio::test]
    async fn cancelling_one_waiter_leaves_the_others() {
        let pending = with_wake_batcher();
        let now = Instant::now();
        let (first, second) = (pending.wait_for(id(1), now), pending.wait_for(id(1), now));
        pending.cancel_wait(id(1), first.id);
        assert!(first.await.is_none());
        pending.settle(&outcome(1, None));
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn a_waiter_dropped_late_does_not_remove_a_later_one() {
        let pending = with_wake_batcher();
        let now = Instant::now();
        let first = pending.wait_for(id(1), now);
        pending.settle(&outcome(1, None));
        // A second wait for the same request starts before the first waiter is dropped.
        let second = pending.wait_for(id(1), now);
        drop(first);
        pending.settle(&outcome(1, None));
        assert!(second.await.is_some());
    }

    #[test]
    fn a_pending_request_is_looked_up_by_age_with_growing_pauses_and_immediately_after_a_gap() {
        let pending = PendingRequests::new(1, 10, 10);
        let start = Instant::now();
        assert_eq!(pending.admit(id(1), 0, start), Ok(()));
        let due = |seconds: u64, all| pending.due(start + Duration::from_secs(seconds), all).len();
        assert_eq!(due(1, false), 0);
        assert_eq!(due(1, true), 1);
        assert_eq!(due(3, false), 0);
        assert_eq!(due(4, false), 1);
        assert_eq!(due(9, false), 0);
        assert_eq!(due(10, false), 1);
        assert_eq!(due(2 * 3600, false), 1);
        assert_eq!(pending.len(), 0);
    }
}
