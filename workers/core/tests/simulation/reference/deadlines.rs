//! Deadlines. Before a record is decided, every deadline up to its time fires, the earliest first, one transition each.
//! After its last record, a batch may fire any number of the deadlines up to the time of the next record.

use super::Reference;
use super::apply::without_deadline;
use super::coupon::Coupon;
use super::expected::ExpectedOutput;
use crate::plan::IDLE_COUPONS;
use coupon_core::batch::{Batch, EventKind, Lapsed};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CouponNo, Millis, Offset};
use coupon_core::words::ClaimState;

impl Reference {
    pub(super) fn fire_all_due(&mut self, now: Millis, expected: &mut ExpectedOutput) {
        while self.fire_next(now, expected).is_some() {}
    }

    /// Fires as many deadlines as the batch contains lapses after its last record.
    pub(super) fn fire_after_last_record(
        &mut self,
        until: Millis,
        batch: &Batch,
        expected: &mut ExpectedOutput,
    ) -> Result<(), String> {
        let is_lapse = |kind| matches!(kind, EventKind::HoldLapsed | EventKind::LockLapsed);
        let after = |offset| offset == self.position.next_offset;
        let lapses = batch.events.iter().filter(|event| is_lapse(event.kind) && after(event.offset)).count();
        for fired in 0..lapses {
            if self.fire_next(until, expected).is_none() {
                let events = &batch.events;
                return Err(format!("I11: {lapses} lapses by {until}, expected at most {fired}: {events:?}"));
            }
        }
        self.coverage.count_if(lapses > 0, "deadlines: lapses after the last record of a batch");
        Ok(())
    }

    /// Fires the earliest deadline, if it is not later than `now`.
    fn fire_next(&mut self, now: Millis, expected: &mut ExpectedOutput) -> Option<Millis> {
        let (deadline, no, number) = self.deadlines.first().copied().filter(|(at, ..)| *at <= now)?;
        let claim = self.claim_of(no, number).expect("a deadline belongs to a claim");
        self.position.time = self.position.time.max(deadline);
        let (status, at) = (claim.status.clone(), self.position.next_offset);
        let idle = IDLE_COUPONS.contains(&&*self.coupons[&no].id);
        self.coverage.count_if(idle, "deadlines: a lapse of a coupon with few or no requests");
        if status.state == ClaimState::Locked {
            let unlocked = ClaimStatus { state: ClaimState::Claimed, order: None, ..status.clone() };
            self.set_status(no, number, unlocked);
            let coupon = &self.coupons[&no];
            let lapsed = lapsed(coupon, number, &claim.user);
            expected.event(EventKind::LockLapsed, coupon, Some(lapsed), at, deadline);
            self.coverage.count("LOCKED → CLAIMED by its deadline");
            let hold_over = status.hold_until.is_some_and(|hold| hold <= deadline);
            self.coverage.count_if(hold_over, "LOCKED → CLAIMED → RETURNED at the same deadline");
        } else {
            let returned = ClaimStatus { lapsed: Some(deadline), ..without_deadline(ClaimState::Returned) };
            self.set_status(no, number, returned);
            let lapse = Some((&*claim.user, deadline));
            self.put_back(no, number, lapse, (at, self.position.time), expected);
            self.coverage.count("CLAIMED → RETURNED by its deadline");
        }
        Some(deadline)
    }

    pub(super) fn claim_of(&self, no: CouponNo, number: i64) -> Option<Claim> {
        self.coupons.get(&no)?.code(number)?.claim.clone()
    }

    /// Changes the status of a live claim.
    pub(super) fn set_status(&mut self, no: CouponNo, number: i64, status: ClaimStatus) {
        let coupon = self.coupons.get_mut(&no).expect("a coupon with a claim");
        self.changes.keep_stock(no, coupon);
        let code = coupon.code_mut(number);
        let claim = code.claim.as_mut().expect("a live claim");
        let before = std::mem::replace(&mut claim.status, status);
        if let Some(deadline) = before.deadline() {
            self.deadlines.remove(&(deadline, no, number));
        }
        if let Some(deadline) = claim.status.deadline() {
            self.deadlines.insert((deadline, no, number));
        }
        self.changes.claim_changed(&before, claim);
        if claim.status.state == ClaimState::Returned {
            if claim.status.lapsed.is_some() {
                code.lapsed.insert(claim.user.clone());
            }
            code.claim = None;
        }
    }

    /// Returns the code of an ended claim to stock. The events are first the lapse, then the restock.
    pub(super) fn put_back(
        &mut self,
        no: CouponNo,
        number: i64,
        lapse: Option<(&str, Millis)>,
        (offset, now): (Offset, Millis),
        expected: &mut ExpectedOutput,
    ) {
        let coupon = self.coupons.get_mut(&no).expect("a coupon with a claim");
        let was_sold_out = coupon.available() == 0;
        coupon.put_back(number);
        if let Some((user, deadline)) = lapse {
            let lapsed = lapsed(coupon, number, user);
            expected.event(EventKind::HoldLapsed, coupon, Some(lapsed), offset, deadline);
        }
        if was_sold_out {
            expected.event(EventKind::Restocked, coupon, None, offset, now);
            self.coverage.count_if(lapse.is_some(), "restocked by a lapse");
            self.coverage.count_if(lapse.is_none(), "restocked by a return");
        }
    }
}

fn lapsed(coupon: &Coupon, number: i64, user: &str) -> Lapsed {
    Lapsed { code: coupon.code_text(number), user: user.into() }
}
