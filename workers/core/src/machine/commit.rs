//! What becomes of a write: settled, sent again, read back, or undone.
//!
//! Undoing drops everything that was decided and not written, and all of memory with it: the records go back to
//! the front of the backlog and are decided again from what the ledger holds. It is rare, so it is simple.

use super::cache::Memory;
use super::{Effect, Head, Machine, Release};
use crate::domain::batch::Batch;
use crate::domain::ids::{Attempt, Offset, WriteNo};
use crate::domain::record::{Payload, Record};
use crate::interface::{PartitionRow, WriteResult};
use crate::planted::Bug;
use std::sync::Arc;

/// A batch that is decided, and what it takes to undo it.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) batch: Arc<Batch>,
    /// Its records, without the texts that moved into the decisions.
    pub(super) records: Vec<Record>,
    pub(super) after: Head,
}

/// The batch that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) unsettled: Unsettled,
    /// Calls that failed in a row.
    failures: u32,
    /// Whether a call of this attempt may have happened, or may still happen.
    uncertain: bool,
    reading_back: bool,
}

impl Machine {
    /// Writes the decided batch if nothing else is being written.
    pub(super) fn send_decided(&mut self, effects: &mut Vec<Effect>) {
        if self.writing.is_some() {
            return;
        }
        let Some(unsettled) = self.decided.take() else { return };
        effects.push(Effect::Write { batch: Arc::clone(&unsettled.batch), backoff: 0 });
        self.writing = Some(Writing { unsettled, failures: 0, uncertain: false, reading_back: false });
        self.decided = self.kept.take();
    }

    pub(super) fn written(
        &mut self,
        no: WriteNo,
        attempt: Attempt,
        result: WriteResult,
        effects: &mut Vec<Effect>,
    ) {
        let Some(writing) = self.writing.as_mut() else { return };
        let fence = writing.unsettled.batch.fence;
        if (fence.write_no, fence.attempt) != (no, attempt) || writing.reading_back {
            return;
        }
        match result {
            WriteResult::Written => self.settle(effects),
            WriteResult::Unknown | WriteResult::Fenced => {
                writing.uncertain |= result == WriteResult::Unknown;
                writing.reading_back = true;
                effects.push(Effect::ReadBack);
            }
            WriteResult::Retry => self.call_again(effects),
            WriteResult::DataRejected(what) => self.split(&what, effects),
            WriteResult::AlreadyDecided => {
                self.mismatch("an identity is decided already that no lookup showed", effects);
            }
            WriteResult::Mismatch(what) => self.mismatch(&what, effects),
        }
    }

    fn call_again(&mut self, effects: &mut Vec<Effect>) {
        if let Some(writing) = self.writing.as_mut() {
            writing.failures += 1;
            let batch = Arc::clone(&writing.unsettled.batch);
            effects.push(Effect::Write { batch, backoff: writing.failures });
        }
    }

    /// The row tells what became of a write whose answer was lost.
    pub(super) fn read_back(&mut self, row: &PartitionRow, effects: &mut Vec<Effect>) {
        if let Some(what) = self.doubt.take() {
            return self.resolve_doubt(what, row, effects);
        }
        let Some(writing) = self.writing.as_mut().filter(|writing| writing.reading_back) else { return };
        writing.reading_back = false;
        if (row.epoch, row.nonce) != (self.epoch, self.nonce) {
            return self.release(Release::Fenced, effects);
        }
        let fence = writing.unsettled.batch.fence;
        if row.write_no.next() == fence.write_no {
            return self.call_again(effects);
        }
        let adopted = self.uncertain_attempt(row);
        match adopted {
            _ if row.write_no != fence.write_no => self.stop(
                format!(
                    "its row is at write {}, its owner at {}; do not write to it by hand",
                    row.write_no, fence.write_no
                ),
                effects,
            ),
            _ if row.attempt == Some(fence.attempt) => self.settle(effects),
            Some(batch) => self.adopt(&batch, effects),
            None => self.stop("its row was written by an attempt that its owner never made".into(), effects),
        }
    }

    /// The batch under way is durable exactly as it was decided.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        if let Some(Writing { unsettled, .. }) = self.writing.take() {
            self.settle_as(&unsettled.batch, unsettled.after, effects);
        }
    }

    fn settle_as(&mut self, batch: &Arc<Batch>, after: Head, effects: &mut Vec<Effect>) {
        self.settled = after;
        self.uncertain.clear();
        self.undone = 0;
        self.limit = (self.limit * 2).min(self.config.batch_records.max(1));
        let next_offset = after.position.next_offset;
        self.refused = self.refused.split_off(&next_offset);
        if let Some(seq) = batch.emit_seq {
            self.outbox.written(seq, next_offset, after.write_no);
            effects.push(Effect::Publish(Arc::clone(batch)));
        } else if self.outbox.unacknowledged() == 0 {
            effects.push(Effect::CommitOffset { next_offset, write_no: after.write_no });
        }
    }

    /// An earlier attempt at this write happened after all: it counts, and what was decided in its place does not.
    fn adopt(&mut self, batch: &Arc<Batch>, effects: &mut Vec<Effect>) {
        self.undo();
        let after = Head {
            write_no: batch.fence.write_no,
            position: batch.position,
            next_emit_seq: batch.emit_seq.map_or(self.settled.next_emit_seq, |seq| seq.next()),
            watermark: batch.watermark,
            ordinal: self.settled.ordinal + 1,
        };
        self.settle_as(batch, after, effects);
        self.head = after;
        while let Some(done) = self.backlog.pop_front_if(|record| record.offset < after.position.next_offset)
        {
            self.backlog_bytes -= done.bytes;
        }
    }

    /// Postgres refuses something as data: smaller batches until the record stands alone.
    fn split(&mut self, what: &str, effects: &mut Vec<Effect>) {
        let Some(writing) = self.writing.as_ref() else { return };
        let offsets: Vec<Offset> = writing.unsettled.records.iter().map(|record| record.offset).collect();
        match offsets[..] {
            [] => return self.stop(format!("Postgres refuses a write without records: {what}"), effects),
            [only] if !self.refused.insert(only) => {
                return self
                    .stop(format!("Postgres refuses record {only} even as unprocessable: {what}"), effects);
            }
            _ => self.limit = (offsets.len() / 2).max(1),
        }
        self.undo();
    }

    /// Memory was wrong: decide again from what the ledger holds. Twice without a settled batch: stop, unless the
    /// row shows that another owner, or an attempt thought lost, has changed what does not fit.
    pub(super) fn mismatch(&mut self, what: &str, effects: &mut Vec<Effect>) {
        self.undone += 1;
        self.undo();
        if self.undone > 1 {
            self.doubt =
                Some(format!("what it decides does not fit the ledger, twice: {what}; run the verifier"));
            effects.push(Effect::ReadBack);
        }
    }

    /// The attempt of unknown fate that this row shows to have happened after all.
    fn uncertain_attempt(&self, row: &PartitionRow) -> Option<Arc<Batch>> {
        self.uncertain.iter().find(|batch| row.attempt == Some(batch.fence.attempt)).cloned()
    }

    fn resolve_doubt(&mut self, what: String, row: &PartitionRow, effects: &mut Vec<Effect>) {
        let adopted = self.uncertain_attempt(row);
        if (row.epoch, row.nonce) != (self.epoch, self.nonce) {
            self.release(Release::Fenced, effects);
        } else if let Some(batch) = adopted {
            self.adopt(&batch, effects);
        } else {
            self.stop(what, effects);
        }
    }

    /// Takes back everything that is not settled.
    fn undo(&mut self) {
        if let Some(gathering) = self.gathering.take() {
            self.return_to_backlog(gathering.records);
        }
        if self.config.planted.has(Bug::NextBatchNotUndone) {
            self.kept = self.decided.take();
        }
        if let Some(unsettled) = self.decided.take() {
            self.return_to_backlog(unsettled.records_again());
        }
        if let Some(writing) = self.writing.take() {
            if writing.uncertain {
                self.uncertain.push(Arc::clone(&writing.unsettled.batch));
            }
            self.return_to_backlog(writing.unsettled.records_again());
        }
        self.memory = Memory::new(self.seed, self.config.window);
        self.head = self.settled;
    }

    /// What comes back may be earlier than what memory of recent ids has moved on to: it is looked up.
    pub(super) fn return_to_backlog(&mut self, records: Vec<Record>) {
        if let Some(last) = records.last() {
            self.suspect_below = self.suspect_below.max(last.offset.next());
        }
        self.backlog_bytes += records.iter().map(|record| record.bytes).sum::<usize>();
        for record in records.into_iter().rev() {
            self.backlog.push_front(record);
        }
    }
}

impl Unsettled {
    /// The records as they were: the texts that moved into the decisions are copied back.
    fn records_again(mut self) -> Vec<Record> {
        let mut decisions = self.batch.decisions.iter().peekable();
        for record in &mut self.records {
            let Some(decision) = decisions.next_if(|decision| decision.offset == record.offset) else {
                continue;
            };
            if let Payload::Request(request) = &mut record.payload {
                request.coupon_id = decision.coupon_id.clone();
                request.user = decision.user.clone();
            }
        }
        self.records
    }
}
