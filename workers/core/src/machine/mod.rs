//! The machine of one partition: one [`Machine`] for each ownership, from takeover to hand-over.
//!
//! Inputs arrive in any order and at any time; [`Machine::apply`] returns effects. Each batch passes three phases:
//! *prefetch* reads what its decisions can depend on and reserves codes, *execute* decides its records in the order of
//! the log, *commit* writes and publishes it. At most one batch (n) is written while the next one (n+1) is prefetched
//! and executed on top of it. If n is not written exactly as executed, both are undone and executed again.
//!
//! Reading order: `lifecycle` (the states of an ownership), this file (the inputs of an owner), `pipeline` (the batches
//! in flight), `prefetch`, `execute`, `commit`; then what they work on: `backlog`, `cache`, [`stock`], `codes`,
//! [`duplicates`], `deadlines`, `clock`, `outbox`.

mod backlog;
mod cache;
mod clock;
mod codes;
mod commit;
mod config;
mod deadlines;
pub mod duplicates;
mod execute;
mod executed;
mod lifecycle;
mod outbox;
mod pipeline;
mod prefetch;
pub mod stock;

pub use clock::{Ahead, TOO_FAR_AHEAD};
pub use config::{Config, DEFAULT_RECENT_IDS_MIB, ids_within};
pub use lifecycle::{Machine, Status};

use crate::domain::batch::{Batch, Position};
use crate::domain::ids::{Attempt, EmitSeq, Epoch, Nonce, Offset, Partition, WriteNo};
use crate::domain::record::Record;
use crate::interface::{Effect, Input, Release, Token};
use backlog::Backlog;
use cache::{Cache, ListNames};
use clock::Clock;
use commit::Recovery;
use deadlines::Deadlines;
use duplicates::RecentIds;
use outbox::Outbox;
use pipeline::Pipeline;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::ops::ControlFlow;

/// Position of the partition after some batch: in its writes, in the log, in the outbox.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    write_no: WriteNo,
    position: Position,
    next_emit_seq: EmitSeq,
    watermark: EmitSeq,
    /// Number of the batch within this ownership.
    ordinal: u64,
}

impl Head {
    /// After this batch; `next_emit_seq` is the next outbox entry before it.
    fn after(batch: &Batch, next_emit_seq: EmitSeq, ordinal: u64) -> Self {
        Self {
            write_no: batch.fence.write_no,
            position: batch.position,
            next_emit_seq: batch.emit_seq.map_or(next_emit_seq, EmitSeq::next),
            watermark: batch.watermark,
            ordinal,
        }
    }
}

/// The owner of a partition, from the moment its log is checked until it is released.
#[derive(Debug)]
struct Owner {
    partition: Partition,
    config: Config,
    epoch: Epoch,
    nonce: Nonce,
    /// After the last settled batch: the state of Postgres.
    settled: Head,
    /// After the last executed batch: the base of the next one.
    head: Head,
    backlog: Backlog,
    pipeline: Pipeline,
    cache: Cache,
    deadlines: Deadlines,
    clock: Clock,
    recent: RecentIds,
    outbox: Outbox,
    recovery: Recovery,
    ids: IdSource,
    list_names: ListNames,
}

/// Source of the tokens and attempts of one ownership.
#[derive(Debug)]
struct IdSource {
    random: StdRng,
    tokens: u64,
}

impl IdSource {
    const fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn attempt(&mut self) -> Attempt {
        Attempt(self.random.random())
    }
}

impl Owner {
    /// Applies an input; breaks when the partition is released.
    fn apply(&mut self, input: Input, effects: &mut Vec<Effect>) -> ControlFlow<Release> {
        match input {
            Input::Records(records) => self.receive(records),
            Input::LookedUp { token, results } => self.looked_up(token, *results),
            Input::Reserved { token, popped, read } => self.reserved(token, popped, read, effects),
            Input::Refilled { list, result } => self.cache.refilled(list, result, self.head.position.time),
            Input::Written { write_no, attempt, result } => {
                self.written(write_no, attempt, result, effects)?
            }
            Input::ReadBack(row) => self.read_back(&row, effects)?,
            Input::ClockRead { now, rejected_through } => self.clock_read(now, rejected_through),
            Input::Published(seq) => self.published(seq, effects),
            Input::Idle { since_last_record } => {
                self.tick_if_due(since_last_record, effects);
                self.write_watermark(effects);
            }
            Input::HandOver => self.begin_hand_over(),
            Input::Begin | Input::TakenOver(_) | Input::LogChecked(_) => {}
        }
        self.advance(effects)
    }

    fn receive(&mut self, records: Vec<Record>) {
        if !self.pipeline.is_handing_over() && self.backlog.receive(records) {
            self.deadlines.tick_received();
        }
    }

    /// Does everything that can be done without a further input.
    fn advance(&mut self, effects: &mut Vec<Effect>) -> ControlFlow<Release> {
        while self.pipeline.accepts_records() {
            let Some(prefetch) = self.prefetch(effects) else { break };
            self.execute(prefetch, effects)?;
        }
        if self.pipeline.is_handing_over() {
            return self.hand_over(effects);
        }
        effects.extend(self.backlog.control_flow(&self.config));
        ControlFlow::Continue(())
    }

    /// Drops everything that is not written.
    fn begin_hand_over(&mut self) {
        self.backlog.clear();
        self.recovery.drop_kept();
        self.pipeline.hand_over();
        self.head = self.pipeline.write().map_or(self.settled, |write| write.executed.after);
    }

    /// Releases the partition when the current write is settled, everything is acknowledged, and the watermark is
    /// written.
    fn hand_over(&mut self, effects: &mut Vec<Effect>) -> ControlFlow<Release> {
        if self.pipeline.write().is_some() || self.outbox.unacknowledged() > 0 {
            return ControlFlow::Continue(());
        }
        self.write_watermark(effects);
        if self.pipeline.write().is_some() {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Release::HandedOver)
    }
}

#[cfg(test)]
mod tests;
