//! Claims and redemptions from before the run, in every state. Their requests are sent again during the run, and some of
//! their deadlines pass as soon as it starts.

use crate::environment::ledger::{Ledger, code_key};
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::{Changed, CodeFlags, Decision, Redemption, Verdict};
use coupon_core::claim::ClaimStatus;
use coupon_core::ids::{CodeNumber, CouponNo, Millis, Offset, RequestId};
use coupon_core::money;
use coupon_core::record::{Details, Request};
use coupon_core::words::{ClaimState, Kind};

/// A code, by its coupon and its number.
type CodeRef = (CouponNo, i64);

/// Writes the history of codes to the ledger, and its requests to the traffic.
pub(super) struct History<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) ledger: &'a mut Ledger,
    pub(super) traffic: &'a mut Traffic,
    /// The time at which the run starts.
    pub(super) start: Millis,
}

impl History<'_> {
    /// Of a code that is not free: it is claimed, revoked or used up.
    pub(super) fn of_taken_code(&mut self, code: CodeRef) {
        let (no, number) = (code.0, CodeNumber(code.1));
        let definition = self.ledger.coupons[no.0 as usize - 1].definition.clone();
        if definition.is_shared() {
            let limit = definition.redemptions_per_code.unwrap_or(0);
            return self.of_shared_code(code, limit);
        }
        if self.rng.chance(60) {
            return self.ledger.set_flags(no, number, CodeFlags { uses: 0, revoked: true });
        }
        let status = self.status(definition.hold.is_some());
        if status.state == ClaimState::Revoked {
            self.ledger.set_flags(no, number, CodeFlags { uses: 0, revoked: true });
        }
        let redeemed = status.state == ClaimState::Redeemed;
        let claimed = self.claim(code, status);
        if redeemed {
            self.redemption(code, 0, Some(claimed));
        }
    }

    fn of_shared_code(&mut self, code: CodeRef, limit: u32) {
        let revoked = limit == 0 || self.rng.chance(300);
        let uses = if revoked { self.rng.below(limit as usize + 1) as u32 } else { limit };
        for nth in 0..uses {
            self.redemption(code, nth, None);
        }
        self.ledger.set_flags(code.0, CodeNumber(code.1), CodeFlags { uses: i64::from(uses), revoked });
    }

    /// Of a code that is free again: in some cases it had a claim that lapsed or was returned.
    pub(super) fn of_returned_code(&mut self, code: CodeRef) {
        if self.rng.chance(600) {
            let lapsed = self.rng.chance(500).then(|| Millis(self.start.0 - self.rng.between(0, 10_000)));
            let status = ClaimStatus { state: ClaimState::Returned, lapsed, ..ClaimStatus::claimed(lapsed) };
            self.claim(code, status);
        }
    }

    /// A random status of a live claim.
    fn status(&mut self, has_hold: bool) -> ClaimStatus {
        let (rng, start) = (&mut *self.rng, self.start);
        // Deadlines are whole seconds, so that several coincide.
        let hold_until = has_hold.then(|| Millis(start.0 + 1_000 * rng.between(0, 60)));
        let mut status = ClaimStatus::claimed(hold_until);
        match rng.below(10) {
            0..5 => {}
            5..7 => {
                status.state = ClaimState::Locked;
                status.lock_until = Some(Millis(start.0 + 1_000 * rng.between(0, 40)));
                status.order = rng.chance(500).then(|| "order-0".into());
                // In some cases the hold ended while the code was locked.
                status.hold_until = hold_until.map(|hold| Millis(hold.0 - *rng.pick(&[0, 60_000])));
            }
            7..9 => {
                status.state = ClaimState::Redeemed;
                status.order = Some("order-0".into());
            }
            _ => status.state = ClaimState::Revoked,
        }
        if status.state == ClaimState::Claimed && rng.chance(200) {
            status.lock_until = Some(Millis(start.0 - rng.between(0, 10_000)));
        }
        status
    }

    /// Stores a claim and returns the time at which it was made.
    fn claim(&mut self, (no, number): CodeRef, status: ClaimStatus) -> Millis {
        let decided = Millis(self.start.0 - self.rng.between(0, 100_000));
        let id = self.id(decided);
        let coupon = &self.ledger.coupons[no.0 as usize - 1];
        let (coupon_id, code) = (coupon.id.clone(), coupon.code_text(number));
        let user = user_of(number);
        let request = Request {
            id,
            kind: Kind::Claim,
            coupon_id: coupon_id.clone(),
            user: user.clone(),
            code: None,
            details: None,
        };
        let verdict = Verdict::Claimed { number: CodeNumber(number), code, hold_until: status.hold_until };
        let (coupon, offset, kind) = (Some(no), Offset(number), Kind::Claim);
        let decision = Decision {
            request: Request { id, kind, coupon_id, user, code: None, details: None },
            coupon,
            offset,
            decided,
            verdict,
        };
        let day = decision.decided.day();
        self.ledger.store(decision, day, Some(status), None);
        self.traffic.record_sent(request);
        decided
    }

    /// Stores the `nth` redemption of a code. `claimed` is the time of its claim; a shared code has none.
    fn redemption(&mut self, (no, number): CodeRef, nth: u32, claimed: Option<Millis>) {
        let start = self.start.0;
        let decided = Millis(match claimed {
            Some(claimed) => self.rng.between(claimed.0, start),
            None => start - self.rng.between(0, 9_000),
        });
        let id = self.id(decided);
        let coupon = &self.ledger.coupons[no.0 as usize - 1];
        let (coupon_id, code) = (coupon.id.clone(), coupon.code_text(number));
        let key = coupon.load_and_index(number).map(|(load, idx)| code_key(load, idx));
        let user = if claimed.is_some() { user_of(number) } else { format!("u{nth}").into() };
        let (order, currency): (Box<str>, Box<str>) = (format!("order-{nth}").into(), "EUR".into());
        let amount = money::parse("25.00").expect("an amount");
        let discount = money::parse("2.50").expect("an amount");
        let redemption = Redemption {
            id,
            order: order.clone(),
            amount,
            discount,
            final_price: amount - discount,
            currency: currency.clone(),
            redeemed: decided,
        };
        let details =
            Details { order: Some(order), amount: Some(amount), currency: Some(currency), redemption: None };
        let changed = Changed {
            number: CodeNumber(number),
            code,
            state: claimed.map(|_| ClaimState::Redeemed),
            claimed,
            hold_until: None,
            lock_until: None,
            order: None,
            redemption: Some(redemption),
        };
        let request = Request {
            id,
            kind: Kind::Redeem,
            coupon_id: coupon_id.clone(),
            user: user.clone(),
            code: key,
            details: Some(Box::new(details)),
        };
        let (coupon, offset, kind) = (Some(no), Offset(number), Kind::Redeem);
        let verdict = Verdict::Changed(Box::new(changed));
        let decision = Decision {
            request: Request { id, kind, coupon_id, user, code: None, details: None },
            coupon,
            offset,
            decided,
            verdict,
        };
        let day = decision.decided.day();
        self.ledger.store(decision, day, None, None);
        self.traffic.record_sent(request);
    }

    fn id(&mut self, decided: Millis) -> RequestId {
        let rng = &mut *self.rng;
        let minted = decided.0 - rng.between(0, 500);
        if rng.chance(500) {
            RequestId { identity: rng.wide(), body: 5 }
        } else {
            RequestId { identity: (u128::from(minted.unsigned_abs()) << 80) | (rng.wide() >> 48), body: 0 }
        }
    }
}

fn user_of(number: i64) -> Box<str> {
    format!("initial-{number}").into()
}
