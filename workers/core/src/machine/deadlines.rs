//! Deadlines of holds and locks: fired before the record that brings the time past them is decided.
//!
//! Only records move the time. Where none comes although a deadline seems due, the owner asks the broker for the time
//! with a `tick`. What is due is read from the ledger for each batch that may need it, in bounded slices: a batch that
//! cannot know all of what has lapsed fires what it knows, and ends there.

use super::draft::Draft;
use super::{Effect, Machine, Phase};
use crate::domain::batch::EventKind;
use crate::domain::ids::Millis;
use crate::domain::transitions::lapse;
use crate::planted::Bug;

impl Machine {
    /// Fires the deadlines up to the draft's time, earliest first, as many as one batch may. Answers whether every
    /// one of them has fired.
    pub(super) fn fire_deadlines(&mut self, draft: &mut Draft) -> bool {
        let record = draft.now;
        let now = self.time_for_lapses(record);
        draft.at = draft.batch.position.next_offset;
        while draft.fired < self.config.batch_records
            && let Some((deadline, place)) = draft.codes.pop_due(now)
        {
            let claim = draft.codes.standing(place).and_then(|standing| standing.claim.as_ref());
            let Some(claim) = claim.filter(|claim| claim.status.deadline() == Some(deadline)) else {
                continue;
            };
            let Some((status, kind)) = lapse(&claim.status, deadline) else { continue };
            draft.now = draft.batch.position.time.max(deadline);
            let Ok(claim) = self.change_claim(place, status, draft) else {
                draft.codes.put_back_due(deadline, place);
                return false;
            };
            if let (EventKind::LockLapsed, Some(coupon)) = (kind, self.memory.by_no(place.0)) {
                draft.lapse(kind, coupon, &claim, deadline);
            }
            draft.batch.position.time = draft.now;
            draft.fired += 1;
        }
        draft.now = record;
        draft.codes.has_fired_all(now)
    }

    /// Appends a tick if a deadline seems due, `quiet` after the last record, and none is on its way.
    pub(super) fn tick_if_due(&mut self, quiet: Millis, effects: &mut Vec<Effect>) {
        if self.config.planted.has(Bug::LapseByWallClock) {
            self.own_clock = self.own_clock.max(Millis(self.head.position.time.0 + quiet.0));
        }
        let next = self.memory.none_lapse_before;
        let due = next.0 <= self.head.position.time.0.saturating_add(quiet.0) && next < Millis(i64::MAX);
        if due && self.backlog.is_empty() && self.gathering.is_none() {
            self.tick(effects);
        }
    }

    pub(super) fn tick(&mut self, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Running && !self.letting_go && !self.ticking {
            self.ticking = true;
            effects.push(Effect::Tick);
        }
    }

    /// The record's time, or, as a planted mistake, the process' own.
    pub(super) fn time_for_lapses(&self, now: Millis) -> Millis {
        if self.config.planted.has(Bug::LapseByWallClock) { now.max(self.own_clock) } else { now }
    }
}
