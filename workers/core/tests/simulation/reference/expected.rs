//! What a batch must contain besides the rows that it changes: decisions, duplicates, dead letters, loads and events.

use super::coupon::Coupon;
use coupon_core::batch::{Batch, Decision, Event, EventKind, Lapsed, LoadApplied};
use coupon_core::ids::{Millis, Offset};

#[derive(Default)]
pub(super) struct ExpectedOutput {
    pub(super) decisions: Vec<Decision>,
    /// The stored outcomes of requests that were decided before.
    pub(super) duplicates: Vec<Decision>,
    pub(super) dead_letters: Vec<Offset>,
    pub(super) events: Vec<Event>,
    pub(super) loads: Vec<LoadApplied>,
}

impl ExpectedOutput {
    pub(super) fn event(
        &mut self,
        kind: EventKind,
        coupon: &Coupon,
        lapsed: Option<Lapsed>,
        offset: Offset,
        at: Millis,
    ) {
        let (coupon_id, available) = (coupon.id.clone(), coupon.available());
        self.events.push(Event { kind, coupon_id, available, lapsed, offset, at });
    }

    pub(super) fn compare(&self, batch: &Batch) -> Result<(), String> {
        let mut pairs = self.decisions.iter().zip(&batch.decisions);
        if let Some((expected, found)) = pairs.find(|(expected, found)| expected != found) {
            return Err(format!("I2/I6/I8/I9: decided {found:?}, expected {expected:?}"));
        }
        if self.decisions.len() != batch.decisions.len() {
            let (expected, found) = (&self.decisions, &batch.decisions);
            let counts = format!("{} decisions instead of {}", found.len(), expected.len());
            return Err(format!("I7: {counts}: {found:?}, expected {expected:?}"));
        }
        // A duplicate may be published once for several copies of a request.
        if let Some(unexpected) = batch.duplicates.iter().find(|decision| !self.duplicates.contains(decision))
        {
            return Err(format!("I8: duplicate {unexpected:?}, expected one of {:?}", self.duplicates));
        }
        let dead_letters: Vec<Offset> = batch.dead_letters.iter().map(|(offset, _)| *offset).collect();
        if dead_letters != self.dead_letters {
            return Err(format!("I7: dead letters {dead_letters:?}, expected {:?}", self.dead_letters));
        }
        if batch.loads != self.loads {
            return Err(format!("I1: loads {:?}, expected {:?}", batch.loads, self.loads));
        }
        let pairs = self.events.iter().zip(&batch.events);
        let same = pairs.take_while(|(expected, found)| expected == found).count();
        let (expected, found) = (&self.events[same..], &batch.events[same..]);
        if expected != found {
            return Err(format!("I11: events {found:?}, expected {expected:?}"));
        }
        Ok(())
    }
}
