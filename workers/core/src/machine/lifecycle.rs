//! The states of one ownership: take over, check the log, own the partition, release it.

use super::backlog::Backlog;
use super::cache::{Cache, ListNames};
use super::clock::{Ahead, Clock};
use super::commit::Recovery;
use super::config::Config;
use super::deadlines::Deadlines;
use super::duplicates::{MAX_CLOCK_SKEW_MS, RecentIds};
use super::outbox::Outbox;
use super::pipeline::Pipeline;
use super::{Head, IdSource, Owner};
use crate::domain::ids::{Epoch, Millis, Nonce, Offset, Partition, WriteNo};
use crate::interface::{Effect, Input, PartitionRow, Release};
use crate::planted::Bug;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::ops::ControlFlow;

/// The machine of one partition. See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    partition: Partition,
    config: Config,
    seed: u64,
    random: StdRng,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing is requested.
    New,
    /// The takeover is requested.
    TakingOver { nonce: Nonce },
    /// The partition is taken over, and its log is checked.
    CheckingLog(PartitionRow),
    /// Records are decided, or a hand-over is completed.
    Owning(Box<Owner>),
    /// The partition is released; the last status.
    Released(Status),
}

/// The state of a machine, for metrics and probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether records are decided.
    pub running: bool,
    /// The epoch of this ownership; 0 before the takeover.
    pub epoch: Epoch,
    /// The last write that is settled.
    pub write_no: WriteNo,
    /// The first record whose outcome is not durable.
    pub next_offset: Offset,
    /// The partition's time.
    pub time: Millis,
    /// Received records that are not prefetched.
    pub backlog: usize,
    /// Whether a record waits for its decision, or a batch for its result.
    pub has_work: bool,
    /// The record whose append time is too far ahead of Postgres' clock, and that the partition waits for.
    pub ahead: Option<Ahead>,
    /// Executed batches that are not settled.
    pub unsettled: usize,
    /// Outbox entries that are not acknowledged.
    pub unacknowledged: u64,
    /// Cached coupons.
    pub coupons: usize,
    /// Cached users.
    pub users: usize,
}

impl Machine {
    /// A machine that owns nothing. `seed` determines nonces and attempts.
    #[must_use]
    pub fn new(partition: Partition, config: Config, seed: u64) -> Self {
        Self { partition, config, seed, random: StdRng::seed_from_u64(seed), state: State::New }
    }

    /// The current status.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.state {
            State::New | State::TakingOver { .. } => Status::default(),
            State::CheckingLog(row) => Status {
                epoch: row.epoch,
                write_no: row.write_no,
                next_offset: row.position.next_offset,
                time: row.position.time,
                ..Status::default()
            },
            State::Owning(owner) => owner.status(),
            State::Released(status) => *status,
        }
    }

    /// Applies an input, and appends the effects to perform.
    pub fn apply(&mut self, input: Input, effects: &mut Vec<Effect>) {
        let flow = match (&mut self.state, input) {
            (State::Owning(owner), input) => owner.apply(input, effects),
            (State::Released(_), _) => return,
            (_, Input::HandOver) => ControlFlow::Break(Release::HandedOver),
            (State::New, Input::Begin) => self.take_over(effects),
            (State::TakingOver { nonce }, Input::TakenOver(row)) if row.nonce == *nonce => {
                self.state = State::CheckingLog(row);
                effects.push(Effect::CheckLog { position: row.position });
                ControlFlow::Continue(())
            }
            (State::CheckingLog(row), Input::LogChecked(checked)) => {
                let row = *row;
                self.log_checked(&row, checked, effects)
            }
            _ => ControlFlow::Continue(()),
        };
        if let ControlFlow::Break(release) = flow {
            let status = Status {
                running: false,
                has_work: false,
                ahead: None,
                backlog: 0,
                coupons: 0,
                users: 0,
                ..self.status()
            };
            self.state = State::Released(status);
            effects.push(Effect::Released(release));
        }
    }

    fn take_over(&mut self, effects: &mut Vec<Effect>) -> ControlFlow<Release> {
        let nonce = Nonce(self.random.random());
        self.state = State::TakingOver { nonce };
        effects.push(Effect::TakeOver { nonce });
        ControlFlow::Continue(())
    }

    fn log_checked(
        &mut self,
        row: &PartitionRow,
        checked: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) -> ControlFlow<Release> {
        if let Err(fault) = checked {
            let text = format!("partition {} stopped: {fault}", self.partition);
            return ControlFlow::Break(Release::Stopped(text));
        }
        let mut owner = Box::new(self.owner(row));
        if let Some((from, to)) = owner.outbox.unpublished() {
            effects.push(Effect::Republish { from, to });
        }
        effects.push(Effect::Consume { from: row.position.next_offset });
        // The age of the last record is unknown: any deadline may have passed.
        if owner.deadlines.none_before < Millis(i64::MAX) {
            owner.tick(effects);
        }
        self.state = State::Owning(owner);
        ControlFlow::Continue(())
    }

    fn owner(&mut self, row: &PartitionRow) -> Owner {
        let head = Head {
            write_no: row.write_no,
            position: row.position,
            next_emit_seq: row.next_emit_seq,
            watermark: row.emitted_seq,
            ordinal: 0,
        };
        let lapses_lost = self.config.planted.has(Bug::LapseLostAtTakeover);
        let next_deadline = row.next_deadline.filter(|_| !lapses_lost);
        // Earlier decisions are stored in Postgres only: ids minted until now may be duplicates.
        let taken_over = Millis(row.position.time.0 + MAX_CLOCK_SKEW_MS);
        let possible_duplicates_until = row.position.possible_duplicates_until.max(taken_over);
        Owner {
            partition: self.partition,
            config: self.config.clone(),
            epoch: row.epoch,
            nonce: row.nonce,
            settled: head,
            head,
            backlog: Backlog::new(row.position.next_offset),
            pipeline: Pipeline::default(),
            cache: Cache::new(self.seed, self.config.window),
            deadlines: Deadlines::new(next_deadline.unwrap_or(Millis(i64::MAX))),
            clock: Clock::new(),
            recent: RecentIds::new(self.seed, possible_duplicates_until, self.config.max_recent_ids),
            outbox: Outbox::after_takeover(&head),
            recovery: Recovery::new(self.config.batch_records.max(1)),
            ids: IdSource { random: StdRng::from_rng(&mut self.random), tokens: 0 },
            list_names: ListNames::new(row.epoch, row.nonce),
        }
    }
}

impl Owner {
    fn status(&self) -> Status {
        Status {
            running: !self.pipeline.is_handing_over(),
            epoch: self.epoch,
            write_no: self.settled.write_no,
            next_offset: self.settled.position.next_offset,
            time: self.settled.position.time,
            backlog: self.backlog.len(),
            has_work: !self.backlog.is_empty() || !self.pipeline.is_free(),
            ahead: self.clock.waiting(),
            unsettled: self.pipeline.unsettled(),
            unacknowledged: self.outbox.unacknowledged(),
            coupons: self.cache.coupons(),
            users: self.cache.users(),
        }
    }
}
