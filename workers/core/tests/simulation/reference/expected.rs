//! What a batch must say besides the rows that it changes.

use coupon_core::batch::{Batch, Decision, Event, LoadApplied};
use coupon_core::ids::Offset;

#[derive(Default)]
pub(super) struct Expected {
    pub(super) decisions: Vec<Decision>,
    pub(super) repeated: Vec<Decision>,
    pub(super) dead_letters: Vec<Offset>,
    pub(super) events: Vec<Event>,
    pub(super) loads: Vec<LoadApplied>,
}

impl Expected {
    pub(super) fn compare(&self, batch: &Batch) -> Result<(), String> {
        let differing =
            self.decisions.iter().zip(&batch.decisions).find(|(expected, found)| expected != found);
        if let Some((expected, found)) = differing {
            return Err(format!("I2/I6/I8/I9: decided {found:?}, expected {expected:?}"));
        }
        if self.decisions.len() != batch.decisions.len() {
            let (expected, found) = (&self.decisions, &batch.decisions);
            return Err(format!(
                "I7: {} decisions instead of {}: {found:?}, {expected:?}",
                found.len(),
                expected.len()
            ));
        }
        if let Some(strange) = batch.duplicates.iter().find(|decision| !self.repeated.contains(decision)) {
            return Err(format!("I8: repeats {strange:?}, expected one of {:?}", self.repeated));
        }
        let letters: Vec<Offset> = batch.dead_letters.iter().map(|(offset, _)| *offset).collect();
        if letters != self.dead_letters {
            return Err(format!("I7: dead letters {letters:?}, expected {:?}", self.dead_letters));
        }
        if batch.loads != self.loads {
            return Err(format!("I1: loads {:?}, expected {:?}", batch.loads, self.loads));
        }
        let same =
            self.events.iter().zip(&batch.events).take_while(|(expected, found)| expected == found).count();
        let (expected, found) = (&self.events[same..], &batch.events[same..]);
        if expected != found {
            return Err(format!("I11: events {found:?}, expected {expected:?}"));
        }
        Ok(())
    }
}
