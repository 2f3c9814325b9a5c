//! The log of one partition: append-only, with the clock of each leader, and with gaps as compaction leaves them.

use crate::plan::Plan;
use crate::rng::Rng;
use coupon_core::batch::Position;
use coupon_core::ids::{DAY_MS, Millis, Offset};
use coupon_core::record::{Payload, Record};

/// How far a broker's clock jumps ahead: from less than the bound to a day.
const FAR_AHEAD_MS: [i64; 4] = [20_000, 40_000, 120_000, 86_400_000];

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    /// The step at which each record was appended.
    pub(crate) appended_at: Vec<u64>,
    base: Offset,
    /// The true time.
    now: Millis,
    /// How many milliseconds the clock of the present leader is behind.
    behind: i64,
    /// Pauses of most of a day, so far.
    long_pauses: usize,
}

/// The deduplication window contains a run with this many of them, and its history.
const MOST_LONG_PAUSES: usize = 2;

impl Log {
    pub(crate) const fn new(base: Offset, now: Millis) -> Self {
        Self { records: Vec::new(), appended_at: Vec::new(), base, now, behind: 0, long_pauses: 0 }
    }

    pub(crate) const fn now(&self) -> Millis {
        self.now
    }

    /// The offset of the next record, unless a gap precedes it.
    pub(crate) fn end(&self) -> Offset {
        self.records.last().map_or(self.base, |last| last.offset.next())
    }

    /// The index of the first record at or beyond an offset.
    pub(crate) fn index_of(&self, offset: Offset) -> usize {
        self.records.partition_point(|record| record.offset < offset)
    }

    pub(crate) fn append(&mut self, payload: Payload, step: u64, rng: &mut Rng, plan: &Plan) -> &Record {
        let gap = if rng.chance(plan.offset_gaps) { rng.between(1, 5) } else { 0 };
        let offset = Offset(self.end().0 + gap);
        // The clock of a new leader may be behind: append times jump back by up to an hour.
        if rng.chance(plan.leader_changes) {
            self.behind = match rng.below(4) {
                0..2 => 0,
                2 => rng.between(0, 3_000),
                _ => rng.between(0, 3_600_000),
            };
        }
        let jitter = if rng.chance(20) { rng.between(0, 3_000) } else { 0 };
        // One record from a broker whose clock jumps ahead.
        let ahead = if rng.chance(plan.far_ahead) { *rng.pick(&FAR_AHEAD_MS) } else { 0 };
        let appended = Millis(plan.round_to_clock_tick(self.now.0 - self.behind - jitter + ahead));
        let digest = rng.next().cast_signed();
        let bytes = 60 + rng.below(120);
        self.appended_at.push(step);
        self.records.push(Record { offset, appended, digest, bytes, payload });
        self.records.last().expect("a record was just pushed")
    }

    /// Advances the time between two records.
    pub(crate) fn pass_time(&mut self, rng: &mut Rng, plan: &Plan) {
        if self.long_pauses < MOST_LONG_PAUSES && rng.chance(plan.long_pauses) {
            self.long_pauses += 1;
            return self.pass(rng.between(DAY_MS / 2, DAY_MS * 7 / 8));
        }
        let by = if rng.chance(plan.pauses) { rng.between(5_000, 60_000) } else { rng.between(0, 400) };
        self.pass(by);
    }

    /// Advances the time by so many milliseconds.
    pub(crate) const fn pass(&mut self, by: i64) {
        self.now = Millis(self.now.0 + by);
    }

    /// The append time of the next record, without its jitter.
    pub(crate) const fn broker_time(&self) -> Millis {
        Millis(self.now.0 - self.behind)
    }

    /// Sets the leader's clock to the true time.
    pub(crate) const fn correct_leader_clock(&mut self) {
        self.behind = 0;
    }

    /// Whether the ledger's position is one of this log.
    pub(crate) fn contains_position(&self, position: &Position) -> bool {
        let found = self.records.binary_search_by_key(&position.last_offset, |record| record.offset);
        match found {
            Ok(index) => self.records[index].digest == position.last_digest,
            Err(_) => position.last_offset < self.base && position.next_offset <= self.end(),
        }
    }
}
