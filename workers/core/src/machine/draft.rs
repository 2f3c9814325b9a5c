//! A batch in the making: what the decisions of its records leave in it.

use super::cache::Coupon;
use super::codes::Codes;
use super::prefetch::Ids;
use crate::domain::batch::{Batch, Decision, Event, EventKind, Lapsed, Position, StockRow, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::{CodeNumber, CouponNo, Millis, Offset};
use crate::domain::record::{Record, Request, UnreadableRequest};
use crate::domain::words::{Kind, Reason};

/// See the module's documentation.
pub(super) struct Draft {
    pub(super) batch: Batch,
    pub(super) ordinal: u64,
    pub(super) now: Millis,
    /// The record that is being decided; between two records, the first one that is not decided.
    pub(super) at: Offset,
    /// The codes that its records name, and what is done to them.
    pub(super) codes: Codes,
    /// Deadlines that have fired in it.
    pub(super) fired: usize,
    /// Coupons whose stock row changes.
    pub(super) touched: Vec<CouponNo>,
    /// The ids of the decisions made so far, as far as they were needed.
    pub(super) index: Ids,
    pub(super) indexed: usize,
}

impl Draft {
    pub(super) fn consumed(&mut self, record: &Record) {
        let position = &mut self.batch.position;
        *position = Position {
            next_offset: record.offset.next(),
            last_offset: record.offset,
            last_digest: record.digest,
            time: self.now,
            possible_duplicates_until: position.possible_duplicates_until,
        };
    }

    /// The stock row of this coupon is about to change.
    pub(super) fn touch(&mut self, coupon: &mut Coupon) {
        self.touch_as(coupon, coupon.stock.row());
    }

    pub(super) fn touch_as(&mut self, coupon: &mut Coupon, before: StockRow) {
        coupon.changed = self.ordinal;
        if coupon.before.is_none() {
            coupon.before = Some(before);
            self.touched.push(coupon.no);
        }
    }

    /// Notes a new claim, for what may still happen to it in this batch.
    pub(super) fn made(
        &mut self,
        request: &Request,
        coupon: CouponNo,
        number: CodeNumber,
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
        self.codes.made((coupon, number), claim, hold_until);
    }

    pub(super) fn refuse(
        &mut self,
        request: &mut Request,
        offset: Offset,
        coupon: Option<CouponNo>,
        reason: Reason,
    ) {
        self.decide(request, offset, coupon, Verdict::Rejected(reason));
    }

    /// Moves the request's texts into its decision: [`super::commit`] puts them back if the batch is undone.
    pub(super) fn decide(
        &mut self,
        request: &mut Request,
        offset: Offset,
        coupon: Option<CouponNo>,
        verdict: Verdict,
    ) {
        self.batch.decisions.push(Decision {
            id: request.id,
            kind: request.kind,
            coupon_id: std::mem::take(&mut request.coupon_id),
            coupon,
            user: std::mem::take(&mut request.user),
            offset,
            decided: self.now,
            verdict,
        });
    }

    pub(super) fn refuse_unread(&mut self, answer: &UnreadableRequest, offset: Offset, reason: Reason) {
        self.batch.decisions.push(Decision {
            id: answer.id,
            kind: Kind::Unknown,
            coupon_id: answer.coupon_id.clone(),
            coupon: None,
            user: answer.user.clone(),
            offset,
            decided: self.now,
            verdict: Verdict::Rejected(reason),
        });
    }

    /// After a code was taken: whether it was the last one that could be given.
    pub(super) fn sold_out_by_the_last(&mut self, coupon: &Coupon) {
        if coupon.stock.row().available() == 0 && !coupon.definition.is_shared() {
            self.event(EventKind::SoldOut, coupon);
        }
    }

    pub(super) fn event(&mut self, kind: EventKind, coupon: &Coupon) {
        let available = coupon.stock.row().available();
        let (coupon_id, offset, at) = (coupon.id.clone(), self.at, self.now);
        self.batch.events.push(Event { kind, coupon_id, available, lapsed: None, offset, at });
    }

    /// A claim has lapsed, in one way or the other, when `at` came.
    pub(super) fn lapse(&mut self, kind: EventKind, coupon: &Coupon, claim: &Claim, at: Millis) {
        let available = coupon.stock.row().available();
        let lapsed = Some(Lapsed { code: claim.code.clone(), user: claim.user.clone() });
        let (coupon_id, offset) = (coupon.id.clone(), self.at);
        self.batch.events.push(Event { kind, coupon_id, available, lapsed, offset, at });
    }
}
