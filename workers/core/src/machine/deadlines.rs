//! Deadlines of holds and locks. They fire before the record that moves the time past them is executed.
//!
//! Only records move the time. If a deadline is probably due and no record arrives, the owner appends a `tick` to get the
//! broker's time. Due claims are read for each batch that may need them, in bounded slices: a batch that did not read
//! all of them fires those that it has read, and ends.

use super::config::Config;
use super::execute::{Draft, change_claim};
use super::{Effect, Owner};
use crate::domain::batch::EventKind;
use crate::domain::ids::Millis;
use crate::domain::transitions::lapse;
use crate::planted::Bug;

/// What is known about the deadlines of a partition.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// No live claim lapses before this time, unsettled batches included.
    pub(super) none_before: Millis,
    /// Whether a tick was appended that was not received.
    tick_in_flight: bool,
    /// Whether more deadlines are due than one batch can fire. Then a batch prefetches one record only: the others would
    /// be prefetched in vain.
    more_due: bool,
    /// The process' clock, which a planted mistake uses as the time.
    own_clock: Millis,
}

impl Deadlines {
    pub(super) const fn new(none_before: Millis) -> Self {
        Self { none_before, tick_in_flight: false, more_due: false, own_clock: Millis(i64::MIN) }
    }

    pub(super) const fn tick_received(&mut self) {
        self.tick_in_flight = false;
    }

    /// Any claim may have lapsed: the cache was dropped.
    pub(super) const fn reset(&mut self) {
        self.none_before = Millis(i64::MIN);
    }

    /// Most records of the next batch.
    pub(super) const fn limit_records(&self, max_records: usize) -> usize {
        if self.more_due { 1 } else { max_records }
    }

    /// Takes over what a batch has read and fired.
    pub(super) fn update(&mut self, draft: &Draft, config: &Config) {
        self.none_before = draft.codes.due.none_before(self.none_before);
        self.more_due = !draft.codes.due.all_fired(self.time(draft.now, config));
    }

    /// The time of a record; with a planted mistake, the time of the process.
    pub(super) fn time(&self, now: Millis, config: &Config) -> Millis {
        if config.planted.has(Bug::LapseByWallClock) { now.max(self.own_clock) } else { now }
    }
}

impl Owner {
    /// Fires the deadlines up to the draft's time, earliest first, within the bound of a batch. Returns whether all of
    /// them have fired.
    pub(super) fn fire_deadlines(&mut self, draft: &mut Draft) -> bool {
        let record_time = draft.now;
        let until = self.deadlines.time(record_time, &self.config);
        draft.at = draft.batch.position.next_offset;
        while draft.fired < self.recovery.max_records
            && let Some((deadline, id)) = draft.codes.due.pop(until)
        {
            let claim = draft.codes.claim(id).filter(|claim| claim.status.deadline() == Some(deadline));
            let Some((status, kind)) = claim.and_then(|claim| lapse(&claim.status, deadline)) else {
                continue;
            };
            draft.now = draft.batch.position.time.max(deadline);
            let coupon = self.cache.by_no_mut(id.0);
            let lapsed = coupon.and_then(|coupon| {
                let claim = change_claim(coupon, id, status, draft).ok()?;
                Some((coupon, claim))
            });
            let Some((coupon, claim)) = lapsed else {
                draft.codes.due.put_back(deadline, id);
                return false;
            };
            if kind == EventKind::LockLapsed {
                draft.lapse_event(kind, coupon, &claim, deadline);
            }
            draft.batch.position.time = draft.now;
            draft.fired += 1;
        }
        draft.now = record_time;
        draft.codes.due.all_fired(until)
    }

    /// Appends a tick if a deadline is probably due, and no record is waiting.
    pub(super) fn tick_if_due(&mut self, since_last_record: Millis, effects: &mut Vec<Effect>) {
        let time = self.head.position.time;
        if self.config.planted.has(Bug::LapseByWallClock) {
            let own_clock = Millis(time.0 + since_last_record.0);
            self.deadlines.own_clock = self.deadlines.own_clock.max(own_clock);
        }
        let next = self.deadlines.none_before;
        let is_due = next.0 <= time.0.saturating_add(since_last_record.0) && next < Millis(i64::MAX);
        if is_due && self.backlog.is_empty() && !self.pipeline.is_prefetching() {
            self.tick(effects);
        }
    }

    /// Appends a tick unless one is in flight.
    pub(super) fn tick(&mut self, effects: &mut Vec<Effect>) {
        if !self.pipeline.is_handing_over() && !self.deadlines.tick_in_flight {
            self.deadlines.tick_in_flight = true;
            effects.push(Effect::Tick);
        }
    }
}
