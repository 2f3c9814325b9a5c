//! The outbox entries that are handed to the broker, and the watermark up to which all of them are acknowledged.

use super::{Effect, EmitSeq, Head, Offset, Owner, WriteNo};
use std::collections::VecDeque;

/// The entries above the watermark. Acknowledgements arrive in any order; the watermark moves without gaps.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The watermark: everything up to here is acknowledged.
    acknowledged: EmitSeq,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: EmitSeq,
    acknowledged: bool,
    /// The group's offset after this entry; `None` for an entry of an earlier owner, except its last.
    commit: Option<(Offset, WriteNo)>,
}

impl Outbox {
    /// The entries of earlier owners that may be unpublished.
    pub(super) fn after_takeover(row: &Head) -> Self {
        let unpublished = row.watermark.0 + 1..row.next_emit_seq.0;
        let entry = |seq| Entry { seq: EmitSeq(seq), acknowledged: false, commit: None };
        let mut entries: VecDeque<_> = unpublished.map(entry).collect();
        if let Some(last) = entries.back_mut() {
            last.commit = Some((row.position.next_offset, row.write_no));
        }
        Self { acknowledged: row.watermark, entries }
    }

    /// The first and the last entry above the watermark.
    pub(super) fn unpublished(&self) -> Option<(EmitSeq, EmitSeq)> {
        Some((self.entries.front()?.seq, self.entries.back()?.seq))
    }

    pub(super) fn written(&mut self, seq: EmitSeq, next_offset: Offset, write_no: WriteNo) {
        self.entries.push_back(Entry { seq, acknowledged: false, commit: Some((next_offset, write_no)) });
    }

    pub(super) fn unacknowledged(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The last entry handed to the broker: a planted mistake writes it as the watermark.
    pub(super) fn sent(&self) -> EmitSeq {
        self.entries.back().map_or(self.acknowledged, |entry| entry.seq)
    }

    pub(super) const fn watermark(&self) -> EmitSeq {
        self.acknowledged
    }

    /// Acknowledges an entry; returns the group's new offset, if it moves.
    fn acknowledge(&mut self, seq: EmitSeq) -> Option<(Offset, WriteNo)> {
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.entries.get_mut(index)?.acknowledged = true;
        let mut commit = None;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.acknowledged) {
            self.acknowledged = entry.seq;
            commit = entry.commit.or(commit);
        }
        commit
    }
}

impl Owner {
    pub(super) fn published(&mut self, seq: EmitSeq, effects: &mut Vec<Effect>) {
        if let Some((next_offset, write_no)) = self.outbox.acknowledge(seq) {
            effects.push(Effect::CommitOffset { next_offset, write_no });
        }
    }

    /// Writes the watermark with an empty batch, unless another batch in flight carries it. Not during a revalidation:
    /// the row may show a write that this owner considers lost.
    pub(super) fn write_watermark(&mut self, effects: &mut Vec<Effect>) {
        if self.pipeline.is_free() && self.outbox.watermark() > self.settled.watermark {
            let batch = self.empty_batch();
            self.start_write(batch, effects);
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
        assert_eq!(outbox.acknowledge(EmitSeq(2)), None, "a repeated acknowledgement changes nothing");
        assert_eq!(outbox.unacknowledged(), 1);
    }
}
