//! One code during its replay, and the violations that a replay returns.

use super::steps::{Step, StepSource};
use crate::invariants::lapses::{Lapse, Lapses};
use crate::kafka::Log;
use crate::postgres::{Change, CodeFlags, CodeId, Ledger, Redemption, Row, Rules};
use crate::report::Invariant;

/// A transition that is not allowed, or a row that differs from the result.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) message: String,
}

pub(super) type Checked<T = ()> = Result<T, Violation>;

pub(super) fn ensure(holds: bool, invariant: Invariant, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { fail(invariant, message()) }
}

pub(super) fn fail<T>(invariant: Invariant, message: String) -> Checked<T> {
    Err(Violation { invariant, message })
}

/// A code, and the sources about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) log: &'a Log,
    pub(super) lapses: &'a Lapses,
    pub(super) id: CodeId,
    pub(super) rules: &'a Rules,
}

/// A step with its rows.
pub(super) enum Transition<'a> {
    Lapse(&'a Lapse),
    /// With the index of the row.
    Claim(u32, &'a Row),
    Change(&'a Change, &'a Row),
    /// With the index of the redemption.
    Redeem(u32, &'a Redemption, &'a Row),
}

impl<'a> Code<'a> {
    /// The transition of a step. I11: a request is decided at the partition's time, not at the time of a worker's clock.
    pub(super) fn transition(&self, step: &Step) -> Checked<Transition<'a>> {
        let Some(transition) = self.resolve(step.source) else {
            return fail(Invariant::I2, "a step without a row".to_owned());
        };
        let (Transition::Claim(_, row) | Transition::Change(_, row) | Transition::Redeem(_, _, row)) =
            &transition
        else {
            return Ok(transition);
        };
        let time = self.log.time_at(row.partition, row.offset);
        ensure(time.is_none_or(|time| time == row.decided_ms), Invariant::I11, || {
            let (at, time) = (row.decided_ms, time.unwrap_or(0));
            format!("request {} was decided at {at}, but the partition's time was {time}", row.id)
        })?;
        Ok(transition)
    }

    fn resolve(&self, source: StepSource) -> Option<Transition<'a>> {
        let ledger = self.ledger;
        match source {
            StepSource::Lapse(index) => self.lapses.all.get(index as usize).map(Transition::Lapse),
            StepSource::Row(index) => ledger.row_at(index).map(|row| Transition::Claim(index, row)),
            StepSource::Change(index) => {
                let change = ledger.changes.get(index as usize)?;
                Some(Transition::Change(change, ledger.row_at(change.row)?))
            }
            StepSource::Redemption(index) => {
                let redemption = ledger.redemption_at(index)?;
                Some(Transition::Redeem(index, redemption, ledger.row_at(redemption.row)?))
            }
        }
    }

    pub(super) fn flags(&self) -> CodeFlags {
        self.ledger.code_flags.get(&self.id).copied().unwrap_or_default()
    }
}
