//! Deciding a gathered batch: one record after another, in the order of the log, into one [`Batch`].

use super::codes::Codes;
use super::commit::Unsettled;
use super::draft::Draft;
use super::prefetch::{Gathering, Ids};
use super::requirements::is_claim_of_any;
use super::{Effect, Head, ListNames, Machine};
use crate::domain::batch::{Batch, Decision, EventKind, Fence, LoadApplied, StockChange, Verdict};
use crate::domain::ids::{CodeNumber, LoadId, Offset, RequestId};
use crate::domain::record::{DeadLetter, Payload, Record, Request};
use crate::domain::words::Reason;
use crate::machine::decide::{LiveClaimsKnown, Ruling, claim_any};
use crate::planted::Bug;
use std::sync::Arc;

/// Whether a record is decided, or must wait for a batch that has read more.
#[derive(PartialEq, Eq)]
pub(super) enum Step {
    Decided,
    Missing,
}

/// What a repetition is answered.
enum Repeated {
    /// Its outcome is on its way already.
    Underway,
    /// The stored outcome, once more.
    Stored(Decision),
    /// The key was used with another body.
    KeyReused,
}

impl Machine {
    /// Decides the gathered batch; it waits until the one before is settled.
    pub(super) fn decide(&mut self, effects: &mut Vec<Effect>) {
        let Some(mut gathering) = self.gathering.take() else { return };
        let mut draft = self.draft(std::mem::take(&mut gathering.codes), gathering.records.len());
        let mut records = std::mem::take(&mut gathering.records);
        let mut decided = 0;
        for (record, suspect) in records.iter_mut().zip(&gathering.suspects) {
            draft.now = draft.batch.position.time.max(record.appended);
            if !self.fire_deadlines(&mut draft) {
                break;
            }
            draft.at = record.offset;
            if self.decide_record(record, *suspect, &gathering, &mut draft) == Step::Missing {
                break;
            }
            draft.consumed(record);
            decided += 1;
        }
        self.return_to_backlog(records.split_off(decided));
        self.memory.none_lapse_before = draft.codes.none_lapse_before(self.memory.none_lapse_before);
        self.lapsing = !draft.codes.has_fired_all(self.time_for_lapses(draft.now));
        if decided == 0 && draft.codes.is_untouched() {
            // What is being written, or what another owner wrote meanwhile, may be why: its answer tells.
            self.awaits_write = self.writing.is_some();
            if !self.awaits_write {
                self.mismatch("the ledger holds fewer codes or users than its counters promise", effects);
            }
            return;
        }
        let unsettled = self.finish(draft, records);
        self.head = unsettled.after;
        self.decided = Some(unsettled);
        self.fill_lists(&gathering, effects);
        self.send_decided(effects);
    }

    fn fill_lists(&mut self, gathering: &Gathering, effects: &mut Vec<Effect>) {
        let mut names = ListNames { epoch: self.epoch, nonce: self.nonce, lists: &mut self.lists };
        let coupons = gathering.plan.iter().map(|wanted| wanted.coupon);
        let fills = self.memory.fills(coupons, self.head.position.time, &mut names);
        effects.extend(fills.into_iter().map(Effect::Refill));
    }

    /// A batch without records, to carry the watermark.
    pub(super) fn batch_of_nothing(&mut self) -> Unsettled {
        let draft = self.draft(Codes::default(), 0);
        let unsettled = self.finish(draft, Vec::new());
        self.head = unsettled.after;
        unsettled
    }

    fn draft(&mut self, codes: Codes, records: usize) -> Draft {
        let early = self.config.planted.has(Bug::WatermarkEarly);
        let fence = Fence {
            partition: self.partition,
            epoch: self.epoch,
            nonce: self.nonce,
            write_no: self.head.write_no.next(),
            attempt: self.attempt(),
        };
        let batch = Batch {
            fence,
            position: self.head.position,
            watermark: if early { self.outbox.sent() } else { self.outbox.watermark() },
            emit_seq: None,
            decisions: Vec::with_capacity(records),
            duplicates: Vec::new(),
            stock: Vec::new(),
            claims: Vec::new(),
            rolled_back: Vec::new(),
            code_flags: Vec::new(),
            ahead_taken: Vec::new(),
            ahead_freed: Vec::new(),
            returned_added: Vec::new(),
            returned_taken: Vec::new(),
            loads: Vec::new(),
            dead_letters: Vec::new(),
            events: Vec::new(),
        };
        let (touched, index) = (Vec::new(), Ids::default());
        let (now, at) = (batch.position.time, batch.position.next_offset);
        Draft { batch, ordinal: self.head.ordinal + 1, now, at, codes, fired: 0, touched, index, indexed: 0 }
    }

    fn finish(&mut self, draft: Draft, records: Vec<Record>) -> Unsettled {
        let Draft { mut batch, ordinal, touched, codes, .. } = draft;
        codes.write_to(&mut batch);
        for no in touched {
            let Some(coupon) = self.memory.by_no(no) else { continue };
            let (after, moved) = (coupon.stock.row(), coupon.stock.moved(self.settled.ordinal));
            if let Some(before) = coupon.before.take().filter(|was| *was != after) {
                batch.stock.push(StockChange { coupon: no, before, after, passed: moved.passed });
            }
            let here = |numbers: Vec<CodeNumber>| numbers.into_iter().map(move |number| (no, number));
            batch.ahead_taken.extend(here(moved.ahead_taken));
            batch.ahead_freed.extend(here(moved.ahead_freed));
            batch.returned_added.extend(here(moved.returned_added));
            batch.returned_taken.extend(here(moved.returned_taken));
        }
        batch.position.possible_duplicates_until = self.recent.possible_duplicates_until();
        if self.config.planted.has(Bug::OffsetEarly)
            && let Some(last) = self.backlog.back()
        {
            batch.position.next_offset = last.offset.next();
        }
        batch.emit_seq = batch.publishes().then_some(self.head.next_emit_seq);
        let after = Head {
            write_no: batch.fence.write_no,
            position: batch.position,
            next_emit_seq: batch.emit_seq.map_or(self.head.next_emit_seq, |seq| seq.next()),
            watermark: batch.watermark,
            ordinal,
        };
        Unsettled { batch: Arc::new(batch), records, after }
    }

    fn decide_record(
        &mut self,
        record: &mut Record,
        suspect: bool,
        gathering: &Gathering,
        draft: &mut Draft,
    ) -> Step {
        let offset = record.offset;
        match &mut record.payload {
            Payload::Tick => Step::Decided,
            Payload::StockAdded { coupon_id, load } => {
                self.add_stock(coupon_id, *load, offset, gathering, draft);
                Step::Decided
            }
            Payload::Unreadable { dead_letter, request } => {
                draft.batch.dead_letters.push((offset, dead_letter.clone()));
                if let Some(answer) = request {
                    match self.repeated(answer.id, gathering, draft) {
                        Some(Repeated::Underway) => {}
                        Some(Repeated::Stored(decision)) => draft.batch.duplicates.push(decision),
                        Some(Repeated::KeyReused) if !self.refused.contains(&offset) => {
                            draft.refuse_unread(answer, offset, Reason::IdempotencyKeyReused);
                        }
                        Some(Repeated::KeyReused) | None => {
                            draft.refuse_unread(answer, offset, Reason::Unprocessable);
                        }
                    }
                }
                Step::Decided
            }
            Payload::Request(request) => self.decide_request(request, offset, suspect, gathering, draft),
        }
    }

    fn decide_request(
        &mut self,
        request: &mut Request,
        offset: Offset,
        suspect: bool,
        gathering: &Gathering,
        draft: &mut Draft,
    ) -> Step {
        let repeated = if suspect { self.repeated(request.id, gathering, draft) } else { None };
        match repeated {
            Some(Repeated::Underway) => return Step::Decided,
            Some(Repeated::Stored(decision)) => {
                draft.batch.duplicates.push(decision);
                return Step::Decided;
            }
            Some(Repeated::KeyReused) | None => {}
        }
        if self.refused.contains(&offset) {
            draft.batch.dead_letters.push((offset, refused_by_ledger(request)));
            draft.refuse(request, offset, None, Reason::Unprocessable);
        } else if repeated.is_some() {
            draft.refuse(request, offset, None, Reason::IdempotencyKeyReused);
        } else if is_claim_of_any(request) {
            return self.claim(request, offset, draft);
        } else {
            return self.decide_about_a_code(request, offset, draft);
        }
        Step::Decided
    }

    fn claim(&mut self, request: &mut Request, offset: Offset, draft: &mut Draft) -> Step {
        let Some(coupon) = self.memory.get_mut(&request.coupon_id) else {
            draft.refuse(request, offset, None, Reason::CouponUnknown);
            return Step::Decided;
        };
        let before = coupon.stock.row();
        let read = coupon.planned == draft.ordinal;
        let live = match coupon.definition.claims_per_user {
            Some(_) if before.available() > 0 => coupon.live_claims(&request.user, read),
            _ => LiveClaimsKnown::Unread,
        };
        match claim_any(&coupon.definition, &mut coupon.stock, live, draft.now, draft.ordinal) {
            Ruling::Missing => return Step::Missing,
            Ruling::Refused(reason) => {
                let no = coupon.no;
                draft.refuse(request, offset, Some(no), reason);
            }
            Ruling::Given(verdict) => {
                draft.touch_as(coupon, before);
                draft.sold_out_by_the_last(coupon);
                let no = coupon.no;
                if coupon.claimed(&request.user, draft.ordinal) {
                    self.memory.one_user_more();
                }
                if let Verdict::Claimed { number, code, hold_until } = &verdict {
                    draft.made(request, no, *number, code, *hold_until);
                }
                draft.decide(request, offset, Some(no), verdict);
            }
        }
        Step::Decided
    }

    fn add_stock(
        &mut self,
        coupon_id: &str,
        load: LoadId,
        offset: Offset,
        gathering: &Gathering,
        draft: &mut Draft,
    ) {
        let facts = &gathering.facts;
        let unsettled = facts.unsettled.as_ref().map_or(&[][..], |batch| &batch.loads);
        if unsettled.iter().chain(&draft.batch.loads).any(|applied| applied.load == load) {
            return;
        }
        let known = facts.loads.get(&load);
        let coupon = self.memory.get_mut(coupon_id);
        let (Some(known), Some(coupon)) = (known, coupon.filter(|c| known.is_some_and(|k| k.coupon == c.no)))
        else {
            let error = format!("load {load} is not a load of coupon {coupon_id}");
            let key = Some(coupon_id.as_bytes().into());
            let letter = DeadLetter { reason: "load_unknown", error: error.into(), key, value: None };
            draft.batch.dead_letters.push((offset, letter));
            return;
        };
        if !known.sealed {
            return;
        }
        draft.touch(coupon);
        let base = coupon.stock.add(known.count);
        draft.batch.loads.push(LoadApplied { load, base });
        draft.event(EventKind::Restocked, coupon);
    }

    /// What a request is answered that was decided before; `None` for one that was not.
    fn repeated(&self, id: RequestId, gathering: &Gathering, draft: &mut Draft) -> Option<Repeated> {
        if self.config.planted.has(Bug::DeduplicationSkipped) {
            return None;
        }
        draft.index.add(&draft.batch.decisions[draft.indexed..]);
        draft.indexed = draft.batch.decisions.len();
        let facts = &gathering.facts;
        if draft.index.contains(id) || facts.unsettled_index.contains(id) {
            return Some(Repeated::Underway);
        }
        if let Some(stored) = facts.decided.get(id) {
            return Some(Repeated::Stored(stored.clone()));
        }
        let underway = [&draft.index, &facts.unsettled_index].into_iter().any(|ids| ids.knows(id.identity));
        (underway || facts.decided.knows(id.identity)).then_some(Repeated::KeyReused)
    }
}

fn refused_by_ledger(request: &Request) -> DeadLetter {
    let error = format!("Postgres refuses request {} as data", request.id);
    let key = Some(request.coupon_id.as_bytes().into());
    DeadLetter { reason: "refused_as_data", error: error.into(), key, value: None }
}
