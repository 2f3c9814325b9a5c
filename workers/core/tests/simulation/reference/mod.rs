//! The simplest owner there could be: it decides the log one record after another, with everything at hand.
//!
//! Whatever the machine writes is compared with it, in full: outcomes, code numbers, claims, marks, counters, events,
//! position. So a batch that is written twice, too early, on top of something that never happened, or by an owner whose
//! memory was wrong is found with the write that does it.
//!
//! Here: the log, repetitions, loads. [`requests`]: what each kind of request does, and why not. [`lapses`]: deadlines.
//! [`books`]: what is known of a coupon. [`net`]: what a batch changes in the end.

mod books;
mod expected;
mod lapses;
mod net;
mod performing;
mod requests;

use crate::coverage::Coverage;
use crate::ledger::{Ledger, LoadState, Map, REFUSED};
use crate::log::Log;
use books::Coupon;
use coupon_core::batch::{Batch, Decision, Event, EventKind, LoadApplied, Position, Verdict};
use coupon_core::ids::{CouponNo, LoadId, Millis, Offset, RequestId};
use coupon_core::record::{Payload, Record, Request, UnreadableRequest};
use coupon_core::words::{Kind, Reason};
use expected::Expected;
use net::Net;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    position: Position,
    decided: Map<u128, Vec<Decision>>,
    coupons: BTreeMap<CouponNo, Coupon>,
    applied: BTreeSet<LoadId>,
    /// When claims lapse.
    deadlines: BTreeSet<(Millis, CouponNo, i64)>,
    /// Every redemption so far; whether it stands, its code knows.
    redemptions: BTreeMap<RequestId, requests::Redeemed>,
    /// The time at the broker.
    latest: Millis,
    /// What the batch that is being followed has changed so far.
    net: Net,
    pub(crate) coverage: Coverage,
}

/// A batch that is being followed: what it may choose is taken from it, and what it must say is collected.
struct Followed<'a> {
    batch: &'a Batch,
    ledger: &'a Ledger,
    expected: Expected,
}

impl Reference {
    /// Knows everything that the ledger holds before the run.
    pub(crate) fn new(ledger: &Ledger) -> Self {
        let applied = ledger.loads.iter().filter(|load| load.state == LoadState::Applied).map(|load| load.id);
        let mut reference = Self {
            position: ledger.row.position,
            decided: Map::default(),
            coupons: BTreeMap::new(),
            applied: applied.collect(),
            deadlines: BTreeSet::new(),
            redemptions: BTreeMap::new(),
            latest: Millis(0),
            net: Net::default(),
            coverage: Coverage::default(),
        };
        for no in (1..=ledger.coupons.len() as i64).map(CouponNo) {
            let coupon = Coupon::read(no, ledger);
            let claims = coupon.codes.values().filter_map(|code| code.claim.as_ref());
            let deadlines = claims.filter_map(|claim| Some((claim.status.deadline()?, no, claim.number.0)));
            reference.deadlines.extend(deadlines);
            reference.coupons.insert(no, coupon);
        }
        for decision in ledger.all_decided() {
            reference.remember(decision.clone());
        }
        for row in ledger.redemptions.values() {
            let redeemed = requests::Redeemed {
                coupon: row.coupon,
                number: row.number.0,
                redemption: row.redemption.clone(),
                rolled_back: row.rolled_back.is_some(),
            };
            reference.redemptions.insert(row.redemption.id, redeemed);
        }
        reference
    }

    fn remember(&mut self, decision: Decision) {
        self.decided.entry(decision.id.identity).or_default().push(decision);
    }

    /// Decides what a batch covers, and compares. The ledger is as it is before the batch is written.
    pub(crate) fn follow(&mut self, batch: &Batch, log: &Log, ledger: &Ledger) -> Result<(), String> {
        let (from, to) = (self.position.next_offset, batch.position.next_offset);
        let (first, last) = (log.index_of(from), log.index_of(to));
        self.latest = log.broker_time();
        let mut followed = Followed { batch, ledger, expected: Expected::default() };
        for record in &log.records[first..last] {
            let now = self.position.time.max(record.appended);
            self.coverage
                .saw_if(now.0 - record.appended.0 > 60_000, "time: a record from a clock that is far behind");
            self.fire_all(now, &mut followed.expected);
            self.position.time = now;
            self.decide(record, &mut followed);
            self.position.last_offset = record.offset;
            self.position.last_digest = record.digest;
            self.position.next_offset = record.offset.next();
        }
        let until = log.records.get(last).map_or(self.position.time, |next| next.appended);
        self.fire_slice(until.max(self.position.time), batch, &mut followed.expected)?;
        let possible_duplicates_until = batch.position.possible_duplicates_until;
        if batch.position != (Position { possible_duplicates_until, ..self.position }) {
            return Err(format!("I7: position {:?}, but the log says {:?}", batch.position, self.position));
        }
        followed.expected.compare(batch)?;
        self.compare_net(batch)
    }

    fn decide(&mut self, record: &Record, followed: &mut Followed<'_>) {
        match &record.payload {
            Payload::Tick => {}
            Payload::StockAdded { coupon_id, load } => self.add_stock(coupon_id, *load, record, followed),
            Payload::Unreadable { request, .. } => {
                followed.expected.dead_letters.push(record.offset);
                if let Some(UnreadableRequest { id, user, coupon_id }) = request {
                    let (user, coupon_id) = (user.clone(), coupon_id.clone());
                    let (kind, code, details) = (Kind::Unknown, None, None);
                    let request = Request { id: *id, kind, coupon_id, user, code, details };
                    self.answer(&request, record.offset, followed);
                }
            }
            Payload::Request(request) => self.answer(request, record.offset, followed),
        }
    }

    fn answer(&mut self, request: &Request, at: Offset, followed: &mut Followed<'_>) {
        let earlier = self.decided.get(&request.id.identity).map_or(&[][..], Vec::as_slice);
        if let Some(stored) = earlier.iter().find(|decision| decision.id == request.id) {
            followed.expected.repeated.push(stored.clone());
            return;
        }
        let reused = !earlier.is_empty();
        let found = followed.batch.decisions.iter().find(|decision| decision.offset == at);
        let no = self.coupon_of(request, at, found, followed.ledger);
        let judged = if reused { Err(Reason::IdempotencyKeyReused) } else { self.judge(request, no, found) };
        let refused = request.user.starts_with(REFUSED) && judged != Err(Reason::Unprocessable);
        let (coupon, verdict) = match judged {
            _ if refused => {
                if followed.expected.dead_letters.last() != Some(&at) {
                    followed.expected.dead_letters.push(at);
                }
                (None, Verdict::Rejected(Reason::Unprocessable))
            }
            Err(reason) => {
                self.coverage.rejected(request.kind, reason);
                let understood = !reused && request.kind != Kind::Unknown;
                (no.filter(|_| understood), Verdict::Rejected(reason))
            }
            Ok((number, done)) => {
                let no = no.expect("something is done to a code of a coupon");
                (Some(no), self.perform(request, at, (no, number), done, &mut followed.expected))
            }
        };
        let decision = Decision {
            id: request.id,
            kind: request.kind,
            coupon_id: request.coupon_id.clone(),
            coupon,
            user: request.user.clone(),
            offset: at,
            decided: self.position.time,
            verdict,
        };
        followed.expected.decisions.push(decision.clone());
        self.remember(decision);
    }

    /// The coupon that a request is about. One that was made after the request was appended may have been seen, or not.
    fn coupon_of(
        &mut self,
        request: &Request,
        at: Offset,
        found: Option<&Decision>,
        ledger: &Ledger,
    ) -> Option<CouponNo> {
        let (no, coupon) = ledger.by_id(&request.coupon_id)?;
        if coupon.since > at && found.is_some_and(|decision| decision.coupon.is_none()) {
            return None;
        }
        self.coupons.entry(no).or_insert_with(|| Coupon::read(no, ledger));
        Some(no)
    }

    fn add_stock(&mut self, coupon_id: &str, id: LoadId, record: &Record, followed: &mut Followed<'_>) {
        let Followed { batch, ledger, expected } = followed;
        let told = batch.dead_letters.iter().any(|(offset, _)| *offset == record.offset);
        let known = ledger.by_id(coupon_id);
        let load = ledger.load(id).filter(|load| known.is_some_and(|(no, _)| no == load.coupon));
        let Some((load, (no, coupon))) = load.zip(known) else {
            // Somebody's invention. Where it names a load that is being applied, it may pass for a repetition.
            expected.dead_letters.extend((told || ledger.load(id).is_none()).then_some(record.offset));
            return;
        };
        if told && coupon.since > record.offset {
            return expected.dead_letters.push(record.offset);
        }
        let sealed = match load.state {
            LoadState::Sealed(since) => {
                since <= record.offset || batch.loads.iter().any(|applied| applied.load == id)
            }
            LoadState::Open | LoadState::Applied => false,
        };
        if !sealed || !self.applied.insert(id) {
            return;
        }
        let coupon = self.coupons.entry(no).or_insert_with(|| Coupon::read(no, ledger));
        self.net.touch(no, coupon);
        let base = coupon.add(id, load.count);
        expected.loads.push(LoadApplied { load: id, base });
        expected.event(EventKind::Restocked, coupon, None, record.offset, self.position.time);
    }

    /// The outcome of a request, once it is decided.
    pub(crate) fn outcome(&self, id: RequestId) -> Option<&Decision> {
        self.decided.get(&id.identity)?.iter().find(|decision| decision.id == id)
    }
}

/// The word for a claim's user and code in an event.
fn lapsed(coupon: &Coupon, number: i64, user: &str) -> Option<coupon_core::batch::Lapsed> {
    Some(coupon_core::batch::Lapsed { code: coupon.text(number), user: user.into() })
}

impl Expected {
    fn event(
        &mut self,
        kind: EventKind,
        coupon: &Coupon,
        lapsed: Option<coupon_core::batch::Lapsed>,
        offset: Offset,
        at: Millis,
    ) {
        let (coupon_id, available) = (coupon.id.clone(), coupon.available());
        self.events.push(Event { kind, coupon_id, available, lapsed, offset, at });
    }
}
