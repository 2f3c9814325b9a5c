//! The simplest owner there could be: it decides the log one record after another, with everything at hand.
//!
//! Whatever the machine writes is compared with it, in full: outcomes, code numbers, counters, events, position.
//! So a batch that is written twice, too early, on top of something that never happened, or by an owner whose
//! memory was wrong is found with the write that does it.

use crate::ledger::{Ledger, LoadState, Map, REFUSED, code_of};
use crate::log::Log;
use coupon_core::batch::{Batch, Decision, Event, EventKind, LoadApplied, Position, Verdict};
use coupon_core::coupon::Definition;
use coupon_core::ids::{CodeNumber, CouponNo, LoadId, Offset, RequestId};
use coupon_core::record::{Payload, Record, Request, Unanswered};
use coupon_core::vocabulary::{Kind, Reason};
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
struct Coupon {
    definition: Definition,
    top: i64,
    free: BTreeSet<i64>,
    /// Numbers up to here were taken in sequence; free ones among them were returned.
    cursor: i64,
    users: Map<Box<str>, u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    position: Position,
    decided: Map<u128, Vec<Decision>>,
    coupons: Map<CouponNo, Coupon>,
    applied: BTreeSet<LoadId>,
}

/// What a batch must say.
#[derive(Default)]
struct Expected {
    decisions: Vec<Decision>,
    repeated: Vec<Decision>,
    dead_letters: Vec<Offset>,
    events: Vec<Event>,
    loads: Vec<LoadApplied>,
    returned: Vec<(CouponNo, CodeNumber)>,
    touched: Vec<CouponNo>,
}

impl Reference {
    pub(crate) fn new(ledger: &Ledger) -> Self {
        let position = ledger.row.position;
        let applied = ledger.loads.iter().filter(|load| load.state == LoadState::Applied).map(|load| load.id);
        Self { position, decided: Map::default(), coupons: Map::default(), applied: applied.collect() }
    }

    /// An outcome from before the run.
    pub(crate) fn remember(&mut self, decision: Decision) {
        self.decided.entry(decision.id.identity).or_default().push(decision);
    }

    /// Decides what a batch covers, and compares. The ledger is as it is before the batch is written.
    pub(crate) fn follow(&mut self, batch: &Batch, log: &Log, ledger: &Ledger) -> Result<(), String> {
        let (from, to) = (self.position.next_offset, batch.position.next_offset);
        let records = &log.records[log.index_of(from)..log.index_of(to)];
        let mut expected = Expected::default();
        for record in records {
            self.position.time = self.position.time.max(record.appended);
            self.position.last_offset = record.offset;
            self.position.last_digest = record.digest;
            self.position.next_offset = record.offset.next();
            self.decide(record, batch, ledger, &mut expected);
        }
        let suspect_until = batch.position.suspect_until;
        if batch.position != (Position { suspect_until, ..self.position }) {
            return Err(format!("I7: position {:?}, but the log says {:?}", batch.position, self.position));
        }
        expected.compare(batch)?;
        self.compare_stock(batch, &expected.touched)
    }

    fn decide(&mut self, record: &Record, batch: &Batch, ledger: &Ledger, expected: &mut Expected) {
        match &record.payload {
            Payload::Tick => {}
            Payload::StockAdded { coupon_id, load } => {
                self.add_stock(coupon_id, *load, record, batch, ledger, expected)
            }
            Payload::Unreadable { answer, .. } => {
                expected.dead_letters.push(record.offset);
                if let Some(Unanswered { id, user, coupon_id }) = answer {
                    let (user, coupon_id) = (user.clone(), coupon_id.clone());
                    let request = Request {
                        id: *id,
                        kind: Kind::Unknown,
                        coupon_id,
                        user,
                        code: None,
                        details: None,
                    };
                    self.answer(&request, record.offset, batch, ledger, expected);
                }
            }
            Payload::Request(request) => {
                self.answer(request, record.offset, batch, ledger, expected);
            }
        }
    }

    fn answer(
        &mut self,
        request: &Request,
        at: Offset,
        batch: &Batch,
        ledger: &Ledger,
        expected: &mut Expected,
    ) {
        let earlier = self.decided.get(&request.id.identity).map_or(&[][..], Vec::as_slice);
        if let Some(stored) = earlier.iter().find(|decision| decision.id == request.id) {
            expected.repeated.push(stored.clone());
            return;
        }
        let plain = request.kind == Kind::Claim && request.code.is_none();
        let refused = request.user.starts_with(REFUSED) && (plain || !earlier.is_empty());
        let (coupon, verdict) = if refused {
            if expected.dead_letters.last() != Some(&at) {
                expected.dead_letters.push(at);
            }
            (None, Verdict::Rejected(Reason::Unprocessable))
        } else if !earlier.is_empty() {
            (None, Verdict::Rejected(Reason::IdempotencyKeyReused))
        } else if !plain {
            (None, Verdict::Rejected(Reason::Unprocessable))
        } else {
            self.claim(request, at, batch, ledger, expected)
        };
        let (coupon_id, user) = (request.coupon_id.clone(), request.user.clone());
        let decided = self.position.time;
        let decision = Decision {
            id: request.id,
            kind: request.kind,
            coupon_id,
            coupon,
            user,
            offset: at,
            decided,
            verdict,
        };
        expected.decisions.push(decision.clone());
        self.remember(decision);
    }

    fn claim(
        &mut self,
        request: &Request,
        at: Offset,
        batch: &Batch,
        ledger: &Ledger,
        expected: &mut Expected,
    ) -> (Option<CouponNo>, Verdict) {
        let known = ledger.by_id(&request.coupon_id).filter(|(_, coupon)| {
            // One that was made after the request was appended may have been seen, or not.
            coupon.since <= at
                || !batch.decisions.iter().any(|decision| decision.offset == at && decision.coupon.is_none())
        });
        let Some((no, _)) = known else { return (None, Verdict::Rejected(Reason::CouponUnknown)) };
        let now = self.position.time;
        let coupon = self.coupon(no, ledger);
        let live = coupon.users.get(&request.user).copied().unwrap_or(0);
        let full = coupon.definition.claims_per_user.is_some_and(|limit| live >= limit);
        let verdict = match (coupon.definition.open_at(now), coupon.free.is_empty()) {
            (Err(reason), _) => Verdict::Rejected(reason),
            (Ok(()), true) => Verdict::Rejected(Reason::SoldOut),
            (Ok(()), false) if full => Verdict::Rejected(Reason::UserLimitReached),
            (Ok(()), false) => {
                let hold_until = coupon.definition.hold_from(now);
                let number = coupon.free.pop_first().unwrap_or_default();
                *coupon.users.entry(request.user.clone()).or_default() += 1;
                let number = CodeNumber(number);
                if number.0 > coupon.cursor {
                    coupon.cursor = number.0;
                } else {
                    expected.returned.push((no, number));
                }
                if coupon.free.is_empty() {
                    let (kind, coupon_id) = (EventKind::SoldOut, request.coupon_id.clone());
                    expected.events.push(Event {
                        kind,
                        coupon_id,
                        available: 0,
                        lapsed: None,
                        offset: at,
                        at: now,
                    });
                }
                expected.touched.push(no);
                Verdict::Claimed { number, code: code_of(no, number.0), hold_until }
            }
        };
        (Some(no), verdict)
    }

    fn add_stock(
        &mut self,
        coupon_id: &str,
        id: LoadId,
        record: &Record,
        batch: &Batch,
        ledger: &Ledger,
        expected: &mut Expected,
    ) {
        let now = self.position.time;
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
        let coupon = self.coupon(no, ledger);
        let base = coupon.top;
        coupon.top += load.count;
        coupon.free.extend(base + 1..=coupon.top);
        let available = coupon.free.len() as i64;
        expected.loads.push(LoadApplied { load: id, base });
        let kind = EventKind::Restocked;
        expected.events.push(Event {
            kind,
            coupon_id: coupon_id.into(),
            available,
            lapsed: None,
            offset: record.offset,
            at: now,
        });
        expected.touched.push(no);
    }

    /// A coupon as the ledger holds it when it is first needed; from then on by this owner's own books.
    fn coupon(&mut self, no: CouponNo, ledger: &Ledger) -> &mut Coupon {
        self.coupons.entry(no).or_insert_with(|| {
            let row = ledger.coupon(no).expect("a coupon that was found by its id");
            let sequence =
                (row.stock.cursor + 1..=row.stock.top).filter(|number| !row.ahead.contains(number));
            Coupon {
                definition: row.definition.clone(),
                top: row.stock.top,
                free: sequence.chain(row.returned.iter().copied()).collect(),
                cursor: row.stock.cursor,
                users: row.users.clone(),
            }
        })
    }

    fn compare_stock(&self, batch: &Batch, touched: &[CouponNo]) -> Result<(), String> {
        for change in &batch.stock {
            let Some(coupon) = self.coupons.get(&change.coupon).filter(|_| touched.contains(&change.coupon))
            else {
                return Err(format!("I1: {change:?}, but nothing happened to it"));
            };
            let free = coupon.free.len() as i64;
            let row = change.is;
            let whole = row.available() == free && row.claimed == coupon.top - free && row.top == coupon.top;
            if !whole || row.returned != coupon.free.range(..=row.cursor).count() as i64 {
                return Err(format!("I1: {change:?}, but free are {:?} of {}", coupon.free, coupon.top));
            }
        }
        let changed = |no: &&CouponNo| !batch.stock.iter().any(|change| change.coupon == **no);
        touched
            .iter()
            .find(changed)
            .map_or(Ok(()), |no| Err(format!("I1: coupon {no} changed and its row does not")))
    }

    /// The outcome of a request, once it is decided.
    pub(crate) fn outcome(&self, id: RequestId) -> Option<&Decision> {
        self.decided.get(&id.identity)?.iter().find(|decision| decision.id == id)
    }
}

impl Expected {
    fn compare(&self, batch: &Batch) -> Result<(), String> {
        let differing =
            self.decisions.iter().zip(&batch.decisions).find(|(expected, found)| expected != found);
        if let Some((expected, found)) = differing {
            return Err(format!("I2/I6/I8/I9: decided {found:?}, expected {expected:?}"));
        }
        if self.decisions.len() != batch.decisions.len() {
            let (expected, found) = (&self.decisions, &batch.decisions);
            return Err(format!(
                "I7: {} decisions instead of {}: {found:?}, {expected:?}",
                found.len(),
                expected.len()
            ));
        }
        if let Some(strange) = batch.repetitions.iter().find(|decision| !self.repeated.contains(decision)) {
            return Err(format!("I8: repeats {strange:?}, expected one of {:?}", self.repeated));
        }
        let letters: Vec<Offset> = batch.dead_letters.iter().map(|(offset, _)| *offset).collect();
        if letters != self.dead_letters {
            return Err(format!("I7: dead letters {letters:?}, expected {:?}", self.dead_letters));
        }
        if (&batch.events, &batch.loads) != (&self.events, &self.loads) {
            return Err(format!(
                "events {:?} and loads {:?}, expected {:?} and {:?}",
                batch.events, batch.loads, self.events, self.loads
            ));
        }
        if batch.returned_taken != self.returned {
            return Err(format!("I11: took back {:?}, expected {:?}", batch.returned_taken, self.returned));
        }
        Ok(())
    }
}
