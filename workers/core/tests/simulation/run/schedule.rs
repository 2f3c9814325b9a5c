//! What happens next, and when it is over: a run of chance and faults, then a time without any in which
//! everything that was promised must come about.

use crate::checks;
use crate::ledger::LoadState;
use crate::owner::OwnerId;
use crate::quiet;
use crate::settled;
use crate::setup;
use crate::world::World;
use coupon_core::interface::Input;
use coupon_core::record::Payload;

/// Faults may hold a run up so much that it decides next to nothing: then it is settled as it is.
const LONGEST_RUN: u64 = 12_000;
/// A run that has not come to rest after so many steps never will.
const LONGEST_SETTLING: u64 = 60_000;
/// Owners at a time: the one that is assigned, and some that do not know that they are not.
const MOST_OWNERS: usize = 4;

impl World {
    /// The whole run. An error names the invariant that was broken.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while !self.has_played() {
            self.step()?;
            self.chaos()?;
        }
        self.settle()?;
        settled::everything_promised_has_happened(self)
    }

    /// Whether everything was appended, nearly all of it was decided in the time of faults, and owners have died.
    fn has_played(&self) -> bool {
        let decided = self.decided() * 10 >= self.plan.records * 9 || self.now > LONGEST_RUN;
        decided && self.log.records.len() >= self.plan.records && self.crashes >= self.plan.crashes.len()
    }

    /// How many records are decided.
    fn decided(&self) -> usize {
        self.log.index_of(self.ledger.row.position.next_offset)
    }

    /// One thing happens, or nothing.
    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        match self.rng.below(100) {
            0..38 => self.perform_one(),
            38..76 => self.deliver_one(),
            76..88 => self.deliver_records(),
            88..97 => {
                self.append_one();
                Ok(())
            }
            _ => self.idle(),
        }
    }

    fn append_one(&mut self) {
        if self.log.records.len() < self.plan.records {
            self.log.pass_time(&mut self.rng, &self.plan);
            let payload = self.traffic.next(&mut self.rng, &self.plan, self.log.now(), &self.ledger);
            self.append(payload);
        }
    }

    pub(crate) fn append(&mut self, payload: Payload) {
        let record = self.log.append(payload, &mut self.rng, &self.plan);
        if let Some(trace) = self.trace.as_mut() {
            trace.push(format!("{:5} log ← {record:?}", self.now));
        }
        self.appended_at.push(self.now);
    }

    /// Some owner that is awake.
    fn any_awake(&mut self) -> Option<usize> {
        let index = (!self.owners.is_empty()).then(|| self.rng.below(self.owners.len()))?;
        (self.owners[index].frozen_until <= self.now).then_some(index)
    }

    fn deliver_one(&mut self) -> Result<(), String> {
        let Some(index) = self.any_awake() else { return Ok(()) };
        let owner = &mut self.owners[index];
        if owner.inbox.is_empty() {
            return Ok(());
        }
        let mail = self.rng.below(owner.inbox.len());
        if owner.inbox[mail].ready > self.now {
            return Ok(());
        }
        let (id, mail) = (owner.id, owner.inbox.swap_remove(mail));
        self.feed(id, mail.input)
    }

    fn deliver_records(&mut self) -> Result<(), String> {
        let Some(index) = self.any_awake() else { return Ok(()) };
        let owner = &mut self.owners[index];
        let Some(cursor) = owner.cursor.filter(|_| !owner.paused) else { return Ok(()) };
        let first = self.log.index_of(cursor);
        let last = (first + 1 + self.rng.below(checks::DELIVERY)).min(self.log.records.len());
        let records = self.log.records[first..last].to_vec();
        let Some(end) = records.last().map(|record| record.offset.next()) else { return Ok(()) };
        owner.cursor = Some(end);
        let id = owner.id;
        self.feed(id, Input::Records(records))
    }

    fn idle(&mut self) -> Result<(), String> {
        let Some(index) = self.any_awake() else { return Ok(()) };
        self.log.pass(self.rng.between(0, 300));
        if self.faulty && self.rng.chance(20) {
            // A process that was asleep, or whose clock was set.
            self.owners[index].leap += self.rng.between(-3_600_000, 3_600_000);
        }
        let quiet = self.owners[index].quiet(self.log.now());
        self.feed(self.owners[index].id, Input::Idle { since_last_record: quiet })
    }

    /// What no owner asked for.
    fn chaos(&mut self) -> Result<(), String> {
        self.late_pops();
        let late = self.now > LONGEST_RUN;
        let due = self.plan.crashes.get(self.crashes).is_some_and(|at| late || self.decided() >= *at);
        if due || self.owners.len() > MOST_OWNERS {
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
        if self.rng.chance(self.plan.redis_chaos) {
            if self.rng.chance(200) {
                self.redis.flush_all()
            } else {
                self.redis.corrupt(&mut self.rng, &self.ledger)
            }
        }
        match self.rng.below(400) {
            0 => setup::make_coupon(&mut self.rng, &mut self.ledger, &self.log),
            1 if self.ledger.loads.len() < setup::MOST_LOADS => self.add_load(),
            2 => self.seal_load(),
            _ => {}
        }
        Ok(())
    }

    fn late_pops(&mut self) {
        if let Some(index) = self.late_pops.iter().position(|(ready, _)| *ready <= self.now) {
            let (_, pop) = self.late_pops.swap_remove(index);
            let _codes_nobody_gets = self.redis.pop(pop);
        }
    }

    /// An owner dies, most often the one that is assigned. One that has not taken over yet is spared.
    fn crash(&mut self) {
        let mut able = self.owners.iter().filter(|owner| owner.machine.status().epoch.0 > 0);
        let assigned = self.assigned.and_then(|id| able.clone().find(|owner| owner.id == id));
        if let Some(id) = assigned.or_else(|| able.next()).map(|owner| owner.id) {
            self.crashes += 1;
            self.trace(|| format!("{id:?} crashes"));
            self.remove_owner(id);
        }
    }

    /// An owner stops for a while, is given up by the group, and goes on as if nothing had been.
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

    /// The group takes the partition away from an owner, or tells one that it has lost it long ago.
    fn rebalance(&mut self) -> Result<(), String> {
        let Some(index) = self.any_awake() else { return Ok(()) };
        let id = self.owners[index].id;
        if self.assigned == Some(id) && self.rng.chance(500) {
            self.assigned = None;
        }
        self.feed(id, Input::HandOver)
    }

    fn add_load(&mut self) {
        let state = if self.rng.chance(700) { LoadState::Sealed(self.log.end()) } else { LoadState::Open };
        setup::add_load(&mut self.rng, &mut self.ledger, state);
    }

    fn seal_load(&mut self) {
        let end = self.log.end();
        if let Some(load) = self.ledger.loads.iter_mut().find(|load| load.state == LoadState::Open) {
            load.state = LoadState::Sealed(end);
        }
    }

    /// Nothing goes wrong any more, until nothing is left to be done.
    fn settle(&mut self) -> Result<(), String> {
        self.trace(|| "nothing goes wrong any more".into());
        self.faulty = false;
        self.plan.records = 0;
        while self.ledger.loads.iter().any(|load| load.state == LoadState::Open) {
            self.seal_load();
        }
        for load in self.ledger.loads.clone() {
            if let Some(coupon) = self.ledger.coupon(load.coupon).filter(|_| load.state != LoadState::Applied)
            {
                let coupon_id = coupon.id.clone();
                self.append(Payload::StockAdded { coupon_id, load: load.id });
            }
        }
        self.pending.iter_mut().for_each(|pending| pending.ready = self.now);
        for owner in &mut self.owners {
            owner.leap = 0;
            owner.frozen_until = self.now;
            owner.inbox.iter_mut().for_each(|mail| mail.ready = self.now);
        }
        let zombies: Vec<OwnerId> = self.owners.iter().map(|owner| owner.id).collect();
        for id in zombies {
            if self.assigned != Some(id) {
                self.feed(id, Input::HandOver)?;
            }
        }
        self.come_to_rest()?;
        quiet::every_deadline_passes(self)
    }

    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        let end = self.now + LONGEST_SETTLING;
        while !self.is_at_rest() {
            if self.now == end {
                return Err(format!("I3: not at rest: {:?}, log end {}", self.ledger.row, self.log.end()));
            }
            if self.assigned.is_none() {
                self.start_owner()?;
            }
            self.step()?;
        }
        Ok(())
    }

    fn is_at_rest(&self) -> bool {
        let row = &self.ledger.row;
        self.pending.is_empty()
            && self.owners.len() == 1
            && self.owners[0].inbox.is_empty()
            && !self.owners[0].letting_go
            && row.position.next_offset == self.log.end()
            && row.emitted_seq.next() == row.next_emit_seq
    }
}
