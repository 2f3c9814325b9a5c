//! The log of one partition: append-only, with the clocks of its leaders, and with gaps as compaction leaves them.

use crate::plan::Plan;
use crate::rng::Rng;
use coupon_core::batch::Position;
use coupon_core::ids::{Millis, Offset};
use coupon_core::record::{Payload, Record};

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    base: Offset,
    /// The time.
    now: Millis,
    /// How far the present leader's clock is behind it.
    behind: i64,
}

impl Log {
    pub(crate) const fn new(base: Offset, now: Millis) -> Self {
        Self { records: Vec::new(), base, now, behind: 0 }
    }

    pub(crate) const fn now(&self) -> Millis {
        self.now
    }

    /// Where the next record will stand, if there is no gap before it.
    pub(crate) fn end(&self) -> Offset {
        self.records.last().map_or(self.base, |last| last.offset.next())
    }

    /// The index of the first record at or beyond an offset.
    pub(crate) fn index_of(&self, offset: Offset) -> usize {
        self.records.partition_point(|record| record.offset < offset)
    }

    pub(crate) fn append(&mut self, payload: Payload, rng: &mut Rng, plan: &Plan) -> &Record {
        let gap = if rng.chance(plan.gaps) { rng.between(1, 5) } else { 0 };
        let offset = Offset(self.end().0 + gap);
        // A new leader's clock may be behind: append times jump back, by up to an hour.
        if rng.chance(plan.leaders) {
            self.behind = match rng.below(4) {
                0..2 => 0,
                2 => rng.between(0, 3_000),
                _ => rng.between(0, 3_600_000),
            };
        }
        let jitter = if rng.chance(20) { rng.between(0, 3_000) } else { 0 };
        let appended = Millis(plan.tick_of_clocks(self.now.0 - self.behind - jitter));
        let digest = rng.next().cast_signed();
        let bytes = 60 + rng.below(120);
        self.records.push(Record { offset, appended, digest, bytes, payload });
        self.records.last().expect("a record was just pushed")
    }

    /// Time goes by between two records.
    pub(crate) fn pass_time(&mut self, rng: &mut Rng, plan: &Plan) {
        let by = if rng.chance(plan.pauses) { rng.between(5_000, 60_000) } else { rng.between(0, 400) };
        self.pass(by);
    }

    /// So many milliseconds go by.
    pub(crate) const fn pass(&mut self, by: i64) {
        self.now = Millis(self.now.0 + by);
    }

    /// The append time that the next record gets, more or less.
    pub(crate) const fn broker_time(&self) -> Millis {
        Millis(self.now.0 - self.behind)
    }

    /// A leader with a clock that is right.
    pub(crate) const fn mend_leader(&mut self) {
        self.behind = 0;
    }

    /// Whether this log is the one that the ledger knows.
    pub(crate) fn is_known_by(&self, position: &Position) -> bool {
        let found = self.records.binary_search_by_key(&position.last_offset, |record| record.offset);
        match found {
            Ok(index) => self.records[index].digest == position.last_digest,
            Err(_) => position.last_offset < self.base && position.next_offset <= self.end(),
        }
    }
}
