//! Executes pending calls, each at a time of its own, with the failures of the plan, and sends the responses.

use super::Run;
use super::pending::{Call, PendingCall, ReserveCall};
use crate::environment::Environment;
use crate::environment::broker::Message;
use crate::owner::OwnerId;
use coupon_core::batch::Batch;
use coupon_core::ids::{EmitSeq, Offset};
use coupon_core::interface::{CodeEntry, Input, Popped, Refill, RefillResult, WriteResult};
use coupon_core::record::Payload;
use std::sync::Arc;

/// What follows the execution of one step of a call.
pub(super) enum Progress {
    /// The call has another step, or is made again.
    Continue(Call),
    Response(Input),
    NoResponse,
}

impl Run {
    /// Executes one step of a random pending call, if it is ready.
    pub(super) fn execute_pending_call(&mut self) -> Result<(), String> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.pending.len());
        if self.pending[index].ready_at > self.now {
            return Ok(());
        }
        let PendingCall { owner, awaited, call, .. } = self.pending.swap_remove(index);
        self.trace(|| {
            let note = if awaited { "" } else { ", no longer awaited" };
            format!("{owner:?}: {} is executed{note}", call.name())
        });
        match self.execute(owner, awaited, call)? {
            Progress::Continue(call) => self.push_call(owner, awaited, call),
            Progress::Response(input) if awaited => self.respond(owner, input),
            Progress::Response(_) | Progress::NoResponse => {}
        }
        Ok(())
    }

    fn push_call(&mut self, owner: OwnerId, awaited: bool, call: Call) {
        let ready_at = self.ready_at();
        self.pending.push(PendingCall { owner, ready_at, awaited, call });
    }

    fn execute(&mut self, owner: OwnerId, awaited: bool, call: Call) -> Result<Progress, String> {
        let retried = self.faults_enabled && self.rng.chance(self.plan.retried_calls);
        match call {
            Call::TakeOver(nonce) => {
                let row = self.environment.ledger.take_over(nonce);
                self.record_takeover(nonce, row);
                Ok(if retried {
                    Progress::Continue(Call::TakeOver(nonce))
                } else {
                    Progress::Response(Input::TakenOver(row))
                })
            }
            Call::CheckLog(position) => {
                let same = self.environment.log.contains_position(&position);
                let checked = if same { Ok(()) } else { Err("another log".into()) };
                Ok(Progress::Response(Input::LogChecked(checked)))
            }
            Call::Lookup(lookup) => Ok(self.look_up(lookup, retried)),
            Call::Reserve(reserve) => Ok(self.reserve(reserve)),
            Call::Refill(refill, None) => {
                let codes = self.environment.ledger.read_codes(refill.codes);
                Ok(Progress::Continue(Call::Refill(refill, Some(codes))))
            }
            Call::Refill(refill, Some(codes)) => Ok(self.refill(refill, codes)),
            Call::Write(batch) => self.write(owner, awaited, &batch),
            Call::ReadBack => Ok(Progress::Response(Input::ReadBack(self.environment.ledger.row))),
            Call::ReadClock(offset, again) => Ok(Progress::Response(self.read_clock(offset, again))),
            Call::Publish(seq, messages) => self.publish(seq, messages),
            Call::Tick => Ok(self.tick(awaited, retried)),
            Call::Republish(from, to) => {
                for seq in (from.0..=to.0).map(EmitSeq) {
                    let call = Call::Publish(seq, self.messages_of_entry(seq)?);
                    self.push_call(owner, awaited, call);
                }
                Ok(Progress::NoResponse)
            }
        }
    }

    /// The messages of an outbox entry, from its rows; none if the watermark has passed it.
    fn messages_of_entry(&self, seq: EmitSeq) -> Result<Vec<Message>, String> {
        let ledger = &self.environment.ledger;
        let Some(entry) = ledger.outbox.get(&seq) else { return Ok(Vec::new()) };
        let mut messages = Vec::new();
        for id in &entry.ids {
            let (stored, _) = ledger.outcome(*id);
            let stored =
                stored.ok_or_else(|| format!("I5: entry {seq} contains {id}, which has no outcome"))?;
            messages.push(Message::Response(stored.clone()));
        }
        messages.extend(entry.dead_letters.iter().map(|(offset, _)| Message::DeadLetter(*offset)));
        messages.extend(entry.events.iter().cloned().map(Message::Event));
        Ok(messages)
    }

    /// Executes one pop or one read of a reservation.
    fn reserve(&mut self, mut reserve: Box<ReserveCall>) -> Progress {
        if let Some(pop) = reserve.pops.get(reserve.popped.len()).copied() {
            let lost = self.faults_enabled && self.rng.chance(self.plan.pop_unknown);
            let redis = &mut self.environment.redis;
            let popped = match self.rng.below(3) {
                _ if !lost => redis.pop(pop),
                0 => Popped::Unknown,
                1 => {
                    let _lost_codes = redis.pop(pop);
                    Popped::Unknown
                }
                _ => {
                    let ready_at = self.delayed();
                    self.delayed_pops.push((ready_at, pop));
                    Popped::Unknown
                }
            };
            reserve.popped.push(popped);
        } else if let Some(read) = reserve.reads.get(reserve.read.len()).copied() {
            reserve.read.push(self.environment.ledger.read_codes(read));
        }
        let done = reserve.popped.len() == reserve.pops.len() && reserve.read.len() == reserve.reads.len();
        if !done {
            return Progress::Continue(Call::Reserve(reserve));
        }
        let ReserveCall { token, popped, read, .. } = *reserve;
        Progress::Response(Input::Reserved { token, popped, read })
    }

    fn refill(&mut self, refill: Refill, codes: Vec<CodeEntry>) -> Progress {
        let list = refill.list;
        let redis = &mut self.environment.redis;
        if self.faults_enabled && self.rng.chance(self.plan.refill_unknown) {
            let appended = self.rng.below(codes.len() + 1);
            redis.push(list, codes.into_iter().take(appended));
            return Progress::Response(Input::Refilled { list, result: RefillResult::Unknown });
        }
        let last = codes.last().map_or(refill.codes.after, |entry| entry.number);
        let count = codes.len();
        redis.push(list, codes);
        Progress::Response(Input::Refilled { list, result: RefillResult::Refilled { count, last } })
    }

    fn write(&mut self, owner: OwnerId, awaited: bool, batch: &Arc<Batch>) -> Result<Progress, String> {
        let response = |result| {
            let (write_no, attempt) = (batch.fence.write_no, batch.fence.attempt);
            Progress::Response(Input::Written { write_no, attempt, result })
        };
        if self.faults_enabled && awaited {
            if self.rng.chance(self.plan.write_unknown) {
                match self.rng.below(3) {
                    0 => {}
                    1 => {
                        self.write_to_ledger(owner, batch)?;
                    }
                    _ => {
                        // The connection is lost while the statement still runs: it is executed later.
                        let (ready_at, call) = (self.delayed(), Call::Write(Arc::clone(batch)));
                        self.pending.push(PendingCall { owner, ready_at, awaited: false, call });
                    }
                }
                return Ok(response(WriteResult::Unknown));
            }
            if self.rng.chance(self.plan.write_retry) {
                return Ok(response(WriteResult::Retry));
            }
            if self.rng.chance(self.plan.write_mismatch) && self.may_report_mismatch(owner) {
                return Ok(response(WriteResult::Mismatch("an operator changed a row".into())));
            }
        }
        let result = self.write_to_ledger(owner, batch)?;
        Ok(response(result))
    }

    /// Whether a false mismatch can be reported to this owner: once, because the second one stops it.
    fn may_report_mismatch(&mut self, id: OwnerId) -> bool {
        self.owner(id).is_some_and(|owner| !std::mem::replace(&mut owner.false_mismatch_reported, true))
    }

    /// Reads Postgres' clock. While a record waits for it, time passes, and an operator may have the record rejected.
    fn read_clock(&mut self, offset: Offset, again: bool) -> Input {
        let Environment { log, ledger, .. } = &mut self.environment;
        if again {
            self.reference.coverage.count("time: a record far ahead waits");
            log.pass(self.rng.between(0, 20_000));
            if self.rng.chance(200) {
                ledger.rejected_records.push((offset, Offset(offset.0 + self.rng.between(0, 3))));
            }
        }
        let mut covering =
            ledger.rejected_records.iter().filter(|(from, to)| (*from..=*to).contains(&offset));
        let rejected_through = covering.next().map(|(_, to)| *to);
        Input::ClockRead { now: log.now(), rejected_through }
    }

    /// Appends a tick, and another one if the acknowledgement of the first is lost.
    fn tick(&mut self, awaited: bool, retried: bool) -> Progress {
        self.append(Payload::Tick);
        self.ticks += 1;
        let appended = self.environment.log.records.last().map(|tick| tick.appended);
        let time = self.environment.ledger.row.position.time;
        self.ineffective_ticks += u64::from(appended <= Some(time));
        let coverage = &mut self.reference.coverage;
        coverage.count("tick: appended");
        coverage.count_if(!awaited, "tick: appended for a removed owner");
        coverage.count_if(retried, "tick: appended again");
        if retried { Progress::Continue(Call::Tick) } else { Progress::NoResponse }
    }

    /// Produces the messages of one entry: all of them, or the first few before the connection is lost.
    fn publish(&mut self, seq: EmitSeq, messages: Vec<Message>) -> Result<Progress, String> {
        let lost = self.faults_enabled && self.rng.chance(self.plan.ack_lost);
        let published = if lost { self.rng.below(messages.len() + 1) } else { messages.len() };
        let broker = &mut self.environment.broker;
        for message in &messages[..published] {
            broker.append(message, self.now, &self.environment.ledger)?;
        }
        if published == messages.len() && published > 0 {
            broker.unpublished.remove(&seq);
        }
        Ok(if lost {
            Progress::Continue(Call::Publish(seq, messages))
        } else {
            Progress::Response(Input::Published(seq))
        })
    }
}
