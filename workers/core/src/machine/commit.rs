//! Commit of an executed batch: it is written, then settled, called again, read back, or undone.
//!
//! Undoing drops everything that is executed and not written, and the whole cache: the records return to the front of
//! the backlog and are executed again from the state of Postgres. This is rare, so it is simple.

use super::executed::Executed;
use super::pipeline::{Next, Write, WriteState};
use super::{Effect, Head, Owner, Release};
use crate::domain::batch::Batch;
use crate::domain::ids::{Attempt, Offset, WriteNo};
use crate::domain::record::Record;
use crate::interface::{PartitionRow, WriteResult};
use crate::planted::Bug;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Settled batches after which a batch may be larger than half of one that took too long.
const BATCHES_BEFORE_GROWTH: u32 = 32;

/// What failed writes left behind.
#[derive(Debug)]
pub(super) struct Recovery {
    /// Most records of the next batch, and most lapses: halved to isolate a record that Postgres rejects, or if a write
    /// takes too long; doubled with each settled batch.
    pub(super) max_records: usize,
    /// Settled batches until `max_records` grows again. Each attempt to write a batch that takes too long costs its whole
    /// time limit.
    growth_paused_for: u32,
    /// Records that Postgres rejects as data: they become `unprocessable`.
    pub(super) rejected_by_postgres: BTreeSet<Offset>,
    /// Every request below this offset is looked up: it was prefetched before.
    pub(super) look_up_below: Offset,
    /// Undone batches since the last settled one.
    undone: u32,
    /// Undone attempts at the current write that may have happened.
    uncertain: Vec<Arc<Batch>>,
    /// The next batch, which a planted mistake keeps when its predecessor is undone.
    kept: Option<Box<Executed>>,
}

impl Recovery {
    pub(super) const fn new(max_records: usize) -> Self {
        Self {
            max_records,
            growth_paused_for: 0,
            rejected_by_postgres: BTreeSet::new(),
            look_up_below: Offset(i64::MIN),
            undone: 0,
            uncertain: Vec::new(),
            kept: None,
        }
    }

    /// The undone attempt that this row shows to have happened.
    fn uncertain_attempt(&self, row: &PartitionRow) -> Option<Arc<Batch>> {
        self.uncertain.iter().find(|batch| row.attempt == Some(batch.fence.attempt)).cloned()
    }

    /// A batch is settled.
    fn grow(&mut self, batch_records: usize) {
        if self.growth_paused_for > 0 {
            self.growth_paused_for -= 1;
        } else {
            self.max_records = (self.max_records * 2).min(batch_records.max(1));
        }
    }

    pub(super) fn drop_kept(&mut self) {
        self.kept = None;
    }
}

impl Owner {
    /// Starts the write of an executed batch. Nothing else is written.
    pub(super) fn start_write(&mut self, executed: Executed, effects: &mut Vec<Effect>) {
        effects.push(Effect::Write { batch: Arc::clone(&executed.batch), backoff: 0 });
        let next = self.recovery.kept.take().map_or(Next::None, Next::Executed);
        self.pipeline.start(executed, next);
    }

    pub(super) fn written(
        &mut self,
        no: WriteNo,
        attempt: Attempt,
        result: WriteResult,
        effects: &mut Vec<Effect>,
    ) -> ControlFlow<Release> {
        let Some(write) = self.pipeline.write_mut() else { return ControlFlow::Continue(()) };
        let fence = write.executed.batch.fence;
        if (fence.write_no, fence.attempt) != (no, attempt) || write.state == WriteState::ReadingBack {
            return ControlFlow::Continue(());
        }
        match result {
            WriteResult::Written => self.settle(effects),
            WriteResult::Unknown | WriteResult::Fenced => {
                write.uncertain |= result == WriteResult::Unknown;
                write.state = WriteState::ReadingBack;
                effects.push(Effect::ReadBack);
            }
            WriteResult::Retry => self.call_again(effects),
            WriteResult::StatementTimedOut => self.write_less(effects),
            WriteResult::DataRejected(fault) => return self.split(&fault),
            WriteResult::AlreadyDecided => {
                self.mismatch("an identity was decided before, and no lookup returned it", effects);
            }
            WriteResult::Mismatch(fault) => self.mismatch(&fault, effects),
        }
        ControlFlow::Continue(())
    }

    fn call_again(&mut self, effects: &mut Vec<Effect>) {
        if let Some(write) = self.pipeline.write_mut() {
            write.failures += 1;
            let batch = Arc::clone(&write.executed.batch);
            effects.push(Effect::Write { batch, backoff: write.failures });
        }
    }

    /// Resolves a write whose result was lost, or a revalidation, by the partition's row.
    pub(super) fn read_back(
        &mut self,
        row: &PartitionRow,
        effects: &mut Vec<Effect>,
    ) -> ControlFlow<Release> {
        if let Some(reason) = self.pipeline.take_revalidation() {
            return self.resolve_revalidation(reason, row, effects);
        }
        let write = self.pipeline.write_mut().filter(|write| write.state == WriteState::ReadingBack);
        let Some(write) = write else { return ControlFlow::Continue(()) };
        write.state = WriteState::Called;
        let fence = write.executed.batch.fence;
        if (row.epoch, row.nonce) != (self.epoch, self.nonce) {
            return ControlFlow::Break(Release::Fenced);
        }
        if row.write_no.next() == fence.write_no {
            self.call_again(effects);
        } else if row.write_no != fence.write_no {
            return self.stop(&format!(
                "its row is at write {}, its owner at {}; do not write to it by hand",
                row.write_no, fence.write_no
            ));
        } else if row.attempt == Some(fence.attempt) {
            self.settle(effects);
        } else if let Some(batch) = self.recovery.uncertain_attempt(row) {
            self.adopt(&batch, effects);
        } else {
            return self.stop("its row was written by an attempt that its owner did not make");
        }
        ControlFlow::Continue(())
    }

    /// The current write is durable exactly as executed. The next batch, if it is executed, is written.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let Some((write, next)) = self.pipeline.finish_write() else { return };
        let Write { executed, .. } = *write;
        self.settle_as(&executed.batch, executed.after, effects);
        if let Some(next) = next {
            self.start_write(next, effects);
        }
    }

    fn settle_as(&mut self, batch: &Arc<Batch>, after: Head, effects: &mut Vec<Effect>) {
        self.settled = after;
        let next_offset = after.position.next_offset;
        self.clock.settled(next_offset);
        let recovery = &mut self.recovery;
        recovery.uncertain.clear();
        recovery.undone = 0;
        recovery.grow(self.config.batch_records);
        recovery.rejected_by_postgres = recovery.rejected_by_postgres.split_off(&next_offset);
        if let Some(seq) = batch.emit_seq {
            self.outbox.written(seq, next_offset, after.write_no);
            effects.push(Effect::Publish(Arc::clone(batch)));
        } else if self.outbox.unacknowledged() == 0 {
            effects.push(Effect::CommitOffset { next_offset, write_no: after.write_no });
        }
    }

    /// An undone attempt at this write was committed: it is settled, and what was executed in its place is undone.
    fn adopt(&mut self, batch: &Arc<Batch>, effects: &mut Vec<Effect>) {
        self.undo();
        let after = Head::after(batch, self.settled.next_emit_seq, self.settled.ordinal + 1);
        self.settle_as(batch, after, effects);
        self.head = after;
        self.backlog.skip_below(after.position.next_offset);
    }

    /// A write took too long: the next one has at most half as many records, and half as many lapses. What cannot be
    /// split is written again.
    fn write_less(&mut self, effects: &mut Vec<Effect>) {
        let Some(write) = self.pipeline.write() else { return };
        let size = write.executed.records.len().max(write.executed.batch.claims.len());
        if size <= 1 || self.recovery.max_records <= 1 || self.config.planted.has(Bug::SlowBatchRepeated) {
            return self.call_again(effects);
        }
        self.recovery.max_records = (self.recovery.max_records.min(size) / 2).max(1);
        self.recovery.growth_paused_for = BATCHES_BEFORE_GROWTH;
        self.undo();
    }

    /// Postgres rejects a value as data: the batch is split until the record stands alone. Then it is decided again as
    /// `unprocessable`.
    fn split(&mut self, fault: &str) -> ControlFlow<Release> {
        let Some(write) = self.pipeline.write() else { return ControlFlow::Continue(()) };
        let records = write.executed.records.len();
        let Some(first) = write.executed.records.first() else {
            return self.stop(&format!("Postgres rejects a write without records: {fault}"));
        };
        if records == 1 && !self.recovery.rejected_by_postgres.insert(first) {
            let text = format!("Postgres rejects record {first} even as unprocessable: {fault}");
            return self.stop(&text);
        }
        self.recovery.max_records = (records / 2).max(1);
        self.undo();
        ControlFlow::Continue(())
    }

    /// The cache does not match Postgres: execute again from the state of Postgres. The second time without a settled
    /// batch the partition stops, unless its row shows that another owner, or an attempt considered lost, has changed
    /// what does not match.
    pub(super) fn mismatch(&mut self, fault: &str, effects: &mut Vec<Effect>) {
        self.recovery.undone += 1;
        self.undo();
        if self.recovery.undone > 1 {
            let reason = format!("its decisions do not match Postgres, twice: {fault}; run the verifier");
            self.pipeline.revalidate(reason);
            effects.push(Effect::ReadBack);
        }
    }

    fn resolve_revalidation(
        &mut self,
        reason: String,
        row: &PartitionRow,
        effects: &mut Vec<Effect>,
    ) -> ControlFlow<Release> {
        if (row.epoch, row.nonce) != (self.epoch, self.nonce) {
            return ControlFlow::Break(Release::Fenced);
        }
        let Some(batch) = self.recovery.uncertain_attempt(row) else { return self.stop(&reason) };
        self.adopt(&batch, effects);
        ControlFlow::Continue(())
    }

    /// Undoes everything that is not settled.
    fn undo(&mut self) {
        let (write, next) = self.pipeline.undo();
        self.recovery.kept = None;
        match next {
            Next::Prefetching(prefetch) => self.put_back(prefetch.records.into_iter()),
            Next::Executed(executed) if self.config.planted.has(Bug::NextBatchNotUndone) => {
                self.recovery.kept = Some(executed);
            }
            Next::Executed(executed) => self.put_back(executed.into_records().into_iter()),
            Next::None | Next::Blocked => {}
        }
        if let Some(write) = write {
            if write.uncertain {
                self.recovery.uncertain.push(Arc::clone(&write.executed.batch));
            }
            self.put_back(write.executed.into_records().into_iter());
        }
        self.cache.clear();
        self.deadlines.reset();
        self.head = self.settled;
    }

    /// Returns records to the backlog. They may be earlier than the span of the recent ids: they are looked up.
    pub(super) fn put_back(&mut self, records: std::vec::IntoIter<Record>) {
        if let Some(last) = records.as_slice().last() {
            self.recovery.look_up_below = self.recovery.look_up_below.max(last.offset.next());
        }
        self.backlog.put_back(records);
    }

    fn stop(&self, text: &str) -> ControlFlow<Release> {
        ControlFlow::Break(Release::Stopped(format!("partition {} stopped: {text}", self.partition)))
    }
}
