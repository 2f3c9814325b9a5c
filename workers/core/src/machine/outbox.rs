//! What has been handed to the broker, and up to where all of it is acknowledged.

use super::{Effect, EmitSeq, Head, Machine, Offset, Phase, WriteNo};
use std::collections::VecDeque;

/// The entries above the watermark. Acknowledgements come in any order; the watermark moves without gaps.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Everything up to here is acknowledged.
    acknowledged: EmitSeq,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: EmitSeq,
    acknowledged: bool,
    /// What the group's offset becomes once this is told; unknown for what an earlier owner wrote.
    commit: Option<(Offset, WriteNo)>,
}

impl Outbox {
    /// What earlier owners wrote and may not have told.
    pub(super) fn after_takeover(row: &Head) -> Self {
        let untold = row.watermark.0 + 1..row.next_emit_seq.0;
        let entry = |seq| Entry { seq: EmitSeq(seq), acknowledged: false, commit: None };
        let mut entries: VecDeque<_> = untold.map(entry).collect();
        if let Some(last) = entries.back_mut() {
            last.commit = Some((row.position.next_offset, row.write_no));
        }
        Self { acknowledged: row.watermark, entries }
    }

    pub(super) fn to_reemit(&self) -> Option<(EmitSeq, EmitSeq)> {
        Some((self.entries.front()?.seq, self.entries.back()?.seq))
    }

    pub(super) fn written(&mut self, seq: EmitSeq, next_offset: Offset, write_no: WriteNo) {
        self.entries.push_back(Entry { seq, acknowledged: false, commit: Some((next_offset, write_no)) });
    }

    pub(super) fn unacknowledged(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The highest entry handed to the broker: where a planted mistake puts the watermark.
    pub(super) fn sent(&self) -> EmitSeq {
        self.entries.back().map_or(self.acknowledged, |entry| entry.seq)
    }

    pub(super) const fn watermark(&self) -> EmitSeq {
        self.acknowledged
    }

    /// One entry is acknowledged; answers what the group's offset becomes, if it moves.
    fn acknowledge(&mut self, seq: EmitSeq) -> Option<(Offset, WriteNo)> {
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.entries.get_mut(index)?.acknowledged = true;
        let mut commit = None;
        while let Some(told) = self.entries.pop_front_if(|entry| entry.acknowledged) {
            self.acknowledged = told.seq;
            commit = told.commit.or(commit);
        }
        commit
    }
}

impl Machine {
    pub(super) fn emitted(&mut self, seq: EmitSeq, effects: &mut Vec<Effect>) {
        if let Some((next_offset, write_no)) = self.outbox.acknowledge(seq) {
            effects.push(Effect::CommitOffset { next_offset, write_no });
        }
    }

    /// Writes the watermark by itself when no batch is there to carry it.
    pub(super) fn record_watermark(&mut self) {
        let under_way = self.gathering.is_some() || self.decided.is_some() || self.writing.is_some();
        // In doubt the row is being read back, and may show a write that nobody here has in hand.
        let busy = under_way || self.doubt.is_some();
        if self.phase == Phase::Running && !busy && self.outbox.watermark() > self.settled.watermark {
            self.decided = Some(self.batch_of_nothing());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_waits_for_the_lowest_entry() {
        let mut outbox = Outbox::default();
        for seq in 1..=3 {
            outbox.written(EmitSeq(seq), Offset(10 * seq), WriteNo(seq));
        }
        assert_eq!(outbox.acknowledge(EmitSeq(2)), None);
        assert_eq!(outbox.watermark(), EmitSeq(0));
        assert_eq!(outbox.acknowledge(EmitSeq(1)), Some((Offset(20), WriteNo(2))));
        assert_eq!(outbox.watermark(), EmitSeq(2));
        assert_eq!(
            outbox.acknowledge(EmitSeq(2)),
            None,
            "an acknowledgement that comes twice changes nothing"
        );
        assert_eq!(outbox.unacknowledged(), 1);
    }
}
