//! What an accepted request changes, and the outcome that it gets.

use super::Reference;
use super::coupon::Use;
use super::expected::ExpectedOutput;
use super::rules::{Operation, StoredRedemption};
use coupon_core::batch::{Changed, EventKind, Redemption, RolledBack, Verdict};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, Millis, Offset};
use coupon_core::record::Request;
use coupon_core::words::ClaimState;

/// A code, by its coupon and its number.
type CodeRef = (CouponNo, i64);

impl Reference {
    pub(super) fn apply(
        &mut self,
        request: &Request,
        offset: Offset,
        code: CodeRef,
        operation: Operation,
        expected: &mut ExpectedOutput,
    ) -> Verdict {
        let coupon = self.coupons.get(&code.0).expect("an evaluated request has a coupon");
        self.changes.keep_stock(code.0, coupon);
        let changed = match operation {
            Operation::TakeNext | Operation::TakeReturned | Operation::TakeNamed => {
                return self.claim(request, offset, code, &operation, expected);
            }
            Operation::Lock => self.lock(request, code),
            Operation::Unlock => self.unlock(offset, code, expected),
            Operation::Return => self.return_code(offset, code, expected),
            Operation::Redeem(redemption) => self.redeem(request, code, redemption),
            Operation::RollBack(redemption) => self.roll_back(code, redemption),
            Operation::Revoke => self.revoke(offset, code, expected),
        };
        Verdict::Changed(Box::new(changed))
    }

    fn claim(
        &mut self,
        request: &Request,
        offset: Offset,
        (no, number): CodeRef,
        operation: &Operation,
        expected: &mut ExpectedOutput,
    ) -> Verdict {
        let now = self.position.time;
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        match operation {
            Operation::TakeNext => coupon.take_next(number),
            _ => coupon.take(number),
        }
        let by_code = request.code.is_some();
        self.coverage.count(match (by_code, number > coupon.cursor) {
            (true, true) => "claim by code, above the cursor",
            (true, false) => "claim by code, returned",
            (false, _) if matches!(operation, Operation::TakeNext) => "claim, next in sequence",
            (false, _) => "claim, returned",
        });
        let (code, hold_until) = (coupon.code_text(number), coupon.definition.hold_from(now));
        let claim = Claim {
            id: request.id,
            coupon: no,
            number: CodeNumber(number),
            code: code.clone(),
            user: request.user.clone(),
            claimed: now,
            status: ClaimStatus::claimed(hold_until),
        };
        self.changes.claim_created(&claim);
        coupon.code_mut(number).claim = Some(claim);
        self.deadlines.extend(hold_until.map(|hold| (hold, no, number)));
        if coupon.available() == 0 {
            expected.event(EventKind::SoldOut, coupon, None, offset, now);
            self.coverage.count_if(by_code, "sold out by a claim by code");
        }
        Verdict::Claimed { number: CodeNumber(number), code, hold_until }
    }

    fn lock(&mut self, request: &Request, (no, number): CodeRef) -> Changed {
        let claim = self.claim_of(no, number).expect("a claim to lock");
        let lock_until = Some(Millis(self.position.time.0 + self.coupons[&no].definition.lock));
        let order = request.details.as_ref().and_then(|details| details.order.clone());
        let for_order = order.is_some();
        self.coverage.count(if for_order { "CLAIMED → LOCKED for an order" } else { "CLAIMED → LOCKED" });
        let again = claim.status.lock_until.is_some();
        self.coverage.count_if(again, "CLAIMED → LOCKED again after a lapse");
        let status = ClaimStatus { state: ClaimState::Locked, lock_until, order, ..claim.status.clone() };
        self.set_status(no, number, status.clone());
        changed_claim(&claim, &status)
    }

    fn unlock(&mut self, offset: Offset, (no, number): CodeRef, expected: &mut ExpectedOutput) -> Changed {
        let claim = self.claim_of(no, number).expect("a claim to unlock");
        let now = self.position.time;
        let passed_hold = claim.status.hold_until.filter(|hold| *hold <= now);
        let status = match passed_hold {
            Some(_) => ClaimStatus { lapsed: passed_hold, ..without_deadline(ClaimState::Returned) },
            None => ClaimStatus::claimed(claim.status.hold_until),
        };
        self.set_status(no, number, status.clone());
        if let Some(hold) = passed_hold {
            self.put_back(no, number, Some((&claim.user, hold)), (offset, now), expected);
        }
        self.coverage.count(if passed_hold.is_some() {
            "LOCKED → RETURNED by unlock"
        } else {
            "LOCKED → CLAIMED by unlock"
        });
        changed_claim(&claim, &status)
    }

    fn return_code(
        &mut self,
        offset: Offset,
        (no, number): CodeRef,
        expected: &mut ExpectedOutput,
    ) -> Changed {
        let claim = self.claim_of(no, number).expect("a claim to return");
        let status = without_deadline(ClaimState::Returned);
        self.set_status(no, number, status.clone());
        self.put_back(no, number, None, (offset, self.position.time), expected);
        self.coverage.count("CLAIMED → RETURNED by return");
        changed_claim(&claim, &status)
    }

    fn redeem(&mut self, request: &Request, (no, number): CodeRef, redemption: Redemption) -> Changed {
        let claim = self.claim_of(no, number);
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        self.changes.keep_flags(no, coupon, number);
        let (user, order, id) = (request.user.clone(), redemption.order.clone(), redemption.id);
        coupon.code_mut(number).uses.push(Use { id, user, order });
        self.changes.redeemed.insert(id);
        let stored =
            StoredRedemption { coupon: no, number, redemption: redemption.clone(), rolled_back: false };
        self.redemptions.insert(id, stored);
        let code = coupon.code_text(number);
        if let Some(claim) = &claim {
            let order = Some(redemption.order.clone());
            let locked = claim.status.lock_until.filter(|_| claim.status.state == ClaimState::Locked);
            let late = locked.is_some_and(|lock| lock < self.broker_time);
            self.coverage.count_if(late, "time: redeemed in time, decided after the end of the lock");
            self.coverage.count(match (claim.status.state, &claim.status.order) {
                (ClaimState::Locked, Some(_)) => "LOCKED for an order → REDEEMED",
                (ClaimState::Locked, None) => "LOCKED → REDEEMED",
                _ => "CLAIMED → REDEEMED",
            });
            self.set_status(no, number, ClaimStatus { order, ..without_deadline(ClaimState::Redeemed) });
        } else {
            let last = coupon.is_used_up(number);
            if last {
                coupon.take(number);
            }
            self.coverage.count(if last { "shared: the last use" } else { "shared: a use" });
        }
        Changed {
            state: claim.as_ref().map(|_| ClaimState::Redeemed),
            claimed: claim.as_ref().map(|claim| claim.claimed),
            redemption: Some(redemption),
            ..changed_code(number, code)
        }
    }

    fn roll_back(&mut self, (no, number): CodeRef, redemption: Redemption) -> Changed {
        let (id, now) = (redemption.id, self.position.time);
        let claim = self.claim_of(no, number);
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        self.changes.keep_flags(no, coupon, number);
        let (shared, was_used_up) = (coupon.definition.is_shared(), coupon.is_used_up(number));
        let code = coupon.code_mut(number);
        code.uses.retain(|used| used.id != id);
        let revoked = code.revoked;
        if shared && was_used_up && !revoked {
            coupon.put_back(number);
        }
        if let Some(stored) = self.redemptions.get_mut(&id) {
            stored.rolled_back = true;
        }
        let made_here = self.changes.redeemed.contains(&id);
        self.changes.rolled_back.push(RolledBack { id, at: now, made_here });
        let hold_until = claim.as_ref().and_then(|_| coupon.definition.hold_from(now));
        let code = coupon.code_text(number);
        self.coverage.count(match (shared, was_used_up, revoked, hold_until.is_some()) {
            (true, _, true, _) => "shared: rolled back after it was revoked",
            (true, true, ..) => "shared: the last use rolled back",
            (true, false, ..) => "shared: a use rolled back",
            (false, .., true) => "REDEEMED → CLAIMED with a fresh hold",
            (false, .., false) => "REDEEMED → CLAIMED",
        });
        if claim.is_some() {
            self.set_status(no, number, ClaimStatus::claimed(hold_until));
        }
        Changed {
            state: claim.as_ref().map(|_| ClaimState::Claimed),
            claimed: claim.as_ref().map(|claim| claim.claimed),
            hold_until,
            redemption: Some(redemption),
            ..changed_code(number, code)
        }
    }

    fn revoke(&mut self, offset: Offset, (no, number): CodeRef, expected: &mut ExpectedOutput) -> Changed {
        let claim = self.claim_of(no, number);
        let coupon = self.coupons.get_mut(&no).expect("a coupon");
        self.changes.keep_flags(no, coupon, number);
        coupon.code_mut(number).revoked = true;
        let shared = coupon.definition.is_shared();
        let Some(claim) = claim else {
            self.coverage.count(match (shared, coupon.returned.contains(&number)) {
                (true, _) => "shared: revoked",
                (false, true) => "a returned code → REVOKED",
                (false, false) => "a free code → REVOKED",
            });
            coupon.take(number);
            if coupon.available() == 0 && !shared {
                expected.event(EventKind::SoldOut, coupon, None, offset, self.position.time);
                self.coverage.count("sold out by a revoke");
            }
            let code = coupon.code_text(number);
            return Changed { state: Some(ClaimState::Revoked), ..changed_code(number, code) };
        };
        let locked = claim.status.state == ClaimState::Locked;
        self.coverage.count(if locked { "LOCKED → REVOKED" } else { "CLAIMED → REVOKED" });
        let status = without_deadline(ClaimState::Revoked);
        self.set_status(no, number, status.clone());
        changed_claim(&claim, &status)
    }
}

/// The status of a claim in a state in which nothing can lapse.
pub(super) const fn without_deadline(state: ClaimState) -> ClaimStatus {
    ClaimStatus { state, hold_until: None, lock_until: None, order: None, lapsed: None }
}

/// The outcome of a request that changed a code, with all optional fields empty.
const fn changed_code(number: i64, code: Box<str>) -> Changed {
    Changed {
        number: CodeNumber(number),
        code,
        state: None,
        claimed: None,
        hold_until: None,
        lock_until: None,
        order: None,
        redemption: None,
    }
}

/// The outcome of a request that gave a claim this status.
fn changed_claim(claim: &Claim, status: &ClaimStatus) -> Changed {
    Changed {
        state: Some(status.state),
        claimed: Some(claim.claimed),
        hold_until: status.hold_until,
        lock_until: status.lock_until,
        order: status.order.clone(),
        ..changed_code(claim.number.0, claim.code.clone())
    }
}
