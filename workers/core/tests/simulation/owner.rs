//! One ownership of the partition: a machine, the responses on their way to it, and what a driver tracks for it.

use coupon_core::ids::{EmitSeq, Millis, Offset};
use coupon_core::interface::Input;
use coupon_core::machine::Machine;
use coupon_core::record::Payload;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerId(pub(crate) u32);

pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) machine: Machine,
    /// The next record to deliver; `None` before it consumes.
    pub(crate) cursor: Option<Offset>,
    pub(crate) paused: bool,
    /// No input reaches it before this step.
    pub(crate) frozen_until: u64,
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) handing_over: bool,
    /// Whether a write has no response yet.
    pub(crate) writing: bool,
    /// All outbox entries up to this one are acknowledged to it, and those in `acknowledged_beyond`.
    pub(crate) acknowledged: EmitSeq,
    pub(crate) acknowledged_beyond: BTreeSet<EmitSeq>,
    /// Number of outbox entries left unacknowledged by earlier owners.
    pub(crate) inherited: u64,
    /// Whether a false mismatch was reported to it. A second one would stop it.
    pub(crate) false_mismatch_reported: bool,
    /// Whether it requested a tick that it has not received.
    pub(crate) tick_requested: bool,
    /// Whether its takeover reported a deadline.
    pub(crate) has_deadline: bool,
    /// Speed of its clock, in thousandths.
    pub(crate) clock_rate: i64,
    /// When it received records last, in true time.
    last_record_at: Millis,
    /// How far its clock has jumped since then.
    pub(crate) clock_jump: i64,
}

/// A response on its way to an owner.
pub(crate) struct InFlight {
    pub(crate) ready_at: u64,
    pub(crate) input: Input,
}

impl Owner {
    pub(crate) fn new(id: OwnerId, machine: Machine, clock_rate: i64, now: Millis) -> Self {
        Self {
            id,
            machine,
            cursor: None,
            paused: false,
            frozen_until: 0,
            in_flight: Vec::new(),
            handing_over: false,
            writing: false,
            acknowledged: EmitSeq(0),
            acknowledged_beyond: BTreeSet::new(),
            inherited: 0,
            false_mismatch_reported: false,
            tick_requested: false,
            has_deadline: false,
            clock_rate,
            last_record_at: now,
            clock_jump: 0,
        }
    }

    /// Tracks an input that is about to be applied.
    pub(crate) fn track(&mut self, input: &Input, now: Millis) {
        match input {
            Input::TakenOver(row) => {
                self.acknowledged = row.emitted_seq;
                self.has_deadline = row.next_deadline.is_some();
                self.inherited = (row.next_emit_seq.0 - 1 - row.emitted_seq.0).unsigned_abs();
            }
            Input::Written { .. } => self.writing = false,
            Input::Published(seq) => {
                if *seq > self.acknowledged {
                    self.acknowledged_beyond.insert(*seq);
                }
                while self.acknowledged_beyond.remove(&self.acknowledged.next()) {
                    self.acknowledged = self.acknowledged.next();
                }
            }
            Input::HandOver => self.handing_over = true,
            Input::Records(records) => {
                (self.last_record_at, self.clock_jump) = (now, 0);
                self.tick_requested &= !records.iter().any(|record| record.payload == Payload::Tick);
            }
            _ => {}
        }
    }

    /// The time since its last record, measured with its own clock.
    pub(crate) fn since_last_record(&self, now: Millis) -> Millis {
        Millis(((now.0 - self.last_record_at.0) * self.clock_rate / 1_000 + self.clock_jump).max(0))
    }
}
