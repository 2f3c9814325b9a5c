//! The machine of one partition: one value for each ownership, from takeover to hand-over.
//!
//! Inputs come in any order and as late as they like; effects go out through [`Machine::apply`]. At most one
//! batch is being written (n) and one is gathered or decided on top of it (n+1). If n is not written exactly as
//! it was decided, both are undone: memory is dropped, and their records are decided again.
//!
//! Files: `gathering` and `planning` (what a batch needs), `deciding` and `draft` (records to a batch), `requests`
//! (what is asked of a code), `deadlines` (what lapses), `settling` (what became of a write), `memory` (coupons and
//! users), `claimants` (of whom nothing needs to be read), `codes` and `overlay` (what one batch knows of codes and claims), `outbox` (what is told, and how far).

mod cache;
mod code_requests;
mod codes;
mod commit;
mod config;
mod deadlines;
pub mod decide;
mod draft;
pub mod duplicates;
mod execute;
mod outbox;
mod overlay;
mod prefetch;
mod requirements;
pub mod stock;

use crate::domain::batch::{Batch, Position};
use crate::domain::ids::{Attempt, CouponNo, EmitSeq, Epoch, Millis, Nonce, Offset, Partition, WriteNo};
use crate::domain::record::{Payload, Record};
use crate::interface::{CacheListName, Effect, Input, PartitionRow, Release, Token};
use crate::machine::duplicates::{MAX_CLOCK_SKEW_MS, RecentIds};
use crate::planted::Bug;
use cache::Memory;
use commit::{Unsettled, Writing};
pub use config::Config;
use outbox::Outbox;
use prefetch::Gathering;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What a machine looks like from outside, for metrics and probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether records are being decided.
    pub running: bool,
    /// The epoch of this ownership (0 before the takeover).
    pub epoch: Epoch,
    /// The first record whose outcome is not durable.
    pub next_offset: Offset,
    /// The partition's time.
    pub time: Millis,
    /// Records waiting to be gathered.
    pub backlog: usize,
    /// Batches decided and not settled.
    pub unsettled: usize,
    /// Outbox entries not acknowledged.
    pub unacknowledged: u64,
    /// Coupons remembered.
    pub coupons: usize,
    /// Users remembered.
    pub users: usize,
}

/// Where an ownership stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    TakingOver,
    CheckingLog,
    Running,
    Released,
}

/// Where the partition stands after some batch: the number of its write, its position, its place in the outbox.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    write_no: WriteNo,
    position: Position,
    next_emit_seq: EmitSeq,
    watermark: EmitSeq,
    /// Counts the batches of this ownership.
    ordinal: u64,
}

/// The owner of one partition. See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    partition: Partition,
    config: Config,
    seed: u64,
    random: StdRng,
    phase: Phase,
    nonce: Nonce,
    epoch: Epoch,
    letting_go: bool,

    /// After the last settled batch: what the ledger holds.
    settled: Head,
    /// After the last decided batch: what the next one builds upon.
    head: Head,
    /// Where the next delivered record must stand, or beyond.
    delivered: Offset,
    backlog: VecDeque<Record>,
    backlog_bytes: usize,
    paused: bool,

    memory: Memory,
    recent: RecentIds,
    outbox: Outbox,
    gathering: Option<Gathering>,
    decided: Option<Unsettled>,
    writing: Option<Writing>,
    /// A planted mistake keeps the next batch here when its predecessor is undone.
    kept: Option<Unsettled>,
    /// Attempts at the write under way whose fate is unknown, decided differently from the present one.
    uncertain: Vec<Arc<Batch>>,

    /// Records that Postgres refuses as data: they become `unprocessable`.
    refused: BTreeSet<Offset>,
    /// Below here every request is looked up: it is gathered again.
    suspect_below: Offset,
    /// Records in the next batch at most.
    limit: usize,
    /// Undone batches since the last settled one.
    undone: u32,
    /// Why the partition must stop, unless its row shows something else.
    doubt: Option<String>,
    tokens: u64,
    lists: u64,
    /// Whether a tick was appended that has not been consumed.
    ticking: bool,
    /// Whether more has lapsed than one batch can fire: then no record is gathered in vain.
    lapsing: bool,
    /// Whether nothing can be decided before the write under way is answered.
    awaits_write: bool,
    /// What a planted mistake takes for the time.
    own_clock: Millis,
}

impl Machine {
    /// A machine that owns nothing yet. `seed` is the source of nonces and attempts.
    #[must_use]
    pub fn new(partition: Partition, config: Config, seed: u64) -> Self {
        let limit = config.batch_records.max(1);
        Self {
            partition,
            seed,
            random: StdRng::seed_from_u64(seed),
            phase: Phase::New,
            nonce: Nonce::default(),
            epoch: Epoch::default(),
            letting_go: false,
            settled: Head::default(),
            head: Head::default(),
            delivered: Offset(0),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            paused: false,
            memory: Memory::new(seed, config.window),
            recent: RecentIds::new(seed, Millis(0)),
            outbox: Outbox::default(),
            gathering: None,
            decided: None,
            writing: None,
            kept: None,
            uncertain: Vec::new(),
            refused: BTreeSet::new(),
            suspect_below: Offset(i64::MIN),
            limit,
            undone: 0,
            doubt: None,
            tokens: 0,
            lists: 0,
            ticking: false,
            lapsing: false,
            awaits_write: false,
            own_clock: Millis(i64::MIN),
            config,
        }
    }

    /// What it looks like from outside.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            running: self.phase == Phase::Running && !self.letting_go,
            epoch: self.epoch,
            next_offset: self.settled.position.next_offset,
            time: self.settled.position.time,
            backlog: self.backlog.len(),
            unsettled: usize::from(self.decided.is_some()) + usize::from(self.writing.is_some()),
            unacknowledged: self.outbox.unacknowledged(),
            coupons: self.memory.coupons(),
            users: self.memory.users(),
        }
    }

    /// Takes in what happened and appends what is to be done to `effects`.
    pub fn apply(&mut self, input: Input, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Released {
            return;
        }
        match input {
            Input::Begin => self.begin(effects),
            Input::TakenOver(row) => self.taken_over(row, effects),
            Input::LogChecked(checked) => self.log_checked(checked, effects),
            Input::Records(records) => self.receive(records),
            Input::LookedUp { token, results } => self.loaded(token, *results),
            Input::Reserved { token, popped, read } => self.reserved(token, popped, read, effects),
            Input::Refilled { list, result } => self.memory.filled(list, result, self.head.position.time),
            Input::Written { write_no, attempt, result } => self.written(write_no, attempt, result, effects),
            Input::ReadBack(row) => self.read_back(&row, effects),
            Input::Published(seq) => self.emitted(seq, effects),
            Input::Idle { since_last_record } => {
                self.record_watermark();
                self.tick_if_due(since_last_record, effects);
            }
            Input::HandOver => self.let_go(),
        }
        self.advance(effects);
    }

    fn begin(&mut self, effects: &mut Vec<Effect>) {
        if self.phase == Phase::New {
            self.phase = Phase::TakingOver;
            self.nonce = Nonce(self.random.random());
            effects.push(Effect::TakeOver { nonce: self.nonce });
        }
    }

    fn taken_over(&mut self, row: PartitionRow, effects: &mut Vec<Effect>) {
        if self.phase != Phase::TakingOver || row.nonce != self.nonce {
            return;
        }
        self.epoch = row.epoch;
        // What was decided up to now is known to the ledger only; ids minted until then may come again.
        let possible_duplicates_until =
            row.position.possible_duplicates_until.max(Millis(row.position.time.0 + MAX_CLOCK_SKEW_MS));
        self.recent = RecentIds::new(self.seed, possible_duplicates_until);
        self.settled = Head {
            write_no: row.write_no,
            position: row.position,
            next_emit_seq: row.next_emit_seq,
            watermark: row.emitted_seq,
            ordinal: 0,
        };
        self.head = self.settled;
        self.memory.none_lapse_before = row.next_deadline.unwrap_or(Millis(i64::MAX));
        if self.config.planted.has(Bug::LapseLostAtTakeover) {
            self.memory.none_lapse_before = Millis(i64::MAX);
        }
        self.delivered = row.position.next_offset;
        self.phase = Phase::CheckingLog;
        effects.push(Effect::CheckLog { position: row.position });
    }

    fn log_checked(&mut self, checked: Result<(), String>, effects: &mut Vec<Effect>) {
        if self.phase != Phase::CheckingLog {
            return;
        }
        if let Err(fault) = checked {
            return self.stop(fault, effects);
        }
        self.phase = Phase::Running;
        self.outbox = Outbox::after_takeover(&self.settled);
        if let Some((from, to)) = self.outbox.to_reemit() {
            effects.push(Effect::Republish { from, to });
        }
        effects.push(Effect::Consume { from: self.delivered });
        // How long ago the last record was, nobody knows.
        if self.memory.none_lapse_before < Millis(i64::MAX) {
            self.tick(effects);
        }
    }

    fn receive(&mut self, records: Vec<Record>) {
        if self.letting_go {
            return;
        }
        for record in records {
            if record.offset < self.delivered {
                continue;
            }
            self.delivered = record.offset.next();
            self.backlog_bytes += record.bytes;
            self.ticking &= record.payload != Payload::Tick;
            self.backlog.push_back(record);
        }
    }

    /// Does whatever can be done now.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Running {
            if self.letting_go && matches!(self.phase, Phase::New | Phase::TakingOver | Phase::CheckingLog) {
                self.release(Release::HandedOver, effects);
            }
            return;
        }
        loop {
            self.send_decided(effects);
            if self.letting_go {
                return self.hand_over(effects);
            }
            if self.doubt.is_some() {
                return;
            }
            if self.decided.is_some() || !self.gather(effects) {
                break;
            }
            self.decide(effects);
            if self.phase != Phase::Running {
                return;
            }
        }
        self.control_flow(effects);
    }

    fn control_flow(&mut self, effects: &mut Vec<Effect>) {
        let (waiting, bytes) = (self.backlog.len(), self.backlog_bytes);
        if !self.paused && (waiting >= self.config.backlog_high || bytes >= self.config.backlog_bytes) {
            self.paused = true;
            effects.push(Effect::Pause);
        } else if self.paused && waiting <= self.config.backlog_low && bytes <= self.config.backlog_bytes / 2
        {
            self.paused = false;
            effects.push(Effect::Resume);
        }
    }

    fn let_go(&mut self) {
        self.letting_go = true;
        self.backlog = VecDeque::new();
        self.backlog_bytes = 0;
        self.gathering = None;
        self.decided = None;
        self.kept = None;
        self.head = self.writing.as_ref().map_or(self.settled, |writing| writing.unsettled.after);
    }

    /// What is being written is waited for, told, and acknowledged; then the partition is free.
    fn hand_over(&mut self, effects: &mut Vec<Effect>) {
        if self.writing.is_some() || self.outbox.unacknowledged() > 0 {
            return;
        }
        self.record_watermark();
        self.send_decided(effects);
        if self.writing.is_none() {
            self.release(Release::HandedOver, effects);
        }
    }

    fn release(&mut self, release: Release, effects: &mut Vec<Effect>) {
        self.phase = Phase::Released;
        self.memory = Memory::new(self.seed, self.config.window);
        self.backlog = VecDeque::new();
        effects.push(Effect::Released(release));
    }

    fn stop(&mut self, what: String, effects: &mut Vec<Effect>) {
        let text = format!("partition {} stopped: {what}", self.partition);
        self.release(Release::Stopped(text), effects);
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn attempt(&mut self) -> Attempt {
        Attempt(self.random.random())
    }
}

/// Names the lists of one ownership, none twice.
#[derive(Debug)]
struct ListNames<'a> {
    epoch: Epoch,
    nonce: Nonce,
    lists: &'a mut u64,
}

impl ListNames<'_> {
    fn next(&mut self, coupon: CouponNo) -> CacheListName {
        *self.lists += 1;
        CacheListName { coupon, epoch: self.epoch, nonce: self.nonce, generation: *self.lists }
    }
}

#[cfg(test)]
mod tests;
