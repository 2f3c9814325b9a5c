//! Append times far ahead of Postgres' clock. One of them would end every hold of the partition for good, since its time
//! never goes back.
//!
//! A record whose append time would move the partition's time further than the last reading of Postgres' clock plus a
//! bound waits for a new reading. If it is still too far ahead, the partition waits until the clock catches up, or until
//! an operator has the record rejected: it then becomes `unprocessable` and does not move the time.

use super::{Effect, Owner};
use crate::domain::ids::{Millis, Offset};
use crate::domain::record::{DeadLetter, Payload, Record};
use crate::planted::Bug;
use std::collections::BTreeSet;

/// The beginning of the dead letter's error. It distinguishes a rejected record from one with another fault.
pub const TOO_FAR_AHEAD: &str = "its append time is too far ahead";

/// What is known about Postgres' clock, and the records that wait for it.
#[derive(Debug)]
pub(super) struct Clock {
    /// The latest reading.
    read: Millis,
    is_read: bool,
    waiting: Option<Ahead>,
    /// Records up to here are rejected by an operator if they are too far ahead.
    rejected_through: Offset,
    /// Such records that are received and not settled.
    rejected: BTreeSet<Offset>,
}

/// A record that waits for Postgres' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The record.
    pub offset: Offset,
    /// How many milliseconds its append time was ahead of the clock when it was first compared.
    pub by: i64,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self {
            read: Millis(i64::MIN),
            is_read: false,
            waiting: None,
            rejected_through: Offset(i64::MIN),
            rejected: BTreeSet::new(),
        }
    }

    pub(super) const fn waiting(&self) -> Option<Ahead> {
        self.waiting
    }

    pub(super) fn is_rejected(&self, offset: Offset) -> bool {
        self.rejected.contains(&offset)
    }

    pub(super) fn settled(&mut self, next_offset: Offset) {
        if !self.rejected.is_empty() {
            self.rejected = self.rejected.split_off(&next_offset);
        }
    }

    /// Number of records at the front that may be decided. One that is rejected loses its append time.
    fn admit<'a>(&mut self, records: impl Iterator<Item = &'a mut Record>, latest: Millis) -> usize {
        let mut count = 0;
        for record in records {
            if record.appended > latest {
                if record.offset > self.rejected_through {
                    break;
                }
                record.appended = Millis(i64::MIN);
                self.rejected.insert(record.offset);
            }
            count += 1;
        }
        count
    }
}

impl Owner {
    /// The latest append time that may be decided now.
    fn latest_append_time(&self) -> Millis {
        let bound = self.config.max_time_ahead;
        self.head.position.time.max(Millis(self.clock.read.0.saturating_add(bound)))
    }

    /// Number of records at the front of the backlog, at most `max_records`, that may be decided. If there is none,
    /// Postgres' clock is read.
    pub(super) fn admit(&mut self, max_records: usize, effects: &mut Vec<Effect>) -> usize {
        if self.config.planted.has(Bug::AppendTimeTrusted) {
            return max_records;
        }
        let latest = self.latest_append_time();
        let count = self.clock.admit(self.backlog.front_mut(max_records), latest);
        match self.backlog.first() {
            Some(first) if count == 0 => {
                if !std::mem::replace(&mut self.clock.is_read, true) {
                    let again = self.clock.waiting.is_some_and(|ahead| ahead.offset == first.offset);
                    effects.push(Effect::ReadClock { offset: first.offset, again });
                }
            }
            _ => self.clock.waiting = None,
        }
        count
    }

    /// A new reading of Postgres' clock.
    pub(super) fn clock_read(&mut self, now: Millis, rejected_through: Option<Offset>) {
        let clock = &mut self.clock;
        clock.is_read = false;
        clock.read = clock.read.max(now);
        clock.rejected_through = clock.rejected_through.max(rejected_through.unwrap_or(Offset(i64::MIN)));
        let rejected_through = clock.rejected_through;
        let latest = self.latest_append_time();
        let ahead =
            self.backlog.first().filter(|first| first.appended > latest && first.offset > rejected_through);
        let ahead = ahead.map(|first| Ahead { offset: first.offset, by: first.appended.0 - now.0 });
        let same = |ahead: &Ahead| self.clock.waiting.is_some_and(|waiting| waiting.offset == ahead.offset);
        if !ahead.as_ref().is_some_and(same) {
            self.clock.waiting = ahead;
        }
    }
}

/// The dead letter of a record that an operator had rejected. An unreadable record keeps what was received.
pub(super) fn rejected_as_too_far_ahead(record: &Record) -> DeadLetter {
    let error = format!("{TOO_FAR_AHEAD} of Postgres' clock: rejected by an operator").into();
    match &record.payload {
        Payload::Unreadable { dead_letter, .. } => DeadLetter { error, ..dead_letter.clone() },
        Payload::Request(request) => {
            let key = Some(request.coupon_id.as_bytes().into());
            DeadLetter { reason: "append_time_ahead", error, key, value: None }
        }
        Payload::StockAdded { coupon_id, .. } => {
            let key = Some(coupon_id.as_bytes().into());
            DeadLetter { reason: "append_time_ahead", error, key, value: None }
        }
        Payload::Tick => DeadLetter { reason: "append_time_ahead", error, key: None, value: None },
    }
}
