//! The requests that this instance has sent and has not seen decided, and everybody who waits for one.
//!
//! Guarantees: their number is bounded, for the instance and for each partition (one hot coupon cannot fill the
//! places of all); a waiter that is registered before a request is sent is woken by its outcome, whoever finds it;
//! whatever is held here is looked up in Postgres by age, so nothing waits for an event that has passed.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::herald::Herald;
use crate::outcome::Outcome;

const SHARDS: usize = 64;
/// A request older than this is looked up; each time in vain doubles the age for the next.
const FIRST_LOOKUP: Duration = Duration::from_secs(3);
const LAST_LOOKUP: Duration = Duration::from_secs(60);
/// Nobody counts on an answer any more (an operator skipped the record): its place is given back.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// Names one waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Of the whole instance.
    Instance,
    /// Of one partition.
    Partition,
}

/// Undecided requests and their waiters.
#[derive(Debug)]
pub(crate) struct Undecided {
    shards: Vec<Mutex<Shard>>,
    total: AtomicUsize,
    partitions: Vec<AtomicUsize>,
    /// Never used twice: an entry that is made anew for the same request must not have the tickets of the one before.
    next_ticket: AtomicU64,
    bound: usize,
    partition_bound: usize,
    /// Wakes the waiters.
    pub(crate) herald: Arc<Herald<Arc<Outcome>>>,
}

type Shard = HashMap<RequestId, Entry, RandomState>;

#[derive(Debug)]
struct Entry {
    /// Times that it was sent from here and may still be decided; 0: it is only waited for.
    sends: u32,
    partition: i32,
    since: Instant,
    lookup_at: Instant,
    lookups: u32,
    waiters: Vec<(Ticket, oneshot::Sender<Arc<Outcome>>)>,
}

impl Entry {
    fn new(partition: i32, now: Instant) -> Self {
        let lookup_at = now + FIRST_LOOKUP;
        Self { sends: 0, partition, since: now, lookup_at, lookups: 0, waiters: Vec::new() }
    }
}

impl Undecided {
    /// At most `bound` requests, of which at most `partition_bound` in each partition.
    pub(crate) fn new(partitions: i32, bound: usize, partition_bound: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            total: AtomicUsize::new(0),
            partitions: (0..partitions).map(|_| AtomicUsize::new(0)).collect(),
            next_ticket: AtomicU64::new(0),
            bound,
            partition_bound,
            herald: Herald::new(),
        })
    }

    /// Takes a place for a request that is about to be sent.
    ///
    /// # Errors
    /// [`Full`]; nothing was taken.
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

    /// One send of the request has failed for certain, or its fate is unknown and was told as such.
    pub(crate) fn send_failed(&self, id: RequestId) {
        let mut shard = self.shard(id);
        let Some(entry) = shard.get_mut(&id).filter(|entry| entry.sends > 0) else { return };
        entry.sends -= 1;
        if entry.sends == 0 {
            self.give_place_back(entry.partition);
            if entry.waiters.is_empty() {
                shard.remove(&id);
            }
        }
    }

    /// Waits for the outcome, whoever sent the request. Look for a known outcome *after* this.
    pub(crate) fn wait_for(self: &Arc<Self>, id: RequestId, now: Instant) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        let ticket = Ticket(self.next_ticket.fetch_add(1, Relaxed));
        self.shard(id).entry(id).or_insert_with(|| Entry::new(0, now)).waiters.push((ticket, sender));
        Waiter { undecided: Arc::clone(self), id, ticket, receiver }
    }

    /// Sends one waiter away, who hears of no outcome.
    pub(crate) fn send_away(&self, id: RequestId, ticket: Ticket) {
        let mut shard = self.shard(id);
        let Some(entry) = shard.get_mut(&id) else { return };
        // The sender goes, which wakes the waiter.
        entry.waiters.retain(|(other, _)| *other != ticket);
        if entry.waiters.is_empty() && entry.sends == 0 {
            shard.remove(&id);
        }
    }

    /// The request is decided: wakes its waiters, gives its place back.
    pub(crate) fn settle(&self, outcome: &Arc<Outcome>) {
        let Some(entry) = self.shard(outcome.id).remove(&outcome.id) else { return };
        if entry.sends > 0 {
            self.give_place_back(entry.partition);
        }
        for (_, waiter) in entry.waiters {
            self.herald.tell(waiter, Arc::clone(outcome));
        }
    }

    /// Whether the request was sent from here, and is not known to be decided.
    pub(crate) fn holds(&self, id: RequestId) -> bool {
        self.shard(id).get(&id).is_some_and(|entry| entry.sends > 0)
    }

    /// What should be looked up by now; all of it after a gap in the reading of responses.
    pub(crate) fn due(&self, now: Instant, all: bool) -> Vec<RequestId> {
        let mut due = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|id, entry| {
                if all || entry.lookup_at <= now {
                    due.push(*id);
                    let pause = FIRST_LOOKUP * 2_u32.saturating_pow(entry.lookups.min(8));
                    // Somebody who waits does so for half a minute at most.
                    let longest = if entry.waiters.is_empty() { LAST_LOOKUP } else { FIRST_LOOKUP };
                    entry.lookup_at = now + pause.min(longest);
                    entry.lookups = entry.lookups.saturating_add(1);
                }
                let kept = !entry.waiters.is_empty() || now.duration_since(entry.since) < GIVEN_UP;
                if !kept && entry.sends > 0 {
                    self.give_place_back(entry.partition);
                }
                kept
            });
        }
        due
    }

    /// Whether there is no place at the moment: in the instance, or in this partition. It may be another by the time
    /// that one is [taken](Self::admit).
    pub(crate) fn full(&self, partition: Option<i32>) -> Option<Full> {
        if self.len() >= self.bound {
            return Some(Full::Instance);
        }
        let places = partition.and_then(|partition| self.places(partition))?;
        (places.load(Relaxed) >= self.partition_bound).then_some(Full::Partition)
    }

    /// While fewer than this are undecided, nothing is full.
    pub(crate) fn smallest_bound(&self) -> usize {
        self.bound.min(self.partition_bound)
    }

    /// How many requests sent from here are undecided.
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

    fn give_place_back(&self, partition: i32) {
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

/// Somebody who waits for an outcome. A future; whoever drops it waits no more.
#[derive(Debug)]
pub(crate) struct Waiter {
    undecided: Arc<Undecided>,
    id: RequestId,
    /// By which it can be sent away.
    pub(crate) ticket: Ticket,
    receiver: oneshot::Receiver<Arc<Outcome>>,
}

impl Future for Waiter {
    /// `None` if the waiter was sent away, or the request was given up.
    type Output = Option<Arc<Outcome>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(Result::ok)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.undecided.send_away(self.id, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recent::tests::outcome;

    fn id(identity: u128) -> RequestId {
        RequestId { identity, body: 0 }
    }

    /// Whose waiters are told.
    fn told() -> Arc<Undecided> {
        let undecided = Undecided::new(1, 10, 10);
        drop(tokio::spawn(Arc::clone(&undecided.herald).run()));
        undecided
    }

    #[test]
    fn one_hot_partition_cannot_fill_the_places_of_all() {
        let undecided = Undecided::new(2, 3, 2);
        let now = Instant::now();
        assert_eq!(undecided.admit(id(1), 0, now), Ok(()));
        assert_eq!(undecided.admit(id(2), 0, now), Ok(()));
        assert_eq!(undecided.admit(id(3), 0, now), Err(Full::Partition));
        assert_eq!((undecided.full(Some(0)), undecided.full(Some(1))), (Some(Full::Partition), None));
        assert_eq!(undecided.full(None), None);
        assert_eq!(undecided.admit(id(4), 1, now), Ok(()));
        assert_eq!(undecided.admit(id(5), 1, now), Err(Full::Instance));
        assert_eq!(
            (undecided.full(Some(1)), undecided.full(None)),
            (Some(Full::Instance), Some(Full::Instance))
        );
        undecided.settle(&outcome(1, 0, None));
        assert_eq!(undecided.admit(id(5), 1, now), Ok(()));
        assert_eq!(undecided.len(), 3);
    }

    #[test]
    fn a_request_sent_twice_has_one_place_until_both_sends_failed_or_it_is_decided() {
        let undecided = Undecided::new(1, 10, 10);
        let now = Instant::now();
        assert_eq!((undecided.admit(id(1), 0, now), undecided.admit(id(1), 0, now)), (Ok(()), Ok(())));
        assert_eq!(undecided.len(), 1);
        undecided.send_failed(id(1));
        assert!(undecided.holds(id(1)));
        undecided.send_failed(id(1));
        assert!(!undecided.holds(id(1)));
        undecided.send_failed(id(1));
        assert_eq!(undecided.len(), 0);
    }

    #[tokio::test]
    async fn every_waiter_is_woken_and_one_that_left_leaves_nothing_behind() {
        let undecided = told();
        let now = Instant::now();
        let first = undecided.wait_for(id(1), now);
        let second = undecided.wait_for(id(1), now);
        drop(undecided.wait_for(id(1), now));
        drop(undecided.wait_for(id(2), now));
        undecided.settle(&outcome(1, 0, Some("sold_out")));
        assert!(first.await.is_some() && second.await.is_some());
        assert!(undecided.shards.iter().all(|shard| shard.lock().is_ok_and(|shard| shard.is_empty())));
    }

    #[tokio::test]
    async fn one_is_sent_away_and_the_others_wait_on() {
        let undecided = told();
        let now = Instant::now();
        let (first, second) = (undecided.wait_for(id(1), now), undecided.wait_for(id(1), now));
        undecided.send_away(id(1), first.ticket);
        assert!(first.await.is_none());
        undecided.settle(&outcome(1, 0, None));
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn one_that_leaves_late_takes_nobody_elses_place() {
        let undecided = told();
        let now = Instant::now();
        let first = undecided.wait_for(id(1), now);
        undecided.settle(&outcome(1, 0, None));
        // The same request is waited for again before the first has left.
        let second = undecided.wait_for(id(1), now);
        drop(first);
        undecided.settle(&outcome(1, 0, None));
        assert!(second.await.is_some());
    }

    #[test]
    fn what_is_held_is_looked_up_by_age_ever_more_seldom_and_at_once_after_a_gap() {
        let undecided = Undecided::new(1, 10, 10);
        let start = Instant::now();
        assert_eq!(undecided.admit(id(1), 0, start), Ok(()));
        let due = |seconds: u64, all| undecided.due(start + Duration::from_secs(seconds), all).len();
        assert_eq!(due(1, false), 0);
        assert_eq!(due(1, true), 1);
        assert_eq!(due(3, false), 0);
        assert_eq!(due(4, false), 1);
        assert_eq!(due(9, false), 0);
        assert_eq!(due(10, false), 1);
        assert_eq!(due(2 * 3600, false), 1);
        assert_eq!(undecided.len(), 0);
    }
}
