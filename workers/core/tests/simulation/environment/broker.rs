//! What is published: responses, dead letters and events, and the outbox entries that are not published completely.
//!
//! A response is accepted only if it equals the one outcome that the ledger holds (I4, I5). The group's offset is
//! accepted only up to what is written and published (I10).

use super::ledger::{Ledger, Map};
use coupon_core::batch::{Batch, Decision, Event};
use coupon_core::ids::{EmitSeq, Offset, RequestId};
use std::collections::BTreeMap;

/// A message of an outbox entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Response(Decision),
    DeadLetter(Offset),
    Event(Event),
}

/// All messages of a batch, in the order in which they are produced.
pub(crate) fn messages_of(batch: &Batch) -> Vec<Message> {
    let responses = batch.decisions.iter().chain(&batch.duplicates).cloned().map(Message::Response);
    let letters = batch.dead_letters.iter().map(|(offset, _)| Message::DeadLetter(*offset));
    let events = batch.events.iter().cloned().map(Message::Event);
    responses.chain(letters).chain(events).collect()
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Broker {
    /// The step at which the outcome of each request was last published.
    pub(crate) responses: Map<RequestId, u64>,
    pub(crate) dead_letters: Map<Offset, u32>,
    /// Outbox entries not published completely, each with the first offset that it covers.
    pub(crate) unpublished: BTreeMap<EmitSeq, Offset>,
}

impl Broker {
    pub(crate) fn append(&mut self, message: &Message, now: u64, ledger: &Ledger) -> Result<(), String> {
        match message {
            Message::Response(decision) => {
                let (stored, count) = ledger.outcome(decision.request.id);
                if stored != Some(decision) || count != 1 {
                    return Err(format!(
                        "I4/I5: published {decision:?}, stored {count} times, first {stored:?}"
                    ));
                }
                self.responses.insert(decision.request.id, now);
            }
            Message::DeadLetter(offset) => *self.dead_letters.entry(*offset).or_default() += 1,
            Message::Event(_) => {}
        }
        Ok(())
    }

    pub(crate) fn commit_offset(&self, next: Offset, ledger: &Ledger) -> Result<(), String> {
        let written = ledger.row.position.next_offset;
        if next > written {
            return Err(format!("I10: group offset {next} is ahead of the ledger's {written}"));
        }
        match self.unpublished.iter().find(|(_, from)| **from < next) {
            Some((seq, from)) => {
                Err(format!("I10: group offset {next}, but entry {seq} from offset {from} is not published"))
            }
            None => Ok(()),
        }
    }
}
