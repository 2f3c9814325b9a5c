//! One run: the environment, the owners that come and go, and the calls and responses between them.
//!
//! Everything follows from the seed. [`schedule`] draws what happens next; [`faults`] adds crashes, frozen owners,
//! rebalances and Redis failures; [`calls`], [`lookups`] and [`pending`] execute what an owner requested. When the
//! faults are over, [`drain`] runs until nothing is left to do, and [`idle_deadlines`] lets the remaining deadlines
//! pass. [`recorded`]: what reached the ledger. Here: how an input reaches a machine, and how its effects become calls.

mod calls;
mod drain;
mod faults;
mod idle_deadlines;
mod lookups;
mod pending;
pub(crate) mod recorded;
mod schedule;

use crate::checks;
use crate::environment::Environment;
use crate::environment::broker::{Broker, messages_of};
use crate::environment::redis::Redis;
use crate::initial_state;
use crate::owner::{InFlight, Owner, OwnerId};
use crate::plan::{Plan, RunConfig};
use crate::reference::Reference;
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::Batch;
use coupon_core::ids::{Attempt, EmitSeq, Partition, WriteNo};
use coupon_core::interface::{Effect, Input, LookupResults, Pop, Release, WriteResult};
use coupon_core::machine::{Config, Machine};
use pending::{Call, LookupCall, PendingCall, ReserveCall};
use recorded::Recorded;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The speeds of the owners' clocks, in thousandths.
const CLOCK_RATES: [i64; 6] = [500, 900, 1_000, 1_000, 1_100, 4_000];
/// Characters of one input or effect in the trace, at most.
const MAX_TRACE_CHARS: usize = 12_000;

pub(crate) struct Run {
    rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) config: Config,
    /// The current step.
    now: u64,
    /// Whether calls fail, responses are lost and messages are late.
    faults_enabled: bool,
    traffic: Traffic,
    pub(crate) environment: Environment,
    pub(crate) reference: Reference,
    owners: Vec<Owner>,
    assigned: Option<OwnerId>,
    owners_started: u32,
    pending: Vec<PendingCall>,
    /// Pops whose response is already lost, each with the step at which it is executed.
    delayed_pops: Vec<(u64, Pop)>,
    /// The attempt that wrote each outbox entry.
    entry_attempts: BTreeMap<EmitSeq, Attempt>,
    /// The highest number of an executed write.
    last_write: WriteNo,
    pub(crate) crashes: usize,
    /// Ticks appended for owners.
    ticks: u64,
    /// Those of them that did not advance the partition's time, because the leader's clock was behind.
    ineffective_ticks: u64,
    /// Lapses written.
    lapses: u64,
    pub(crate) trace: Option<Vec<String>>,
    /// The calls of the ledger, if they are recorded.
    pub(crate) recorded: Option<Vec<Recorded>>,
}

impl Run {
    pub(crate) fn new(run: RunConfig) -> Self {
        let mut rng = Rng::new(run.seed);
        let plan = Plan::draw(&mut rng);
        let config = Plan::config(&mut rng, run.planted);
        let (ledger, reference, log, traffic) = initial_state::build(&mut rng, &plan, run.ledger_bug);
        Self {
            rng,
            plan,
            config,
            now: 0,
            faults_enabled: true,
            traffic,
            environment: Environment { log, redis: Redis::default(), ledger, broker: Broker::default() },
            reference,
            owners: Vec::new(),
            assigned: None,
            owners_started: 0,
            pending: Vec::new(),
            delayed_pops: Vec::new(),
            entry_attempts: BTreeMap::new(),
            last_write: WriteNo(0),
            crashes: 0,
            ticks: 0,
            ineffective_ticks: 0,
            lapses: 0,
            trace: run.traced.then(Vec::new),
            recorded: None,
        }
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_mut() {
            trace.push(format!("{:5} {}", self.now, line()));
        }
    }

    /// The step at which a new call or response takes effect: the current one, or a later one if it is slow.
    fn ready_at(&mut self) -> u64 {
        if self.faults_enabled && self.rng.chance(self.plan.slow_calls) { self.delayed() } else { self.now }
    }

    fn delayed(&mut self) -> u64 {
        let longest = if self.rng.chance(150) { 900 } else { 60 };
        self.now + self.rng.between(1, longest).unsigned_abs()
    }

    fn owner(&mut self, id: OwnerId) -> Option<&mut Owner> {
        self.owners.iter_mut().find(|owner| owner.id == id)
    }

    /// Sends a response to its owner, if the owner still exists.
    fn respond(&mut self, id: OwnerId, input: Input) {
        let ready_at = self.ready_at();
        if let Some(owner) = self.owner(id) {
            owner.in_flight.push(InFlight { ready_at, input });
        }
    }

    fn start_owner(&mut self) -> Result<(), String> {
        self.owners_started += 1;
        let id = OwnerId(self.owners_started);
        let machine = Machine::new(Partition(3), self.config.clone(), self.rng.next());
        let clock_rate = *self.rng.pick(&CLOCK_RATES);
        self.owners.push(Owner::new(id, machine, clock_rate, self.environment.log.now()));
        self.assigned = Some(id);
        self.apply_input(id, Input::Begin)
    }

    /// Removes an owner. Each of its pending calls may still be executed.
    fn remove_owner(&mut self, id: OwnerId) {
        self.owners.retain(|owner| owner.id != id);
        if self.assigned == Some(id) {
            self.assigned = None;
        }
        let rng = &mut self.rng;
        let is_tick = |pending: &PendingCall| pending.owner == id && matches!(pending.call, Call::Tick);
        let ticks = self.pending.iter().filter(|pending| is_tick(pending)).count();
        self.pending.retain(|pending| pending.owner != id || rng.chance(500));
        let left = self.pending.iter().filter(|pending| is_tick(pending)).count();
        self.reference.coverage.count_if(left < ticks, "tick: lost with its owner");
        for index in 0..self.pending.len() {
            if self.pending[index].owner == id && self.pending[index].awaited {
                self.pending[index].awaited = false;
                self.pending[index].ready_at = if self.faults_enabled { self.delayed() } else { self.now };
            }
        }
    }

    /// Applies one input to a machine and handles its effects.
    fn apply_input(&mut self, id: OwnerId, input: Input) -> Result<(), String> {
        self.trace(|| format!("{id:?} ← {}", truncated(&format!("{input:?}"))));
        let Some(owner) = self.owners.iter_mut().find(|owner| owner.id == id) else { return Ok(()) };
        owner.track(&input, self.environment.log.now());
        let starts = input == Input::LogChecked(Ok(()));
        let mut effects = Vec::new();
        owner.machine.apply(input, &mut effects);
        for effect in effects {
            self.trace(|| format!("{id:?} → {}", truncated(&format!("{effect:?}"))));
            self.handle_effect(id, effect)?;
        }
        match self.owners.iter().find(|owner| owner.id == id) {
            Some(owner) if starts && owner.has_deadline && !owner.tick_requested => {
                Err(format!("I11: {id:?} took over deadlines and requests no tick"))
            }
            Some(owner) => checks::memory_is_bounded(owner, &self.config),
            None => Ok(()),
        }
    }

    fn handle_effect(&mut self, id: OwnerId, effect: Effect) -> Result<(), String> {
        let Some(owner) = self.owners.iter_mut().find(|owner| owner.id == id) else {
            return Err(format!("{id:?} was released and requests {effect:?}"));
        };
        let call = match effect {
            Effect::TakeOver { nonce } => Call::TakeOver(nonce),
            Effect::CheckLog { position } => Call::CheckLog(position),
            Effect::Consume { from } => {
                owner.cursor = Some(from);
                return Ok(());
            }
            Effect::Republish { from, to } => Call::Republish(from, to),
            Effect::Lookup { token, lookups } => {
                let results = LookupResults::default();
                Call::Lookup(Box::new(LookupCall { token, lookups, stage: 0, results }))
            }
            Effect::Reserve { token, pops, reads } => {
                let (popped, read) = (Vec::new(), Vec::new());
                Call::Reserve(Box::new(ReserveCall { token, pops, reads, popped, read }))
            }
            Effect::Refill(refill) => Call::Refill(refill, None),
            Effect::Write { batch, .. } => {
                checks::write_is_in_order(owner, &batch, &self.config)?;
                owner.writing = true;
                Call::Write(batch)
            }
            Effect::ReadBack => Call::ReadBack,
            Effect::ReadClock { offset, again } => Call::ReadClock(offset, again),
            Effect::Publish(batch) => {
                let seq = batch.emit_seq.ok_or("a batch without an outbox entry is published")?;
                if self.entry_attempts.get(&seq) != Some(&batch.fence.attempt) {
                    return Err(format!("I5: entry {seq} is published, but another attempt wrote it"));
                }
                Call::Publish(seq, messages_of(&batch))
            }
            Effect::Tick => {
                if std::mem::replace(&mut owner.tick_requested, true) {
                    return Err(format!("{id:?} requests a tick before it has received the previous one"));
                }
                Call::Tick
            }
            Effect::CommitOffset { next_offset, write_no } => {
                if write_no > self.last_write {
                    return Err(format!(
                        "I10: offset committed with write {write_no}, which is not executed"
                    ));
                }
                return self.environment.broker.commit_offset(next_offset, &self.environment.ledger);
            }
            Effect::Pause | Effect::Resume => {
                owner.paused = effect == Effect::Pause;
                return Ok(());
            }
            Effect::Released(release) => return self.released(id, release),
        };
        let slow_tick = self.faults_enabled && matches!(call, Call::Tick) && self.rng.chance(400);
        let ready_at = if slow_tick { self.delayed() } else { self.ready_at() };
        self.pending.push(PendingCall { owner: id, ready_at, awaited: true, call });
        Ok(())
    }

    fn released(&mut self, id: OwnerId, release: Release) -> Result<(), String> {
        let Some(owner) = self.owners.iter().find(|owner| owner.id == id) else { return Ok(()) };
        match release {
            Release::Stopped(text) => return Err(format!("{id:?} stopped: {text}")),
            Release::HandedOver if !owner.handing_over => {
                return Err(format!("{id:?} handed over without a request"));
            }
            Release::HandedOver => checks::hand_over_is_complete(owner)?,
            Release::Fenced => {}
        }
        self.remove_owner(id);
        Ok(())
    }

    /// Executes `write_batch`. The batch is compared with the reference before it is written.
    fn write_to_ledger(&mut self, id: OwnerId, batch: &Arc<Batch>) -> Result<WriteResult, String> {
        let write_no = batch.fence.write_no;
        let records = batch.decisions.len() + batch.duplicates.len();
        if let Some(rejection) = self.environment.ledger.rejection(batch) {
            self.record_write(batch, &rejection);
            self.trace(|| format!("{id:?}: write {write_no} is rejected: {rejection:?}"));
            return match rejection {
                WriteResult::AlreadyDecided | WriteResult::Mismatch(_) => {
                    Err(format!("the owner's cache differed from the ledger: {rejection:?} for {batch:?}"))
                }
                _ => Ok(rejection),
            };
        }
        // A request changes one claim, and a lapse another one, with two events if the hold has ended with the lock.
        if records.max(batch.claims.len().saturating_sub(records)) > self.plan.most_written {
            self.reference.coverage.count("a write exceeds the time limit of a statement");
            return Ok(WriteResult::StatementTimedOut);
        }
        self.record_write(batch, &WriteResult::Written);
        let Environment { log, ledger, broker, .. } = &mut self.environment;
        let from = ledger.row.position.next_offset;
        checks::batch_extends_row(batch, &ledger.row, broker)?;
        checks::nothing_lapses_early(batch, log, ledger)?;
        checks::time_is_not_far_ahead(batch, log, ledger, &self.config)?;
        checks::required_locks_are_held(batch, ledger)?;
        self.reference.check_batch(batch, log, ledger)?;
        ledger.commit(batch);
        self.last_write = self.last_write.max(write_no);
        self.lapses += checks::lapses(batch).count() as u64;
        checks::stock_adds_up(batch, ledger)?;
        checks::redemption_limits_hold(batch, ledger)?;
        if let Some(seq) = batch.emit_seq {
            self.entry_attempts.insert(seq, batch.fence.attempt);
            broker.unpublished.insert(seq, from);
        }
        self.trace(|| format!("{id:?}: write {write_no} is executed"));
        Ok(WriteResult::Written)
    }
}

fn truncated(text: &str) -> String {
    text.chars().take(MAX_TRACE_CHARS).collect()
}
