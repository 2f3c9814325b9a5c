//! A batch while its records are executed.

use crate::domain::batch::{Batch, Decision, Event, EventKind, Lapsed, Position, StockRow, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::{CodeNumber, CouponNo, Millis, Offset, RequestId};
use crate::domain::record::{Record, Request, UnreadableRequest};
use crate::domain::words::{Kind, Reason};
use crate::machine::cache::Coupon;
use crate::machine::codes::Codes;
use crate::machine::duplicates::{DecidedIds, Duplicate};
use crate::machine::prefetch::Fetched;
use crate::planted::{Bug, Planted};

/// A batch while its records are executed.
pub(in crate::machine) struct Draft {
    pub(in crate::machine) batch: Batch,
    /// Ordinal of the batch within this ownership.
    pub(in crate::machine) ordinal: u64,
    /// The partition's time at the current record or lapse.
    pub(in crate::machine) now: Millis,
    /// The current record; between two records, the next one.
    pub(in crate::machine) at: Offset,
    /// The codes that the batch reads and changes.
    pub(in crate::machine) codes: Codes,
    /// Number of fired deadlines.
    pub(in crate::machine) fired: usize,
    /// Coupons whose stock rows change.
    pub(super) touched: Vec<CouponNo>,
    /// Users that this batch has added to the cache.
    pub(super) new_users: usize,
    pub(super) planted: Planted,
    /// Ids of the first `indexed` decisions; extended when they are needed.
    decided_ids: DecidedIds,
    indexed: usize,
}

impl Draft {
    pub(super) fn new(batch: Batch, ordinal: u64, codes: Codes, planted: Planted) -> Self {
        Self {
            now: batch.position.time,
            at: batch.position.next_offset,
            batch,
            ordinal,
            codes,
            fired: 0,
            touched: Vec::new(),
            new_users: 0,
            planted,
            decided_ids: DecidedIds::default(),
            indexed: 0,
        }
    }

    /// Moves the position past a record.
    pub(super) fn advance(&mut self, record: &Record) {
        let position = &mut self.batch.position;
        *position = Position {
            next_offset: record.offset.next(),
            last_offset: record.offset,
            last_digest: record.digest,
            time: self.now,
            possible_duplicates_until: position.possible_duplicates_until,
        };
    }

    /// The outcome of a request that was decided before; `None` for a new request.
    pub(super) fn duplicate_of(&mut self, id: RequestId, fetched: &Fetched) -> Option<Duplicate> {
        if self.planted.has(Bug::DeduplicationSkipped) {
            return None;
        }
        self.decided_ids.extend(&self.batch.decisions[self.indexed..]);
        self.indexed = self.batch.decisions.len();
        if self.decided_ids.contains(id) || fetched.in_flight_ids.contains(id) {
            return Some(Duplicate::InFlight);
        }
        if let Some(stored) = fetched.decided.get(id) {
            return Some(Duplicate::Stored(stored.clone()));
        }
        let reused = self.decided_ids.contains_identity(id.identity)
            || fetched.in_flight_ids.contains_identity(id.identity)
            || fetched.decided.contains_identity(id.identity);
        reused.then_some(Duplicate::KeyReused)
    }

    /// The stock row of this coupon is about to change.
    pub(super) fn touch(&mut self, coupon: &mut Coupon) {
        self.touch_from(coupon, coupon.stock.row());
    }

    /// The stock row of this coupon has changed from `before`, or is about to.
    pub(super) fn touch_from(&mut self, coupon: &mut Coupon, before: StockRow) {
        coupon.changed = self.ordinal;
        if coupon.before.is_none() {
            coupon.before = Some(before);
            self.touched.push(coupon.no);
        }
    }

    /// Records a new claim, for transitions that follow in this batch.
    pub(super) fn add_claim(
        &mut self,
        request: &Request,
        (coupon, number): (CouponNo, CodeNumber),
        code: &str,
        hold_until: Option<Millis>,
    ) {
        let claim = || Claim {
            id: request.id,
            coupon,
            number,
            code: code.into(),
            user: request.user.clone(),
            claimed: self.now,
            status: ClaimStatus::claimed(hold_until),
        };
        self.codes.add_claim((coupon, number), hold_until, claim);
    }

    /// Adds the decision of a request.
    pub(super) fn decide(&mut self, request: Request, coupon: Option<CouponNo>, verdict: Verdict) {
        let is_redeem = request.kind == Kind::Redeem;
        self.batch.decisions.push(Decision { request, coupon, offset: self.at, decided: self.now, verdict });
        if let Some(decision) = self.batch.decisions.last().filter(|_| is_redeem) {
            self.codes.add_redemption(decision);
        }
    }

    /// Adds the rejection of a request whose record is unreadable.
    pub(super) fn reject_unreadable(&mut self, request: &UnreadableRequest, reason: Reason) {
        let UnreadableRequest { id, user, coupon_id } = request.clone();
        let request = Request { id, kind: Kind::Unknown, coupon_id, user, code: None, details: None };
        self.decide(request, None, Verdict::Rejected(reason));
    }

    /// Adds an event if the code that was just taken was the last free one.
    pub(super) fn event_if_sold_out(&mut self, coupon: &Coupon) {
        if coupon.stock.row().available() == 0 && !coupon.definition.is_shared() {
            self.event(EventKind::SoldOut, coupon);
        }
    }

    pub(super) fn event(&mut self, kind: EventKind, coupon: &Coupon) {
        self.push_event(kind, coupon, None, self.now);
    }

    /// Adds the event of a lapse at this time.
    pub(in crate::machine) fn lapse_event(
        &mut self,
        kind: EventKind,
        coupon: &Coupon,
        claim: &Claim,
        at: Millis,
    ) {
        let lapsed = Lapsed { code: claim.code.clone(), user: claim.user.clone() };
        self.push_event(kind, coupon, Some(lapsed), at);
    }

    fn push_event(&mut self, kind: EventKind, coupon: &Coupon, lapsed: Option<Lapsed>, at: Millis) {
        let available = coupon.stock.row().available();
        let (coupon_id, offset) = (coupon.id.clone(), self.at);
        self.batch.events.push(Event { kind, coupon_id, available, lapsed, offset, at });
    }
}
