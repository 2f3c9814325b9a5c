//! The end of a run: no more faults and no more traffic, until one owner is left that has nothing to do.

use super::Run;
use crate::environment::ledger::tables::LoadState;
use crate::owner::OwnerId;
use coupon_core::interface::Input;
use coupon_core::record::Payload;

/// A run that is not quiescent after this many steps never will be.
const MAX_DRAIN_STEPS: u64 = 60_000;

impl Run {
    pub(super) fn drain(&mut self) -> Result<(), String> {
        self.trace(|| "faults end".into());
        self.faults_enabled = false;
        self.plan.records = 0;
        self.plan.far_ahead = 0;
        self.announce_all_loads();
        self.pending.iter_mut().for_each(|pending| pending.ready_at = self.now);
        for owner in &mut self.owners {
            owner.clock_jump = 0;
            owner.frozen_until = self.now;
            owner.in_flight.iter_mut().for_each(|response| response.ready_at = self.now);
        }
        let owners: Vec<OwnerId> = self.owners.iter().map(|owner| owner.id).collect();
        for id in owners {
            if self.assigned != Some(id) {
                self.apply_input(id, Input::HandOver)?;
            }
        }
        self.run_until_quiescent()
    }

    fn announce_all_loads(&mut self) {
        while self.environment.ledger.loads.iter().any(|load| load.state == LoadState::Open) {
            self.seal_load();
        }
        for load in self.environment.ledger.loads.clone() {
            if let Some(coupon) = self.environment.ledger.coupon(load.coupon)
                && load.state != LoadState::Applied
            {
                let coupon_id = coupon.id.clone();
                self.append(Payload::StockAdded { coupon_id, load: load.id });
            }
        }
    }

    pub(super) fn run_until_quiescent(&mut self) -> Result<(), String> {
        let end = self.now + MAX_DRAIN_STEPS;
        while !self.is_quiescent() {
            if self.now == end {
                let (row, log_end) = (&self.environment.ledger.row, self.environment.log.end());
                return Err(format!("I3: not quiescent: {row:?}, log end {log_end}"));
            }
            if self.assigned.is_none() {
                self.start_owner()?;
            }
            self.step()?;
        }
        Ok(())
    }

    fn is_quiescent(&self) -> bool {
        let row = &self.environment.ledger.row;
        self.pending.is_empty()
            && self.owners.len() == 1
            && self.owners[0].in_flight.is_empty()
            && !self.owners[0].handing_over
            && row.position.next_offset == self.environment.log.end()
            && row.emitted_seq.next() == row.next_emit_seq
    }
}
