//! What an accepted request changes, and how it is answered.

use super::Reference;
use super::books::Use;
use super::expected::Expected;
use super::requests::{Done, Redeemed};
use coupon_core::batch::{Changed, EventKind, Redemption, RolledBack, Verdict};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, Millis, Offset};
use coupon_core::record::Request;
use coupon_core::words::ClaimState;

/// A code, by its coupon and its number.
type Place = (CouponNo, i64);

impl Reference {
    pub(super) fn perform(
        &mut self,
        request: &Request,
        offset: Offset,
        place: Place,
        done: Done,
        expected: &mut Expected,
    ) -> Verdict {
        let coupon = self.coupons.get(&place.0).expect("a coupon of which something was judged");
        self.net.touch(place.0, coupon);
        let changed = match done {
            Done::GivenInSequence | Done::GivenAgain | Done::GivenByName => {
                return self.give(request, offset, place, &done, expected);
            }
            Done::Locked => self.lock(request, place),
            Done::Unlocked => self.unlock(offset, place, expected),
            Done::Returned => self.give_back(offset, place, expected),
            Done::Redeemed(redemption) => self.redeem(request, place, redemption),
            Done::RolledBack(redemption) => self.roll_back(place, redemption),
            Done::Revoked => self.revoke(offset, place, expected),
        };
        Verdict::Changed(Box::new(changed))
    }

    fn give(
        &mut self,
        request: &Request,
        offset: Offset,
        (no, number): Place,
        done: &Done,
        expected: &mut Expected,
    ) -> Verdict {
        let now = self.position.time;
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        match done {
            Done::GivenInSequence => coupon.take_next(number),
            _ => coupon.take_out(number),
        }
        let by_name = request.code.is_some();
        self.coverage.saw(match (by_name, number > coupon.cursor) {
            (true, true) => "claim by name, above the cursor",
            (true, false) => "claim by name, returned",
            (false, _) if matches!(done, Done::GivenInSequence) => "claim of any, in sequence",
            (false, _) => "claim of any, returned",
        });
        let (code, hold_until) = (coupon.text(number), coupon.definition.hold_from(now));
        let claim = Claim {
            id: request.id,
            coupon: no,
            number: CodeNumber(number),
            code: code.clone(),
            user: request.user.clone(),
            claimed: now,
            status: ClaimStatus::claimed(hold_until),
        };
        self.net.made(&claim);
        coupon.code(number).claim = Some(claim);
        self.deadlines.extend(hold_until.map(|hold| (hold, no, number)));
        if coupon.available() == 0 {
            expected.event(EventKind::SoldOut, coupon, None, offset, now);
            self.coverage.saw_if(by_name, "sold out by a named claim");
        }
        Verdict::Claimed { number: CodeNumber(number), code, hold_until }
    }

    fn lock(&mut self, request: &Request, (no, number): Place) -> Changed {
        let claim = self.claim_of(no, number).expect("a claim to lock");
        let lock = Millis(self.position.time.0 + self.coupons[&no].definition.lock);
        let order = request.details.as_ref().and_then(|said| said.order.clone());
        self.coverage.saw(if order.is_some() {
            "CLAIMED → LOCKED for an order"
        } else {
            "CLAIMED → LOCKED"
        });
        self.coverage.saw_if(claim.status.lock_until.is_some(), "CLAIMED → LOCKED again after a lapse");
        let terms =
            ClaimStatus { state: ClaimState::Locked, lock_until: Some(lock), order, ..claim.status.clone() };
        self.set_claim(no, number, terms.clone());
        answered(&claim, &terms)
    }

    fn unlock(&mut self, offset: Offset, (no, number): Place, expected: &mut Expected) -> Changed {
        let claim = self.claim_of(no, number).expect("a claim to unlock");
        let now = self.position.time;
        let over = claim.status.hold_until.filter(|hold| *hold <= now);
        let terms = match over {
            Some(_) => ClaimStatus { lapsed: over, ..ended(ClaimState::Returned) },
            None => ClaimStatus::claimed(claim.status.hold_until),
        };
        self.set_claim(no, number, terms.clone());
        if let Some(hold) = over {
            self.free_again(no, number, Some((&claim.user, hold)), (offset, now), expected);
        }
        self.coverage.saw(if over.is_some() {
            "LOCKED → RETURNED by unlock"
        } else {
            "LOCKED → CLAIMED by unlock"
        });
        answered(&claim, &terms)
    }

    fn give_back(&mut self, offset: Offset, (no, number): Place, expected: &mut Expected) -> Changed {
        let claim = self.claim_of(no, number).expect("a claim to give back");
        let terms = ended(ClaimState::Returned);
        self.set_claim(no, number, terms.clone());
        self.free_again(no, number, None, (offset, self.position.time), expected);
        self.coverage.saw("CLAIMED → RETURNED by return");
        answered(&claim, &terms)
    }

    fn redeem(&mut self, request: &Request, (no, number): Place, redemption: Redemption) -> Changed {
        let claim = self.claim_of(no, number);
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        self.net.touch_mark(no, coupon, number);
        let (user, order, id) = (request.user.clone(), redemption.order.clone(), redemption.id);
        coupon.code(number).uses.push(Use { id, user, order });
        self.net.redeemed.insert(id);
        let rolled_back = false;
        self.redemptions
            .insert(id, Redeemed { coupon: no, number, redemption: redemption.clone(), rolled_back });
        let code = coupon.text(number);
        if let Some(claim) = &claim {
            let order = Some(redemption.order.clone());
            let locked = claim.status.lock_until.filter(|_| claim.status.state == ClaimState::Locked);
            let late = locked.is_some_and(|lock| lock < self.latest);
            self.coverage.saw_if(late, "time: redeemed in time, decided after the lock's end");
            let terms = ClaimStatus { order, ..ended(ClaimState::Redeemed) };
            self.coverage.saw(match (claim.status.state, &claim.status.order) {
                (ClaimState::Locked, Some(_)) => "LOCKED for an order → REDEEMED",
                (ClaimState::Locked, None) => "LOCKED → REDEEMED",
                _ => "CLAIMED → REDEEMED",
            });
            self.set_claim(no, number, terms);
        } else {
            let last = coupon.is_exhausted(number);
            if last {
                coupon.take_out(number);
            }
            self.coverage.saw(if last { "shared: the last use" } else { "shared: a use" });
        }
        Changed {
            number: CodeNumber(number),
            code,
            state: claim.as_ref().map(|_| ClaimState::Redeemed),
            claimed: claim.as_ref().map(|claim| claim.claimed),
            hold_until: None,
            lock_until: None,
            order: None,
            redemption: Some(redemption),
        }
    }

    fn roll_back(&mut self, (no, number): Place, redemption: Redemption) -> Changed {
        let (id, now) = (redemption.id, self.position.time);
        let claim = self.claim_of(no, number);
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        self.net.touch_mark(no, coupon, number);
        let (shared, was_exhausted) = (coupon.definition.is_shared(), coupon.is_exhausted(number));
        let code = coupon.code(number);
        code.uses.retain(|used| used.id != id);
        let revoked = code.revoked;
        if shared && was_exhausted && !revoked {
            coupon.put_back(number);
        }
        if let Some(redeemed) = self.redemptions.get_mut(&id) {
            redeemed.rolled_back = true;
        }
        self.net.rolled_back.push(RolledBack { id, at: now, made_here: self.net.redeemed.contains(&id) });
        let hold_until = claim.as_ref().and_then(|_| coupon.definition.hold_from(now));
        let text = coupon.text(number);
        self.coverage.saw(match (shared, was_exhausted, revoked, hold_until.is_some()) {
            (true, _, true, _) => "shared: rolled back after it was revoked",
            (true, true, ..) => "shared: the last use rolled back",
            (true, false, ..) => "shared: a use rolled back",
            (false, .., true) => "REDEEMED → CLAIMED with a fresh hold",
            (false, .., false) => "REDEEMED → CLAIMED",
        });
        if claim.is_some() {
            self.set_claim(no, number, ClaimStatus::claimed(hold_until));
        }
        Changed {
            number: CodeNumber(number),
            code: text,
            state: claim.as_ref().map(|_| ClaimState::Claimed),
            claimed: claim.as_ref().map(|claim| claim.claimed),
            hold_until,
            lock_until: None,
            order: None,
            redemption: Some(redemption),
        }
    }

    fn revoke(&mut self, offset: Offset, (no, number): Place, expected: &mut Expected) -> Changed {
        let claim = self.claim_of(no, number);
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        self.net.touch_mark(no, coupon, number);
        coupon.code(number).revoked = true;
        let shared = coupon.definition.is_shared();
        let Some(claim) = claim else {
            self.coverage.saw(match (shared, coupon.returned.contains(&number)) {
                (true, _) => "shared: revoked",
                (false, true) => "a returned code → REVOKED",
                (false, false) => "a free code → REVOKED",
            });
            coupon.take_out(number);
            if coupon.available() == 0 && !shared {
                expected.event(EventKind::SoldOut, coupon, None, offset, self.position.time);
                self.coverage.saw("sold out by a revoke");
            }
            return Changed {
                number: CodeNumber(number),
                code: coupon.text(number),
                state: Some(ClaimState::Revoked),
                claimed: None,
                hold_until: None,
                lock_until: None,
                order: None,
                redemption: None,
            };
        };
        let locked = claim.status.state == ClaimState::Locked;
        self.coverage.saw(if locked { "LOCKED → REVOKED" } else { "CLAIMED → REVOKED" });
        let terms = ended(ClaimState::Revoked);
        self.set_claim(no, number, terms.clone());
        answered(&claim, &terms)
    }
}

/// Of a claim in a state in which nothing can lapse.
pub(super) const fn ended(state: ClaimState) -> ClaimStatus {
    ClaimStatus { state, hold_until: None, lock_until: None, order: None, lapsed: None }
}

/// How a request left a claim.
fn answered(claim: &Claim, terms: &ClaimStatus) -> Changed {
    Changed {
        number: claim.number,
        code: claim.code.clone(),
        state: Some(terms.state),
        claimed: Some(claim.claimed),
        hold_until: terms.hold_until,
        lock_until: terms.lock_until,
        order: terms.order.clone(),
        redemption: None,
    }
}
