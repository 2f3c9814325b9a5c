//! What has been told: responses, dead letters and events, and which outbox entries are told completely.

use crate::ledger::{Ledger, Map};
use crate::owner::Message;
use coupon_core::ids::{EmitSeq, Offset, RequestId};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Broker {
    /// When each request's outcome was told last.
    pub(crate) responses: Map<RequestId, u64>,
    pub(crate) dead_letters: Map<Offset, u32>,
    /// Outbox entries not told completely, and the first offset that each is about.
    pub(crate) untold: BTreeMap<EmitSeq, Offset>,
}

impl Broker {
    /// A message is appended. A response must be what the ledger holds, and the only one that it holds (I4, I5).
    pub(crate) fn append(&mut self, message: &Message, now: u64, ledger: &Ledger) -> Result<(), String> {
        match message {
            Message::Response(decision) => {
                let (stored, count) = ledger.outcome(decision.id);
                if stored != Some(decision) || count != 1 {
                    return Err(format!("I4/I5: told {decision:?}, stored {count} times, first {stored:?}"));
                }
                self.responses.insert(decision.id, now);
            }
            Message::DeadLetter(offset) => *self.dead_letters.entry(*offset).or_default() += 1,
            Message::Event(_) => {}
        }
        Ok(())
    }

    /// The group's offset (I10): not ahead of what is written, nor of what is told.
    pub(crate) fn commit_offset(&self, next: Offset, ledger: &Ledger) -> Result<(), String> {
        let written = ledger.row.position.next_offset;
        if next > written {
            return Err(format!("I10: group offset {next} is ahead of the ledger's {written}"));
        }
        match self.untold.iter().find(|(_, from)| **from < next) {
            Some((seq, from)) => {
                Err(format!("I10: group offset {next}, but entry {seq} from {from} is not told"))
            }
            None => Ok(()),
        }
    }
}
