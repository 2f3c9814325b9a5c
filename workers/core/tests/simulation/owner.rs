//! One ownership as the world sees it: a machine, what it has asked for, and what is on its way to it.

use coupon_core::batch::{Batch, Decision, Event};
use coupon_core::ids::{EmitSeq, Millis, Nonce, Offset};
use coupon_core::interface::{
    CodeEntry, Input, LookupResults, Lookups, Pop, Popped, ReadCodes, Refill, Token,
};
use coupon_core::machine::Machine;
use coupon_core::record::Payload;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerId(pub(crate) u32);

pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) machine: Machine,
    /// The next record to deliver, once it consumes.
    pub(crate) cursor: Option<Offset>,
    pub(crate) paused: bool,
    /// Nothing reaches it before this step.
    pub(crate) frozen_until: u64,
    pub(crate) inbox: Vec<Mail>,
    pub(crate) letting_go: bool,
    /// A write whose answer it has not got.
    pub(crate) writing: bool,
    /// Outbox entries that it knows to be acknowledged: all up to the first, and those beyond.
    pub(crate) acknowledged: EmitSeq,
    pub(crate) beyond: BTreeSet<EmitSeq>,
    /// Outbox entries that earlier owners left behind.
    pub(crate) inherited: u64,
    /// Whether it was told a mismatch that was none: the second one would stop it.
    pub(crate) misled: bool,
    /// A tick that it asked for, and that it has not got.
    pub(crate) ticking: bool,
    /// Whether there was a deadline when it took over.
    pub(crate) deadline: bool,
    /// How fast its clock runs, in thousandths; when it was given records last; and how far its clock has leapt since.
    pub(crate) rate: i64,
    heard: Millis,
    pub(crate) leap: i64,
}

/// An answer on its way.
pub(crate) struct Mail {
    pub(crate) ready: u64,
    pub(crate) input: Input,
}

impl Owner {
    pub(crate) fn new(id: OwnerId, machine: Machine, rate: i64, now: Millis) -> Self {
        Self {
            id,
            machine,
            cursor: None,
            paused: false,
            frozen_until: 0,
            inbox: Vec::new(),
            letting_go: false,
            writing: false,
            acknowledged: EmitSeq(0),
            beyond: BTreeSet::new(),
            inherited: 0,
            misled: false,
            ticking: false,
            deadline: false,
            rate,
            heard: now,
            leap: 0,
        }
    }

    /// Keeps the books about an input that is about to be delivered.
    pub(crate) fn note(&mut self, input: &Input, now: Millis) {
        match input {
            Input::TakenOver(row) => {
                self.acknowledged = row.emitted_seq;
                self.deadline = row.next_deadline.is_some();
                self.inherited = (row.next_emit_seq.0 - 1 - row.emitted_seq.0).unsigned_abs();
            }
            Input::Written { .. } => self.writing = false,
            Input::Published(seq) => {
                if *seq > self.acknowledged {
                    self.beyond.insert(*seq);
                }
                while self.beyond.remove(&self.acknowledged.next()) {
                    self.acknowledged = self.acknowledged.next();
                }
            }
            Input::HandOver => self.letting_go = true,
            Input::Records(records) => {
                (self.heard, self.leap) = (now, 0);
                self.ticking &= !records.iter().any(|record| record.payload == Payload::Tick);
            }
            _ => {}
        }
    }

    /// How long it believes that nothing has come.
    pub(crate) fn quiet(&self, now: Millis) -> Millis {
        Millis(((now.0 - self.heard.0) * self.rate / 1_000 + self.leap).max(0))
    }
}

/// Something that was asked for and is not done yet.
pub(crate) struct Pending {
    pub(crate) owner: OwnerId,
    /// It does not happen before this step.
    pub(crate) ready: u64,
    /// Whether anybody still waits for the answer.
    pub(crate) awaited: bool,
    pub(crate) call: Call,
}

pub(crate) enum Call {
    TakeOver(Nonce),
    CheckLog(coupon_core::batch::Position),
    Load(Box<Load>),
    Reserve(Box<Reserve>),
    /// First the codes are read, then they are pushed.
    Refill(Refill, Option<Vec<CodeEntry>>),
    Write(Arc<Batch>),
    ReadBack,
    Emit(EmitSeq, Vec<Message>),
    Reemit(EmitSeq, EmitSeq),
    Tick,
}

/// One query per kind, each at its own time.
pub(crate) struct Load {
    pub(crate) token: Token,
    pub(crate) wants: Lookups,
    pub(crate) stage: u8,
    pub(crate) answers: LookupResults,
}

/// Pops and reads, each at its own time.
pub(crate) struct Reserve {
    pub(crate) token: Token,
    pub(crate) pops: Vec<Pop>,
    pub(crate) reads: Vec<ReadCodes>,
    pub(crate) popped: Vec<Popped>,
    pub(crate) read: Vec<Vec<CodeEntry>>,
}

/// What is produced to the broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Response(Decision),
    DeadLetter(Offset),
    Event(Event),
}

impl Call {
    /// A word for the trace.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::TakeOver(_) => "take over",
            Self::CheckLog(_) => "check log",
            Self::Load(_) => "load",
            Self::Reserve(_) => "reserve",
            Self::Refill(..) => "fill",
            Self::Write(_) => "write",
            Self::ReadBack => "read back",
            Self::Emit(..) => "emit",
            Self::Reemit(..) => "re-emit",
            Self::Tick => "tick",
        }
    }
}

/// Everything that a batch has to tell.
pub(crate) fn messages_of(batch: &Batch) -> Vec<Message> {
    let responses = batch.decisions.iter().chain(&batch.duplicates).cloned().map(Message::Response);
    let letters = batch.dead_letters.iter().map(|(offset, _)| Message::DeadLetter(*offset));
    let events = batch.events.iter().cloned().map(Message::Event);
    responses.chain(letters).chain(events).collect()
}
