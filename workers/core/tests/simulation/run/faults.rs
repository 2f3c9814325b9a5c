//! What happens without a request of an owner: crashes, frozen owners, rebalances, Redis failures, and changes that the
//! API makes to coupons and loads.

use super::Run;
use crate::environment::ledger::tables::LoadState;
use crate::initial_state::coupons;
use coupon_core::interface::Input;

/// Owners at a time: the assigned one, and others that continue although they are no longer assigned.
const MAX_OWNERS: usize = 4;

impl Run {
    pub(super) fn inject_faults(&mut self) -> Result<(), String> {
        self.execute_delayed_pop();
        let next_crash = self.plan.crashes.get(self.crashes).copied();
        let due = next_crash.is_some_and(|records| self.is_too_long() || self.decided_records() >= records);
        if due || self.owners.len() > MAX_OWNERS {
            self.crash();
        }
        if self.assigned.is_none() && self.rng.chance(100) {
            self.start_owner()?;
        }
        if self.rng.chance(self.plan.freeze) {
            self.freeze();
        }
        if self.rng.chance(self.plan.rebalance) {
            self.rebalance()?;
        }
        if self.rng.chance(self.plan.redis_faults) {
            let redis = &mut self.environment.redis;
            if self.rng.chance(200) {
                redis.flush_all();
            } else {
                redis.corrupt(&mut self.rng, &self.environment.ledger);
            }
        }
        self.change_catalogue();
        Ok(())
    }

    fn execute_delayed_pop(&mut self) {
        if let Some(index) = self.delayed_pops.iter().position(|(ready_at, _)| *ready_at <= self.now) {
            let (_, pop) = self.delayed_pops.swap_remove(index);
            let _lost_codes = self.environment.redis.pop(pop);
        }
    }

    /// Removes an owner: the assigned one, if it has taken over, or else any that has. So each crash interrupts work.
    fn crash(&mut self) {
        let mut able = self.owners.iter().filter(|owner| owner.machine.status().epoch.0 > 0);
        let assigned = self.assigned.and_then(|id| able.clone().find(|owner| owner.id == id));
        if let Some(id) = assigned.or_else(|| able.next()).map(|owner| owner.id) {
            self.crashes += 1;
            self.trace(|| format!("{id:?} crashes"));
            self.remove_owner(id);
        }
    }

    /// Freezes the assigned owner. The group removes it; later it continues where it stopped.
    fn freeze(&mut self) {
        let until = self.now + self.rng.between(50, 800).unsigned_abs();
        if let Some(id) = self.assigned
            && let Some(owner) = self.owner(id)
        {
            owner.frozen_until = until;
            self.assigned = None;
            self.trace(|| format!("{id:?} freezes until {until}"));
        }
    }

    /// Revokes the partition from an owner, or notifies one that lost it earlier.
    fn rebalance(&mut self) -> Result<(), String> {
        let Some(index) = self.random_running_owner() else { return Ok(()) };
        let id = self.owners[index].id;
        if self.assigned == Some(id) && self.rng.chance(500) {
            self.assigned = None;
        }
        self.apply_input(id, Input::HandOver)
    }

    /// The API creates a coupon, adds a load, or seals one.
    fn change_catalogue(&mut self) {
        match self.rng.below(400) {
            0 => coupons::create(&mut self.rng, &mut self.environment.ledger, &self.environment.log),
            1 if self.environment.ledger.loads.len() < coupons::MAX_LOADS => {
                let sealed = LoadState::Sealed(self.environment.log.end());
                let state = if self.rng.chance(700) { sealed } else { LoadState::Open };
                coupons::add_load(&mut self.rng, &mut self.environment.ledger, state);
            }
            2 => self.seal_load(),
            _ => {}
        }
    }

    pub(super) fn seal_load(&mut self) {
        let end = self.environment.log.end();
        let mut loads = self.environment.ledger.loads.iter_mut();
        if let Some(load) = loads.find(|load| load.state == LoadState::Open) {
            load.state = LoadState::Sealed(end);
        }
    }
}
