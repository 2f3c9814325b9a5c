//! The world around one partition: log, stock, ledger and broker, the owners that come and go, and what is on
//! its way between them. Everything that happens follows from the seed.

use crate::broker::Broker;
use crate::checks;
use crate::ledger::Ledger;
use crate::log::Log;
use crate::owner::{Call, Load, Mail, Owner, OwnerId, Pending, Reserve, messages_of};
use crate::plan::{Plan, Setup};
use crate::redis::Redis;
use crate::reference::Reference;
use crate::rng::Rng;
use crate::setup;
use crate::traffic::Traffic;
use coupon_core::batch::Batch;
use coupon_core::ids::{Attempt, EmitSeq, Partition, WriteNo};
use coupon_core::interface::{Effect, Input, LookupResults, Pop, Release, WriteResult};
use coupon_core::machine::{Config, Machine};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How fast the clocks of processes run, in thousandths.
pub(crate) const CLOCK_RATES: [i64; 6] = [500, 900, 1_000, 1_000, 1_100, 4_000];

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) config: Config,
    /// Steps so far.
    pub(crate) now: u64,
    /// Whether things go wrong still.
    pub(crate) faulty: bool,
    pub(crate) log: Log,
    /// When each record was appended.
    pub(crate) appended_at: Vec<u64>,
    pub(crate) traffic: Traffic,
    pub(crate) redis: Redis,
    pub(crate) ledger: Ledger,
    pub(crate) broker: Broker,
    pub(crate) reference: Reference,
    pub(crate) owners: Vec<Owner>,
    pub(crate) assigned: Option<OwnerId>,
    pub(crate) born: u32,
    pub(crate) pending: Vec<Pending>,
    /// Pops whose answer is lost, but that happen yet.
    pub(crate) late_pops: Vec<(u64, Pop)>,
    /// Which attempt made each outbox entry.
    pub(crate) written: BTreeMap<EmitSeq, Attempt>,
    /// The highest number of a write that has happened.
    pub(crate) last_write: WriteNo,
    pub(crate) crashes: usize,
    /// Ticks that were appended for owners.
    pub(crate) ticks: u64,
    /// Those of them that did not bring the time forward: the leader's clock was behind.
    pub(crate) vain_ticks: u64,
    /// Lapses that were written.
    pub(crate) lapses: u64,
    pub(crate) trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let plan = Plan::draw(&mut rng);
        let config = Plan::config(&mut rng, setup.planted);
        let (ledger, reference, log, traffic) = setup::before_the_run(&mut rng, &plan, setup.flaw);
        Self {
            rng,
            plan,
            config,
            now: 0,
            faulty: true,
            log,
            appended_at: Vec::new(),
            traffic,
            redis: Redis::default(),
            ledger,
            broker: Broker::default(),
            reference,
            owners: Vec::new(),
            assigned: None,
            born: 0,
            pending: Vec::new(),
            late_pops: Vec::new(),
            written: BTreeMap::new(),
            last_write: WriteNo(0),
            crashes: 0,
            ticks: 0,
            vain_ticks: 0,
            lapses: 0,
            trace: setup.traced.then(Vec::new),
        }
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = self.trace.as_mut() {
            trace.push(format!("{:5} {}", self.now, line()));
        }
    }

    /// When something happens that was asked for now: at once, or much later.
    pub(crate) fn soon(&mut self) -> u64 {
        if self.faulty && self.rng.chance(self.plan.slow) { self.later() } else { self.now }
    }

    pub(crate) const fn later(&mut self) -> u64 {
        let longest = if self.rng.chance(150) { 900 } else { 60 };
        self.now + self.rng.between(1, longest).unsigned_abs()
    }

    pub(crate) fn owner(&mut self, id: OwnerId) -> Option<&mut Owner> {
        self.owners.iter_mut().find(|owner| owner.id == id)
    }

    /// An answer sets out to its owner, if there still is one.
    pub(crate) fn send(&mut self, id: OwnerId, input: Input) {
        let ready = self.soon();
        if let Some(owner) = self.owner(id) {
            owner.inbox.push(Mail { ready, input });
        }
    }

    pub(crate) fn start_owner(&mut self) -> Result<(), String> {
        self.born += 1;
        let id = OwnerId(self.born);
        let machine = Machine::new(Partition(3), self.config.clone(), self.rng.next());
        let rate = *self.rng.pick(&CLOCK_RATES);
        self.owners.push(Owner::new(id, machine, rate, self.log.now()));
        self.assigned = Some(id);
        self.feed(id, Input::Begin)
    }

    /// An owner is no more; what it has asked for may happen all the same.
    pub(crate) fn remove_owner(&mut self, id: OwnerId) {
        self.owners.retain(|owner| owner.id != id);
        if self.assigned == Some(id) {
            self.assigned = None;
        }
        let rng = &mut self.rng;
        let lost = |pending: &Pending| pending.owner == id && matches!(pending.call, Call::Tick);
        let ticks = self.pending.iter().filter(|pending| lost(pending)).count();
        self.pending.retain(|pending| pending.owner != id || rng.chance(500));
        let left = self.pending.iter().filter(|pending| lost(pending)).count();
        self.reference.coverage.saw_if(left < ticks, "tick: lost with its owner");
        for index in 0..self.pending.len() {
            if self.pending[index].owner == id && self.pending[index].awaited {
                self.pending[index].awaited = false;
                self.pending[index].ready = if self.faulty { self.later() } else { self.now };
            }
        }
    }

    /// One input reaches a machine, and its effects the world.
    pub(crate) fn feed(&mut self, id: OwnerId, input: Input) -> Result<(), String> {
        self.trace(|| format!("{id:?} ← {}", brief(&format!("{input:?}"))));
        let Some(owner) = self.owners.iter_mut().find(|owner| owner.id == id) else { return Ok(()) };
        owner.note(&input, self.log.now());
        let begins = input == Input::LogChecked(Ok(()));
        let mut effects = Vec::new();
        owner.machine.apply(input, &mut effects);
        for effect in effects {
            self.trace(|| format!("{id:?} → {}", brief(&format!("{effect:?}"))));
            self.accept(id, effect)?;
        }
        match self.owners.iter().find(|owner| owner.id == id) {
            Some(owner) if begins && owner.deadline && !owner.ticking => {
                Err(format!("I11: {id:?} took deadlines over and does not ask for the time"))
            }
            Some(owner) => checks::memory_is_bounded(owner, &self.config),
            None => Ok(()),
        }
    }

    fn accept(&mut self, id: OwnerId, effect: Effect) -> Result<(), String> {
        let Some(owner) = self.owners.iter_mut().find(|owner| owner.id == id) else {
            return Err(format!("{id:?} was released and asks for {effect:?}"));
        };
        let call = match effect {
            Effect::TakeOver { nonce } => Call::TakeOver(nonce),
            Effect::CheckLog { position } => Call::CheckLog(position),
            Effect::Consume { from } => {
                owner.cursor = Some(from);
                return Ok(());
            }
            Effect::Republish { from, to } => Call::Reemit(from, to),
            Effect::Lookup { token, lookups: wants } => {
                Call::Load(Box::new(Load { token, wants, stage: 0, answers: LookupResults::default() }))
            }
            Effect::Reserve { token, pops, reads } => {
                let (popped, read) = (Vec::new(), Vec::new());
                Call::Reserve(Box::new(Reserve { token, pops, reads, popped, read }))
            }
            Effect::Refill(fill) => Call::Refill(fill, None),
            Effect::Write { batch, .. } => {
                checks::a_write_is_in_order(owner, &batch, &self.config)?;
                owner.writing = true;
                Call::Write(batch)
            }
            Effect::ReadBack => Call::ReadBack,
            Effect::Publish(batch) => {
                let seq = batch.emit_seq.ok_or("an entry without a number is told")?;
                if self.written.get(&seq) != Some(&batch.fence.attempt) {
                    return Err(format!("I5: entry {seq} is told, but this attempt did not write it"));
                }
                Call::Emit(seq, messages_of(&batch))
            }
            Effect::Tick => {
                if std::mem::replace(&mut owner.ticking, true) {
                    return Err(format!("{id:?} asks for a tick before it has got another"));
                }
                Call::Tick
            }
            Effect::CommitOffset { next_offset, write_no } => {
                if write_no > self.last_write {
                    return Err(format!("I10: committed with write {write_no}, which has not happened"));
                }
                return self.broker.commit_offset(next_offset, &self.ledger);
            }
            Effect::Pause | Effect::Resume => {
                owner.paused = effect == Effect::Pause;
                return Ok(());
            }
            Effect::Released(release) => return self.released(id, release),
        };
        let late = self.faulty && matches!(call, Call::Tick) && self.rng.chance(400);
        let ready = if late { self.later() } else { self.soon() };
        self.pending.push(Pending { owner: id, ready, awaited: true, call });
        Ok(())
    }

    fn released(&mut self, id: OwnerId, release: Release) -> Result<(), String> {
        let Some(owner) = self.owners.iter().find(|owner| owner.id == id) else { return Ok(()) };
        match release {
            Release::Stopped(text) => return Err(format!("{id:?} stopped: {text}")),
            Release::HandedOver if !owner.letting_go => return Err(format!("{id:?} let go unasked")),
            Release::HandedOver => checks::a_hand_over_leaves_nothing(owner)?,
            Release::Fenced => {}
        }
        self.remove_owner(id);
        Ok(())
    }

    /// A call of `write_batch`. What it writes is compared with the reference before it is written.
    pub(crate) fn call_ledger(&mut self, id: OwnerId, batch: &Arc<Batch>) -> Result<WriteResult, String> {
        if let Some(refusal) = self.ledger.refusal(batch) {
            self.trace(|| format!("{id:?}: write {} is refused: {refusal:?}", batch.fence.write_no));
            return match refusal {
                WriteResult::AlreadyDecided | WriteResult::Mismatch(_) => {
                    Err(format!("an owner's memory was wrong: {refusal:?} for {batch:?}"))
                }
                _ => Ok(refusal),
            };
        }
        let from = self.ledger.row.position.next_offset;
        checks::a_batch_fits_its_row(batch, &self.ledger.row, &self.broker)?;
        checks::nothing_lapses_early(batch, &self.log, &self.ledger)?;
        checks::locked_where_required(batch, &self.ledger)?;
        self.reference.follow(batch, &self.log, &self.ledger)?;
        self.ledger.commit(batch);
        self.last_write = self.last_write.max(batch.fence.write_no);
        self.lapses += checks::lapses(batch).count() as u64;
        checks::stock_adds_up(batch, &self.ledger)?;
        checks::redeemed_as_allowed(batch, &self.ledger)?;
        if let Some(seq) = batch.emit_seq {
            self.written.insert(seq, batch.fence.attempt);
            self.broker.untold.insert(seq, from);
        }
        self.trace(|| format!("{id:?}: write {} has happened", batch.fence.write_no));
        Ok(WriteResult::Written)
    }

    /// Tells an owner a mismatch that is none; once only, for the second one stops it.
    pub(crate) fn mislead(&mut self, id: OwnerId) -> bool {
        self.owner(id).is_some_and(|owner| !std::mem::replace(&mut owner.misled, true))
    }
}

fn brief(text: &str) -> String {
    text.chars().take(12_000).collect()
}
