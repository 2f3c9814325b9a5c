//! Execution of a prefetched batch: its records are decided one after another, in the order of the log.
//!
//! Before each record, the deadlines up to its time fire. A record that depends on something that was not read ends the
//! batch; it and the records after it return to the backlog. The executed batch overlays the one that is written, and is
//! undone with it.

mod draft;
mod request;

pub(super) use draft::Draft;
pub(super) use request::change_claim;

use super::clock::rejected_as_too_far_ahead;
use super::codes::Codes;
use super::duplicates::Duplicate;
use super::executed::{Executed, ExecutedRecords};
use super::prefetch::{Fetched, Prefetch, Requirement};
use super::{Effect, Head, Owner};
use crate::domain::batch::{Batch, EventKind, Fence, LoadApplied, StockChange, Verdict};
use crate::domain::decide::NotAccepted;
use crate::domain::ids::{CodeNumber, CouponNo, LoadId};
use crate::domain::record::{DeadLetter, Payload, Record, Request, UnreadableRequest};
use crate::domain::words::Reason;
use crate::interface::Release;
use crate::planted::Bug;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The outcome of one record.
enum Outcome {
    /// The request gets this verdict.
    Decided(Option<CouponNo>, Verdict),
    /// The record is consumed, and no decision owns its payload.
    Consumed,
    /// The record depends on something that was not read.
    Missing,
}

impl Owner {
    /// Executes a prefetched batch, and writes it or queues it behind the current write.
    pub(super) fn execute(&mut self, prefetch: Prefetch, effects: &mut Vec<Effect>) -> ControlFlow<Release> {
        let Prefetch { records, possible_duplicates, fetched, codes, requirements, .. } = prefetch;
        let mut draft = self.draft(codes, records.len());
        let mut executed = ExecutedRecords::with_capacity(records.len());
        let mut records = records.into_iter();
        for possible_duplicate in possible_duplicates {
            let Some(record) = records.as_slice().first() else { break };
            draft.now = draft.batch.position.time.max(record.appended);
            if !self.fire_deadlines(&mut draft) {
                break;
            }
            draft.at = record.offset;
            let outcome = self.execute_record(record, possible_duplicate, &fetched, &mut draft);
            if matches!(outcome, Outcome::Missing) {
                break;
            }
            draft.advance(record);
            executed.push(record);
            if let Outcome::Decided(coupon, verdict) = outcome {
                if let Some(Record { payload: Payload::Request(request), .. }) = records.next() {
                    draft.decide(request, coupon, verdict);
                }
            } else {
                executed.keep(records.next());
            }
        }
        self.put_back(records);
        self.cache.add_users(draft.new_users);
        self.deadlines.update(&draft, &self.config);
        if executed.is_empty() && draft.codes.is_unchanged() {
            return self.block(effects);
        }
        let executed = self.finish(draft, executed);
        self.head = executed.after;
        self.refill_lists(&requirements, effects);
        if let Some(executed) = self.pipeline.queue(executed) {
            self.start_write(executed, effects);
        }
        ControlFlow::Continue(())
    }

    /// Nothing can be executed with what was read. The batch in flight, or a write of another owner, may be the cause:
    /// the result of the current write shows it.
    fn block(&mut self, effects: &mut Vec<Effect>) -> ControlFlow<Release> {
        if !self.pipeline.block() {
            self.mismatch("Postgres has fewer codes or users than its counters", effects);
        }
        ControlFlow::Continue(())
    }

    fn refill_lists(&mut self, requirements: &[Requirement], effects: &mut Vec<Effect>) {
        let coupons = requirements.iter().map(|requirement| requirement.coupon);
        let refills = self.cache.refills(coupons, self.head.position.time, &mut self.list_names);
        effects.extend(refills.into_iter().map(Effect::Refill));
    }

    /// A batch without records, to write the watermark.
    pub(super) fn empty_batch(&mut self) -> Executed {
        let codes = Codes::new(self.head.position.time, []);
        let draft = self.draft(codes, 0);
        let executed = self.finish(draft, ExecutedRecords::default());
        self.head = executed.after;
        executed
    }

    fn draft(&mut self, codes: Codes, records: usize) -> Draft {
        let early = self.config.planted.has(Bug::WatermarkEarly);
        let fence = Fence {
            partition: self.partition,
            epoch: self.epoch,
            nonce: self.nonce,
            write_no: self.head.write_no.next(),
            attempt: self.ids.attempt(),
        };
        let watermark = if early { self.outbox.sent() } else { self.outbox.watermark() };
        let batch = Batch {
            decisions: Vec::with_capacity(records),
            ..Batch::new(fence, self.head.position, watermark)
        };
        Draft::new(batch, self.head.ordinal + 1, codes, self.config.planted)
    }

    fn finish(&mut self, draft: Draft, records: ExecutedRecords) -> Executed {
        let Draft { mut batch, ordinal, touched, codes, .. } = draft;
        codes.write_to(&mut batch);
        for no in touched {
            self.write_stock(no, &mut batch);
        }
        batch.position.possible_duplicates_until = self.recent.possible_duplicates_until();
        if self.config.planted.has(Bug::OffsetEarly)
            && let Some(last) = self.backlog.last_offset()
        {
            batch.position.next_offset = last.next();
        }
        batch.emit_seq = batch.publishes().then_some(self.head.next_emit_seq);
        let after = Head::after(&batch, self.head.next_emit_seq, ordinal);
        Executed { batch: Arc::new(batch), records, after }
    }

    /// Adds the changes of a coupon's stock to the batch.
    fn write_stock(&mut self, no: CouponNo, batch: &mut Batch) {
        let Some(coupon) = self.cache.by_no_mut(no) else { return };
        let (after, moved) = (coupon.stock.row(), coupon.stock.take_moved(self.settled.ordinal));
        if let Some(before) = coupon.before.take().filter(|before| *before != after) {
            batch.stock.push(StockChange { coupon: no, before, after, passed: moved.passed });
        }
        let with_coupon = |numbers: Vec<CodeNumber>| numbers.into_iter().map(move |number| (no, number));
        batch.ahead_taken.extend(with_coupon(moved.ahead_taken));
        batch.ahead_freed.extend(with_coupon(moved.ahead_freed));
        batch.returned_added.extend(with_coupon(moved.returned_added));
        batch.returned_taken.extend(with_coupon(moved.returned_taken));
    }

    fn execute_record(
        &mut self,
        record: &Record,
        possible_duplicate: bool,
        fetched: &Fetched,
        draft: &mut Draft,
    ) -> Outcome {
        let too_far_ahead = self.clock.is_rejected(record.offset);
        if too_far_ahead {
            draft.batch.dead_letters.push((record.offset, rejected_as_too_far_ahead(record)));
        }
        match &record.payload {
            Payload::Request(request) => {
                let duplicate =
                    if possible_duplicate { draft.duplicate_of(request.id, fetched) } else { None };
                return self.execute_request(request, duplicate, draft);
            }
            // Announced again, until it is stock.
            Payload::StockAdded { .. } if too_far_ahead => {}
            Payload::StockAdded { coupon_id, load } => self.add_stock(coupon_id, *load, fetched, draft),
            Payload::Unreadable { dead_letter, request } => {
                if !too_far_ahead {
                    draft.batch.dead_letters.push((record.offset, dead_letter.clone()));
                }
                if let Some(request) = request {
                    self.reject_unreadable(request, fetched, draft);
                }
            }
            Payload::Tick => {}
        }
        Outcome::Consumed
    }

    /// The checks, in order: duplicate; rejected by an operator, or by Postgres as data (`unprocessable`); `idempotency_key_reused`; the
    /// checks of the request's kind.
    fn execute_request(
        &mut self,
        request: &Request,
        duplicate: Option<Duplicate>,
        draft: &mut Draft,
    ) -> Outcome {
        let key_reused = match duplicate {
            Some(Duplicate::InFlight) => return Outcome::Consumed,
            Some(Duplicate::Stored(decision)) => {
                draft.batch.duplicates.push(decision);
                return Outcome::Consumed;
            }
            Some(Duplicate::KeyReused) => true,
            None => false,
        };
        if self.clock.is_rejected(draft.at) {
            return Outcome::Decided(None, Verdict::Rejected(Reason::Unprocessable));
        }
        if self.recovery.rejected_by_postgres.contains(&draft.at) {
            draft.batch.dead_letters.push((draft.at, rejected_as_data(request)));
            return Outcome::Decided(None, Verdict::Rejected(Reason::Unprocessable));
        }
        if key_reused {
            return Outcome::Decided(None, Verdict::Rejected(Reason::IdempotencyKeyReused));
        }
        match request::execute(request, &mut self.cache, draft) {
            (coupon, Ok(verdict)) => Outcome::Decided(coupon, verdict),
            (coupon, Err(NotAccepted::Rejected(reason))) => {
                Outcome::Decided(coupon, Verdict::Rejected(reason))
            }
            (_, Err(NotAccepted::Missing)) => Outcome::Missing,
        }
    }

    fn reject_unreadable(&self, request: &UnreadableRequest, fetched: &Fetched, draft: &mut Draft) {
        let is_rejected =
            self.recovery.rejected_by_postgres.contains(&draft.at) || self.clock.is_rejected(draft.at);
        match draft.duplicate_of(request.id, fetched) {
            Some(Duplicate::InFlight) => {}
            Some(Duplicate::Stored(decision)) => draft.batch.duplicates.push(decision),
            Some(Duplicate::KeyReused) if !is_rejected => {
                draft.reject_unreadable(request, Reason::IdempotencyKeyReused);
            }
            Some(Duplicate::KeyReused) | None => draft.reject_unreadable(request, Reason::Unprocessable),
        }
    }

    /// Applies a load, once, however often it is announced.
    fn add_stock(&mut self, coupon_id: &str, load: LoadId, fetched: &Fetched, draft: &mut Draft) {
        let in_flight = fetched.in_flight.as_ref().map_or(&[][..], |batch| &batch.loads);
        if in_flight.iter().chain(&draft.batch.loads).any(|applied| applied.load == load) {
            return;
        }
        let stored = fetched.loads.get(&load);
        let coupon = self.cache.by_id_mut(coupon_id);
        let (Some(stored), Some(coupon)) =
            (stored, coupon.filter(|coupon| stored.is_some_and(|stored| stored.coupon == coupon.no)))
        else {
            draft.batch.dead_letters.push((draft.at, unknown_load(coupon_id, load)));
            return;
        };
        if !stored.sealed {
            return;
        }
        if stored.count <= 0 {
            // The next load would begin at the same number.
            draft.batch.dead_letters.push((draft.at, empty_load(coupon_id, load)));
            return;
        }
        draft.touch(coupon);
        let base = coupon.stock.add(stored.count);
        draft.batch.loads.push(LoadApplied { load, base });
        draft.event(EventKind::Restocked, coupon);
    }
}

fn rejected_as_data(request: &Request) -> DeadLetter {
    let error = format!("Postgres rejects request {} as data", request.id);
    let key = Some(request.coupon_id.as_bytes().into());
    DeadLetter { reason: "refused_as_data", error: error.into(), key, value: None }
}

fn unknown_load(coupon_id: &str, load: LoadId) -> DeadLetter {
    load_rejected(coupon_id, "load_unknown", format!("load {load} is not a load of coupon {coupon_id}"))
}

fn empty_load(coupon_id: &str, load: LoadId) -> DeadLetter {
    load_rejected(coupon_id, "load_empty", format!("load {load} has no codes"))
}

fn load_rejected(coupon_id: &str, reason: &'static str, error: String) -> DeadLetter {
    DeadLetter { reason, error: error.into(), key: Some(coupon_id.as_bytes().into()), value: None }
}
