//! The order of a run: first traffic with faults until enough is decided, then a drain without faults, after which every
//! guarantee must hold. In each step one thing happens: a call is executed, a response or records are delivered, a
//! record is appended, or an owner is idle.

use super::Run;
use crate::checks;
use coupon_core::interface::Input;
use coupon_core::record::Payload;

/// Frequent faults can delay a run until almost nothing is decided: the faults end after this many steps.
const MAX_FAULT_STEPS: u64 = 12_000;

impl Run {
    /// Plays the whole run. The error names the violated invariant.
    pub(crate) fn play(&mut self) -> Result<(), String> {
        while !self.fault_phase_is_over() {
            self.step()?;
            self.inject_faults()?;
        }
        self.drain()?;
        self.let_deadlines_pass()
    }

    /// Whether everything is appended, at least nine tenths are decided, and every planned crash has happened.
    fn fault_phase_is_over(&self) -> bool {
        let decided = self.decided_records() * 10 >= self.plan.records * 9 || self.is_too_long();
        let appended = self.environment.log.records.len() >= self.plan.records;
        decided && appended && self.crashes >= self.plan.crashes.len()
    }

    pub(super) const fn is_too_long(&self) -> bool {
        self.now > MAX_FAULT_STEPS
    }

    pub(super) fn decided_records(&self) -> usize {
        self.environment.log.index_of(self.environment.ledger.row.position.next_offset)
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        match self.rng.below(100) {
            0..38 => self.execute_pending_call(),
            38..76 => self.deliver_response(),
            76..88 => self.deliver_records(),
            88..97 => {
                self.append_record();
                Ok(())
            }
            _ => self.deliver_idle(),
        }
    }

    fn append_record(&mut self) {
        let log = &mut self.environment.log;
        if log.records.len() < self.plan.records {
            log.pass_time(&mut self.rng, &self.plan);
            let ledger = &self.environment.ledger;
            let payload = self.traffic.next(&mut self.rng, &self.plan, log.now(), ledger);
            self.append(payload);
        }
    }

    pub(super) fn append(&mut self, payload: Payload) {
        let record = self.environment.log.append(payload, self.now, &mut self.rng, &self.plan);
        if let Some(trace) = self.trace.as_mut() {
            trace.push(format!("{:5} log ← {record:?}", self.now));
        }
    }

    /// The index of a random owner, unless that owner is frozen.
    pub(super) fn random_running_owner(&mut self) -> Option<usize> {
        let index = (!self.owners.is_empty()).then(|| self.rng.below(self.owners.len()))?;
        (self.owners[index].frozen_until <= self.now).then_some(index)
    }

    fn deliver_response(&mut self) -> Result<(), String> {
        let Some(index) = self.random_running_owner() else { return Ok(()) };
        let owner = &mut self.owners[index];
        if owner.in_flight.is_empty() {
            return Ok(());
        }
        let response = self.rng.below(owner.in_flight.len());
        if owner.in_flight[response].ready_at > self.now {
            return Ok(());
        }
        let (id, response) = (owner.id, owner.in_flight.swap_remove(response));
        self.apply_input(id, response.input)
    }

    fn deliver_records(&mut self) -> Result<(), String> {
        let Some(index) = self.random_running_owner() else { return Ok(()) };
        let owner = &mut self.owners[index];
        let Some(cursor) = owner.cursor.filter(|_| !owner.paused) else { return Ok(()) };
        let log = &self.environment.log;
        let first = log.index_of(cursor);
        let last = (first + 1 + self.rng.below(checks::MAX_DELIVERY)).min(log.records.len());
        let records = log.records[first..last].to_vec();
        let Some(end) = records.last().map(|record| record.offset.next()) else { return Ok(()) };
        owner.cursor = Some(end);
        let id = owner.id;
        self.apply_input(id, Input::Records(records))
    }

    fn deliver_idle(&mut self) -> Result<(), String> {
        let Some(index) = self.random_running_owner() else { return Ok(()) };
        self.environment.log.pass(self.rng.between(0, 300));
        if self.faults_enabled && self.rng.chance(20) {
            // The process was suspended, or its clock was set.
            self.owners[index].clock_jump += self.rng.between(-3_600_000, 3_600_000);
        }
        let since_last_record = self.owners[index].since_last_record(self.environment.log.now());
        self.apply_input(self.owners[index].id, Input::Idle { since_last_record })
    }
}
