//! The sequential model: it decides the log one record after another, with every row in memory and no faults.
//!
//! Each batch of the machine is compared with it in full before it is written: outcomes, code numbers, claims, flags,
//! counters, events, position. So a batch that is written twice or too early, that builds on a write which never
//! happened, or that comes from an owner with a wrong cache is found at its own write.
//!
//! Here: the log, duplicates and loads. [`rules`]: whether a request is accepted, and the reason if not. [`apply`]: what
//! an accepted request changes. [`deadlines`]: lapses. [`coupon`]: the state of a coupon. [`changes`]: the net changes of
//! a batch. [`expected`]: its decisions and events.

mod apply;
mod changes;
mod coupon;
mod deadlines;
mod expected;
mod rules;

use crate::coverage::Coverage;
use crate::environment::ledger::tables::{Load, LoadState};
use crate::environment::ledger::{Ledger, Map, UNSTORABLE_USER_PREFIX};
use crate::environment::log::Log;
use changes::BatchChanges;
use coupon::Coupon;
use coupon_core::batch::{Batch, Decision, EventKind, LoadApplied, Position, Verdict};
use coupon_core::ids::{CouponNo, LoadId, Millis, Offset, RequestId};
use coupon_core::machine::TOO_FAR_AHEAD;
use coupon_core::record::{Payload, Record, Request, UnreadableRequest};
use coupon_core::words::{Kind, Reason};
use expected::ExpectedOutput;
use rules::StoredRedemption;
use std::collections::{BTreeMap, BTreeSet};

/// A record whose append time is this far behind the partition's time comes from a clock that is far behind.
const FAR_BEHIND_MS: i64 = 60_000;

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    position: Position,
    outcomes: Map<u128, Vec<Decision>>,
    coupons: BTreeMap<CouponNo, Coupon>,
    applied_loads: BTreeSet<LoadId>,
    /// The deadlines of live claims, earliest first.
    deadlines: BTreeSet<(Millis, CouponNo, i64)>,
    /// Every redemption so far.
    redemptions: BTreeMap<RequestId, StoredRedemption>,
    /// The broker's time when the present batch is written.
    broker_time: Millis,
    /// The changes of the present batch so far.
    changes: BatchChanges,
    pub(crate) coverage: Coverage,
}

/// The batch that is checked. Where the machine has a choice, the choice is read from the batch.
struct CheckedBatch<'a> {
    batch: &'a Batch,
    ledger: &'a Ledger,
    expected: ExpectedOutput,
}

impl Reference {
    /// Starts with everything that the ledger holds before the run.
    pub(crate) fn new(ledger: &Ledger) -> Self {
        let applied = ledger.loads.iter().filter(|load| load.state == LoadState::Applied).map(|load| load.id);
        let mut reference = Self {
            position: ledger.row.position,
            outcomes: Map::default(),
            coupons: BTreeMap::new(),
            applied_loads: applied.collect(),
            deadlines: BTreeSet::new(),
            redemptions: BTreeMap::new(),
            broker_time: Millis(0),
            changes: BatchChanges::default(),
            coverage: Coverage::default(),
        };
        for no in (1..=ledger.coupons.len() as i64).map(CouponNo) {
            let coupon = Coupon::from_ledger(no, ledger);
            let claims = coupon.codes.values().filter_map(|code| code.claim.as_ref());
            let deadlines = claims.filter_map(|claim| Some((claim.status.deadline()?, no, claim.number.0)));
            reference.deadlines.extend(deadlines);
            reference.coupons.insert(no, coupon);
        }
        for decision in ledger.all_outcomes() {
            reference.store_outcome(decision.clone());
        }
        for row in ledger.redemptions.values() {
            let stored = StoredRedemption {
                coupon: row.coupon,
                number: row.number.0,
                redemption: row.redemption.clone(),
                rolled_back: row.rolled_back.is_some(),
            };
            reference.redemptions.insert(row.redemption.id, stored);
        }
        reference
    }

    fn store_outcome(&mut self, decision: Decision) {
        self.outcomes.entry(decision.request.id.identity).or_default().push(decision);
    }

    /// Decides the records that a batch covers, and compares. `ledger` is the ledger before the batch is written.
    pub(crate) fn check_batch(&mut self, batch: &Batch, log: &Log, ledger: &Ledger) -> Result<(), String> {
        let (from, to) = (self.position.next_offset, batch.position.next_offset);
        let (first, last) = (log.index_of(from), log.index_of(to));
        self.broker_time = log.broker_time();
        let mut checked = CheckedBatch { batch, ledger, expected: ExpectedOutput::default() };
        for record in &log.records[first..last] {
            let rejected = is_rejected_as_too_far_ahead(record.offset, batch, ledger)?;
            self.coverage.count_if(rejected, "time: a record far ahead is rejected");
            let now = if rejected { self.position.time } else { self.position.time.max(record.appended) };
            let far_behind = now.0 - record.appended.0 > FAR_BEHIND_MS;
            self.coverage.count_if(far_behind, "time: a record from a clock that is far behind");
            self.fire_all_due(now, &mut checked.expected);
            self.position.time = now;
            self.decide_record(record, rejected, &mut checked);
            self.position.last_offset = record.offset;
            self.position.last_digest = record.digest;
            self.position.next_offset = record.offset.next();
        }
        let until = log.records.get(last).map_or(self.position.time, |next| next.appended);
        self.fire_after_last_record(until.max(self.position.time), batch, &mut checked.expected)?;
        if let Some(decided) = checked.expected.decisions.first().map(|first| first.decided)
            && decided.day() != batch.position.time.day()
        {
            return Err(format!(
                "outcomes of {decided:?} are stored on the day of {:?}",
                batch.position.time
            ));
        }
        let possible_duplicates_until = batch.position.possible_duplicates_until;
        let expected = Position { possible_duplicates_until, ..self.position };
        if batch.position != expected {
            return Err(format!("I7: position {:?}, expected {expected:?}", batch.position));
        }
        checked.expected.compare(batch)?;
        self.compare_changes(batch)
    }

    /// Decides a record; `rejected` if an operator has had it rejected.
    fn decide_record(&mut self, record: &Record, rejected: bool, checked: &mut CheckedBatch<'_>) {
        if rejected && !matches!(record.payload, Payload::Unreadable { .. }) {
            checked.expected.dead_letters.push(record.offset);
        }
        match &record.payload {
            Payload::Tick => {}
            Payload::StockAdded { .. } if rejected => {}
            Payload::StockAdded { coupon_id, load } => self.apply_load(coupon_id, *load, record, checked),
            Payload::Unreadable { request, .. } => {
                checked.expected.dead_letters.push(record.offset);
                if let Some(UnreadableRequest { id, user, coupon_id }) = request {
                    let (user, coupon_id) = (user.clone(), coupon_id.clone());
                    let (kind, code, details) = (Kind::Unknown, None, None);
                    let request = Request { id: *id, kind, coupon_id, user, code, details };
                    self.decide_request(&request, record.offset, rejected, checked);
                }
            }
            Payload::Request(request) => self.decide_request(request, record.offset, rejected, checked),
        }
    }

    fn decide_request(
        &mut self,
        request: &Request,
        at: Offset,
        rejected: bool,
        checked: &mut CheckedBatch<'_>,
    ) {
        let earlier = self.outcomes.get(&request.id.identity).map_or(&[][..], Vec::as_slice);
        if let Some(stored) = earlier.iter().find(|decision| decision.request.id == request.id) {
            let other_day = stored.decided.day() != self.position.time.day();
            self.coverage.count_if(other_day, "time: a duplicate of a request of another day");
            checked.expected.duplicates.push(stored.clone());
            return;
        }
        let reused = !earlier.is_empty();
        let found = checked.batch.decisions.iter().find(|decision| decision.offset == at);
        let no = self.coupon_of(request, at, found, checked.ledger);
        let evaluation =
            if reused { Err(Reason::IdempotencyKeyReused) } else { self.evaluate(request, no, found) };
        let (coupon, verdict) = match evaluation {
            _ if rejected => (None, Verdict::Rejected(Reason::Unprocessable)),
            _ if request.user.starts_with(UNSTORABLE_USER_PREFIX)
                && evaluation != Err(Reason::Unprocessable) =>
            {
                if checked.expected.dead_letters.last() != Some(&at) {
                    checked.expected.dead_letters.push(at);
                }
                (None, Verdict::Rejected(Reason::Unprocessable))
            }
            Err(reason) => {
                self.coverage.count_rejection(request.kind, reason);
                let has_coupon = !reused && request.kind != Kind::Unknown;
                (no.filter(|_| has_coupon), Verdict::Rejected(reason))
            }
            Ok((number, operation)) => {
                let no = no.expect("an operation has a coupon");
                (Some(no), self.apply(request, at, (no, number), operation, &mut checked.expected))
            }
        };
        let decision =
            Decision { request: request.clone(), coupon, offset: at, decided: self.position.time, verdict };
        checked.expected.decisions.push(decision.clone());
        self.store_outcome(decision);
    }

    /// The coupon of a request. If it was created after the request was appended, the machine may or may not see it.
    fn coupon_of(
        &mut self,
        request: &Request,
        at: Offset,
        found: Option<&Decision>,
        ledger: &Ledger,
    ) -> Option<CouponNo> {
        let (no, coupon) = ledger.coupon_by_id(&request.coupon_id)?;
        if coupon.created > at && found.is_some_and(|decision| decision.coupon.is_none()) {
            return None;
        }
        self.coupons.entry(no).or_insert_with(|| Coupon::from_ledger(no, ledger));
        Some(no)
    }

    fn apply_load(&mut self, coupon_id: &str, id: LoadId, record: &Record, checked: &mut CheckedBatch<'_>) {
        let CheckedBatch { batch, ledger, expected } = checked;
        let has_dead_letter = batch.dead_letters.iter().any(|(offset, _)| *offset == record.offset);
        let by_id = ledger.coupon_by_id(coupon_id);
        let load = ledger.load(id).filter(|load| by_id.is_some_and(|(no, _)| no == load.coupon));
        let Some((load, (no, coupon))) = load.zip(by_id) else {
            // A forged announcement. If its load is being applied, it may be taken for a duplicate.
            let dead_letter = has_dead_letter || ledger.load(id).is_none();
            expected.dead_letters.extend(dead_letter.then_some(record.offset));
            return;
        };
        if has_dead_letter && coupon.created > record.offset {
            return expected.dead_letters.push(record.offset);
        }
        if load.count == 0 {
            let must = matches!(load.state, LoadState::Sealed(since) if since <= record.offset);
            expected.dead_letters.extend((must || has_dead_letter).then_some(record.offset));
            return;
        }
        if !is_sealed(load, record.offset, batch) || !self.applied_loads.insert(id) {
            return;
        }
        let coupon = self.coupons.entry(no).or_insert_with(|| Coupon::from_ledger(no, ledger));
        self.changes.keep_stock(no, coupon);
        let base = coupon.add_load(id, load.count);
        expected.loads.push(LoadApplied { load: id, base });
        expected.event(EventKind::Restocked, coupon, None, record.offset, self.position.time);
    }

    /// The outcome of a request, once it is decided.
    pub(crate) fn outcome(&self, id: RequestId) -> Option<&Decision> {
        self.outcomes.get(&id.identity)?.iter().find(|decision| decision.request.id == id)
    }
}

/// Whether a record was rejected as too far ahead of Postgres' clock; an error if no operator has had it rejected.
fn is_rejected_as_too_far_ahead(offset: Offset, batch: &Batch, ledger: &Ledger) -> Result<bool, String> {
    let mut letters = batch.dead_letters.iter();
    let rejected = letters.any(|(at, letter)| *at == offset && letter.error.starts_with(TOO_FAR_AHEAD));
    let mut requested = ledger.rejected_records.iter();
    if rejected && !requested.any(|(from, to)| (*from..=*to).contains(&offset)) {
        return Err(format!("I7: record {offset} is rejected, and no operator has requested it"));
    }
    Ok(rejected)
}

/// Whether a load is sealed for a record. If it was sealed after the record was appended, the machine may see either.
fn is_sealed(load: &Load, at: Offset, batch: &Batch) -> bool {
    match load.state {
        LoadState::Sealed(since) => since <= at || batch.loads.iter().any(|applied| applied.load == load.id),
        LoadState::Open | LoadState::Applied => false,
    }
}
