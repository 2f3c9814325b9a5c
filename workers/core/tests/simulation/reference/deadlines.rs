//! Deadlines: before a record is decided, all that have passed by its time have fired, one step after another, the
//! earliest first. A batch may go on beyond its last record, as far as the time of the next one, and stop anywhere.

use super::expected::Expected;
use super::performing::ended;
use super::{Reference, lapsed};
use crate::setup;
use coupon_core::batch::{Batch, EventKind};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CouponNo, Millis, Offset};
use coupon_core::words::ClaimState;

impl Reference {
    pub(super) fn fire_all(&mut self, now: Millis, expected: &mut Expected) {
        while self.fire_next(now, expected).is_some() {}
    }

    /// As many lapses as the batch says that happened after its last record.
    pub(super) fn fire_slice(
        &mut self,
        until: Millis,
        batch: &Batch,
        expected: &mut Expected,
    ) -> Result<(), String> {
        let is_lapse = |kind| matches!(kind, EventKind::HoldLapsed | EventKind::LockLapsed);
        let beyond = |offset| offset == self.position.next_offset;
        let lapses = batch.events.iter().filter(|event| is_lapse(event.kind) && beyond(event.offset)).count();
        for nth in 0..lapses {
            if self.fire_next(until, expected).is_none() {
                return Err(format!(
                    "I11: {lapses} lapses by {until} where there are only {nth}: {:?}",
                    batch.events
                ));
            }
        }
        self.coverage.saw_if(lapses > 0, "slice: lapses beyond the last record");
        Ok(())
    }

    /// The earliest deadline fires, if it has passed.
    fn fire_next(&mut self, now: Millis, expected: &mut Expected) -> Option<Millis> {
        let (deadline, no, number) = self.deadlines.first().copied().filter(|(at, ..)| *at <= now)?;
        let claim = self.claim_of(no, number).expect("a deadline belongs to a claim");
        self.position.time = self.position.time.max(deadline);
        let (terms, at) = (claim.status.clone(), self.position.next_offset);
        let silent = setup::SILENT.contains(&&*self.coupons[&no].id);
        self.coverage.saw_if(silent, "time: a lapse of a coupon that is seldom or never spoken of");
        if terms.state == ClaimState::Locked {
            let again = ClaimStatus { state: ClaimState::Claimed, order: None, ..terms.clone() };
            self.set_claim(no, number, again);
            let coupon = &self.coupons[&no];
            expected.event(EventKind::LockLapsed, coupon, lapsed(coupon, number, &claim.user), at, deadline);
            self.coverage.saw("LOCKED → CLAIMED by its deadline");
            let at_once = terms.hold_until.is_some_and(|hold| hold <= deadline);
            self.coverage.saw_if(at_once, "LOCKED → CLAIMED → RETURNED at once");
        } else {
            let over = ClaimStatus { lapsed: Some(deadline), ..ended(ClaimState::Returned) };
            self.set_claim(no, number, over);
            self.free_again(no, number, Some((&claim.user, deadline)), (at, self.position.time), expected);
            self.coverage.saw("CLAIMED → RETURNED by its deadline");
        }
        Some(deadline)
    }

    pub(super) fn claim_of(&self, no: CouponNo, number: i64) -> Option<Claim> {
        self.coupons.get(&no)?.known(number)?.claim.clone()
    }

    /// A live claim gets new terms.
    pub(super) fn set_claim(&mut self, no: CouponNo, number: i64, terms: ClaimStatus) {
        let coupon = self.coupons.get_mut(&no).expect("a coupon with a claim");
        self.net.touch(no, coupon);
        let code = coupon.code(number);
        let claim = code.claim.as_mut().expect("a live claim");
        let before = std::mem::replace(&mut claim.status, terms);
        if let Some(deadline) = before.deadline() {
            self.deadlines.remove(&(deadline, no, number));
        }
        if let Some(deadline) = claim.status.deadline() {
            self.deadlines.insert((deadline, no, number));
        }
        self.net.changed(&before, claim);
        if claim.status.state == ClaimState::Returned {
            if claim.status.lapsed.is_some() {
                code.lapsed.insert(claim.user.clone());
            }
            code.claim = None;
        }
    }

    /// The code of a claim that has ended goes back to stock; others are told, first of the lapse.
    pub(super) fn free_again(
        &mut self,
        no: CouponNo,
        number: i64,
        lapse: Option<(&str, Millis)>,
        (offset, now): (Offset, Millis),
        expected: &mut Expected,
    ) {
        let coupon = self.coupons.get_mut(&no).expect("a coupon with a claim");
        let first = coupon.available() == 0;
        coupon.put_back(number);
        if let Some((user, deadline)) = lapse {
            let told = lapsed(coupon, number, user);
            expected.event(EventKind::HoldLapsed, coupon, told, offset, deadline);
        }
        if first {
            expected.event(EventKind::Restocked, coupon, None, offset, now);
            self.coverage.saw_if(lapse.is_some(), "restocked by a lapse");
            self.coverage.saw_if(lapse.is_none(), "restocked by a return");
        }
    }
}
