//! Records that are received and not yet prefetched, in the order of the log, and the flow control of their delivery.

use super::config::Config;
use crate::domain::ids::{Millis, Offset};
use crate::domain::record::{Payload, Record};
use crate::interface::Effect;
use std::collections::VecDeque;

/// Received records, in the order of the log.
#[derive(Debug)]
pub(super) struct Backlog {
    records: VecDeque<Record>,
    bytes: usize,
    /// Records below this offset were received before.
    next_offset: Offset,
    delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Running,
    Paused,
}

impl Backlog {
    /// An empty backlog; the first record has this offset or a higher one.
    pub(super) const fn new(next_offset: Offset) -> Self {
        Self { records: VecDeque::new(), bytes: 0, next_offset, delivery: Delivery::Running }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn last_offset(&self) -> Option<Offset> {
        self.records.back().map(|record| record.offset)
    }

    pub(super) fn first(&self) -> Option<&Record> {
        self.records.front()
    }

    /// The first records, at most so many.
    pub(super) fn front_mut(&mut self, max_records: usize) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut().take(max_records)
    }

    /// Appends new records; returns whether a tick is among them.
    pub(super) fn receive(&mut self, mut records: Vec<Record>) -> bool {
        let mut has_tick = false;
        records.retain(|record| {
            let is_new = record.offset >= self.next_offset;
            if is_new {
                self.next_offset = record.offset.next();
                self.bytes += record.bytes;
                has_tick |= matches!(record.payload, Payload::Tick);
            }
            is_new
        });
        self.records.extend(records);
        has_tick
    }

    /// Removes the records of the next batch: at least one, if there is one, and none that ends the day. So the outcomes
    /// of a batch are stored on the day on which they were decided. `time` is the partition's.
    pub(super) fn take(&mut self, max_records: usize, max_bytes: usize, time: Millis) -> Vec<Record> {
        let mut bytes = 0;
        let mut count = 0;
        let mut end_of_day = None;
        for record in self.records.iter().take(max_records) {
            let end = *end_of_day.get_or_insert_with(|| time.max(record.appended).end_of_day());
            if count > 0 && (bytes + record.bytes > max_bytes || record.appended > end) {
                break;
            }
            bytes += record.bytes;
            count += 1;
        }
        self.bytes -= bytes;
        if count == self.records.len() {
            return std::mem::take(&mut self.records).into();
        }
        self.records.drain(..count).collect()
    }

    /// Returns records to the front.
    pub(super) fn put_back(&mut self, records: impl DoubleEndedIterator<Item = Record>) {
        for record in records.rev() {
            self.bytes += record.bytes;
            self.records.push_front(record);
        }
    }

    /// Drops the records below an offset.
    pub(super) fn skip_below(&mut self, offset: Offset) {
        while let Some(skipped) = self.records.pop_front_if(|record| record.offset < offset) {
            self.bytes -= skipped.bytes;
        }
    }

    pub(super) fn clear(&mut self) {
        self.records = VecDeque::new();
        self.bytes = 0;
    }

    /// Pauses delivery at the high bounds, resumes it at the low ones.
    pub(super) fn control_flow(&mut self, config: &Config) -> Option<Effect> {
        let (records, bytes) = (self.records.len(), self.bytes);
        let (delivery, effect) = match self.delivery {
            Delivery::Running if records >= config.backlog_high || bytes >= config.backlog_bytes => {
                (Delivery::Paused, Effect::Pause)
            }
            Delivery::Paused if records <= config.backlog_low && bytes <= config.backlog_bytes / 2 => {
                (Delivery::Running, Effect::Resume)
            }
            _ => return None,
        };
        self.delivery = delivery;
        Some(effect)
    }
}
