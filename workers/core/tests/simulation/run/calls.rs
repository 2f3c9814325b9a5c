//! Calls happen: at a moment of their own, with whatever can go wrong, and each answer is sent on a way of its own.

use crate::owner::{Call, Message, OwnerId, Pending, Reserve};
use crate::world::World;
use coupon_core::batch::Batch;
use coupon_core::ids::EmitSeq;
use coupon_core::interface::{Input, Popped, Refill, RefillResult, WriteResult};
use coupon_core::record::Payload;
use std::sync::Arc;

/// What is left of a call after a step of it.
pub(crate) enum Left {
    /// It goes on, or is made again.
    More(Call),
    Answer(Input),
    Nothing,
}

impl World {
    /// One pending call happens, or a part of it.
    pub(crate) fn perform_one(&mut self) -> Result<(), String> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.pending.len());
        if self.pending[index].ready > self.now {
            return Ok(());
        }
        let Pending { owner, awaited, call, .. } = self.pending.swap_remove(index);
        self.trace(|| {
            format!("{owner:?}: {} happens{}", call.name(), if awaited { "" } else { ", too late" })
        });
        match self.perform(owner, awaited, call)? {
            Left::More(call) => {
                let ready = self.soon();
                self.pending.push(Pending { owner, ready, awaited, call });
            }
            Left::Answer(input) if awaited => self.send(owner, input),
            Left::Answer(_) | Left::Nothing => {}
        }
        Ok(())
    }

    fn perform(&mut self, owner: OwnerId, awaited: bool, call: Call) -> Result<Left, String> {
        let repeated = self.faulty && self.rng.chance(self.plan.repeated);
        match call {
            Call::TakeOver(nonce) => {
                let row = self.ledger.take_over(nonce);
                Ok(if repeated {
                    Left::More(Call::TakeOver(nonce))
                } else {
                    Left::Answer(Input::TakenOver(row))
                })
            }
            Call::CheckLog(position) => {
                let known = self.log.is_known_by(&position);
                Ok(Left::Answer(Input::LogChecked(known.then_some(()).ok_or_else(|| "another log".into()))))
            }
            Call::Load(load) => Ok(self.load(load, repeated)),
            Call::Reserve(reserve) => Ok(self.reserve(reserve)),
            Call::Refill(fill, None) => {
                let codes = self.ledger.codes(fill.codes);
                Ok(Left::More(Call::Refill(fill, Some(codes))))
            }
            Call::Refill(fill, Some(codes)) => Ok(self.fill(fill, codes)),
            Call::Write(batch) => self.write(owner, awaited, &batch),
            Call::ReadBack => Ok(Left::Answer(Input::ReadBack(self.ledger.row))),
            Call::Emit(seq, messages) => self.emit(seq, messages),
            Call::Tick => Ok(self.tick(awaited, repeated)),
            Call::Reemit(from, to) => {
                for seq in (from.0..=to.0).map(EmitSeq) {
                    let call = Call::Emit(seq, self.rebuilt(seq)?);
                    let ready = self.soon();
                    self.pending.push(Pending { owner, ready, awaited, call });
                }
                Ok(Left::Nothing)
            }
        }
    }

    /// The messages of an outbox entry, from the rows; none for one that the watermark has passed.
    fn rebuilt(&self, seq: EmitSeq) -> Result<Vec<Message>, String> {
        let Some(entry) = self.ledger.outbox.get(&seq) else { return Ok(Vec::new()) };
        let mut messages = Vec::new();
        for id in &entry.ids {
            let (stored, _) = self.ledger.outcome(*id);
            let stored = stored.ok_or_else(|| format!("I5: entry {seq} names {id}, which has no outcome"))?;
            messages.push(Message::Response(stored.clone()));
        }
        messages.extend(entry.dead_letters.iter().map(|(offset, _)| Message::DeadLetter(*offset)));
        messages.extend(entry.events.iter().cloned().map(Message::Event));
        Ok(messages)
    }

    /// One pop or one read of a reservation.
    fn reserve(&mut self, mut reserve: Box<Reserve>) -> Left {
        if let Some(pop) = reserve.pops.get(reserve.popped.len()).copied() {
            let lost = self.faulty && self.rng.chance(self.plan.pop_unknown);
            let popped = match self.rng.below(3) {
                _ if !lost => self.redis.pop(pop),
                0 => Popped::Unknown,
                1 => {
                    let _codes_are_gone = self.redis.pop(pop);
                    Popped::Unknown
                }
                _ => {
                    let ready = self.later();
                    self.late_pops.push((ready, pop));
                    Popped::Unknown
                }
            };
            reserve.popped.push(popped);
        } else if let Some(read) = reserve.reads.get(reserve.read.len()).copied() {
            reserve.read.push(self.ledger.codes(read));
        }
        let done = reserve.popped.len() == reserve.pops.len() && reserve.read.len() == reserve.reads.len();
        if !done {
            return Left::More(Call::Reserve(reserve));
        }
        Left::Answer(Input::Reserved { token: reserve.token, popped: reserve.popped, read: reserve.read })
    }

    fn fill(&mut self, fill: Refill, codes: Vec<coupon_core::interface::CodeEntry>) -> Left {
        let list = fill.list;
        let lost = self.faulty && self.rng.chance(self.plan.fill_unknown);
        if lost {
            let part = self.rng.below(codes.len() + 1);
            self.redis.push(list, codes.into_iter().take(part));
            return Left::Answer(Input::Refilled { list, result: RefillResult::Unknown });
        }
        let last = codes.last().map_or(fill.codes.after, |entry| entry.number);
        let count = codes.len();
        self.redis.push(list, codes);
        Left::Answer(Input::Refilled { list, result: RefillResult::Refilled { count, last } })
    }

    fn write(&mut self, owner: OwnerId, awaited: bool, batch: &Arc<Batch>) -> Result<Left, String> {
        let answer = |result| {
            Left::Answer(Input::Written {
                write_no: batch.fence.write_no,
                attempt: batch.fence.attempt,
                result,
            })
        };
        if self.faulty && awaited {
            if self.rng.chance(self.plan.write_unknown) {
                match self.rng.below(3) {
                    0 => {}
                    1 => {
                        self.call_ledger(owner, batch)?;
                    }
                    _ => {
                        // The call is on its way still, and nobody knows.
                        let (ready, call) = (self.later(), Call::Write(Arc::clone(batch)));
                        self.pending.push(Pending { owner, ready, awaited: false, call });
                    }
                }
                return Ok(answer(WriteResult::Unknown));
            }
            if self.rng.chance(self.plan.write_retry) {
                return Ok(answer(WriteResult::Retry));
            }
            if self.rng.chance(self.plan.write_mismatch) && self.mislead(owner) {
                return Ok(answer(WriteResult::Mismatch("a row was mended by hand".into())));
            }
        }
        let result = self.call_ledger(owner, batch)?;
        Ok(answer(result))
    }

    /// A tick is appended, and once more if nobody heard of the first one.
    fn tick(&mut self, awaited: bool, repeated: bool) -> Left {
        self.append(Payload::Tick);
        self.ticks += 1;
        let appended = self.log.records.last().map(|tick| tick.appended);
        self.vain_ticks += u64::from(appended <= Some(self.ledger.row.position.time));
        let coverage = &mut self.reference.coverage;
        coverage.saw("tick: appended");
        coverage.saw_if(!awaited, "tick: appended for an owner that is gone");
        coverage.saw_if(repeated, "tick: appended again");
        if repeated { Left::More(Call::Tick) } else { Left::Nothing }
    }

    /// The messages of one entry are produced: all of them, or only the first few before the connection breaks.
    fn emit(&mut self, seq: EmitSeq, messages: Vec<Message>) -> Result<Left, String> {
        let lost = self.faulty && self.rng.chance(self.plan.ack_lost);
        let told = if lost { self.rng.below(messages.len() + 1) } else { messages.len() };
        for message in &messages[..told] {
            self.broker.append(message, self.now, &self.ledger)?;
        }
        if told == messages.len() && told > 0 {
            self.broker.untold.remove(&seq);
        }
        Ok(if lost { Left::More(Call::Emit(seq, messages)) } else { Left::Answer(Input::Published(seq)) })
    }
}
