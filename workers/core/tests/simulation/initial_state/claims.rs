//! Claims and redemptions from before the run, in every state. Their users will come again, with the same requests or
//! with others, and some of their deadlines pass as soon as the run begins.

use crate::ledger::Ledger;
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::{Changed, CodeFlags, Decision, Redemption, Verdict};
use coupon_core::claim::ClaimStatus;
use coupon_core::ids::{CodeNumber, CouponNo, Millis, Offset, RequestId};
use coupon_core::money;
use coupon_core::record::{Details, Request};
use coupon_core::words::{ClaimState, Kind};

/// A code, by its coupon and its number.
type Place = (CouponNo, i64);

/// A code that is not free: somebody has it, or it was withdrawn, or its uses are exhausted.
pub(crate) fn taken_code(
    rng: &mut Rng,
    ledger: &mut Ledger,
    traffic: &mut Traffic,
    place: Place,
    start: Millis,
) {
    let (no, number) = (place.0, CodeNumber(place.1));
    let definition = ledger.coupons[no.0 as usize - 1].definition.clone();
    if definition.is_shared() {
        let limit = definition.redemptions_per_code.unwrap_or(0);
        let revoked = limit == 0 || rng.chance(300);
        let uses = if revoked { rng.below(limit as usize + 1) as u32 } else { limit };
        for nth in 0..uses {
            redemption(rng, ledger, traffic, (place, nth), None, start);
        }
        return ledger.set_mark(no, number, CodeFlags { uses: i64::from(uses), revoked });
    }
    if rng.chance(60) {
        return ledger.set_mark(no, number, CodeFlags { uses: 0, revoked: true });
    }
    // Whole seconds, so that several fall together.
    let hold_until = definition.hold.map(|_| Millis(start.0 + 1_000 * rng.between(0, 60)));
    let mut terms = ClaimStatus::claimed(hold_until);
    match rng.below(10) {
        0..5 => {}
        5..7 => {
            terms.state = ClaimState::Locked;
            terms.lock_until = Some(Millis(start.0 + 1_000 * rng.between(0, 40)));
            terms.order = rng.chance(500).then(|| "order-0".into());
            // A hold that passed while the code was locked.
            terms.hold_until = hold_until.map(|hold| Millis(hold.0 - *rng.pick(&[0, 60_000])));
        }
        7..9 => {
            terms.state = ClaimState::Redeemed;
            terms.order = Some("order-0".into());
        }
        _ => {
            terms.state = ClaimState::Revoked;
            ledger.set_mark(no, number, CodeFlags { uses: 0, revoked: true });
        }
    }
    if terms.state == ClaimState::Claimed && rng.chance(200) {
        terms.lock_until = Some(Millis(start.0 - rng.between(0, 10_000)));
    }
    let redeemed = terms.state == ClaimState::Redeemed;
    let claimed = claim(rng, ledger, traffic, place, terms, start);
    if redeemed {
        redemption(rng, ledger, traffic, (place, 0), Some(claimed), start);
    }
}

/// A code that is free again: somebody had it, perhaps too long.
pub(crate) fn returned_code(
    rng: &mut Rng,
    ledger: &mut Ledger,
    traffic: &mut Traffic,
    place: Place,
    start: Millis,
) {
    if rng.chance(600) {
        let over = rng.chance(500).then(|| Millis(start.0 - rng.between(0, 10_000)));
        let terms = ClaimStatus { state: ClaimState::Returned, lapsed: over, ..ClaimStatus::claimed(over) };
        claim(rng, ledger, traffic, place, terms, start);
    }
}

/// Answers when it was claimed.
fn claim(
    rng: &mut Rng,
    ledger: &mut Ledger,
    traffic: &mut Traffic,
    (no, number): Place,
    terms: ClaimStatus,
    start: Millis,
) -> Millis {
    let coupon = &ledger.coupons[no.0 as usize - 1];
    let decided = Millis(start.0 - rng.between(0, 100_000));
    let id = id(rng, decided);
    let (coupon_id, code) = (coupon.id.clone(), coupon.text(number));
    let user: Box<str> = format!("early-{number}").into();
    let request = Request {
        id,
        kind: Kind::Claim,
        coupon_id: coupon_id.clone(),
        user: user.clone(),
        code: None,
        details: None,
    };
    let verdict = Verdict::Claimed { number: CodeNumber(number), code, hold_until: terms.hold_until };
    let (coupon, offset, kind) = (Some(no), Offset(number), Kind::Claim);
    let decision = Decision { id, kind, coupon_id, coupon, user, offset, decided, verdict };
    ledger.store(decision, Some(terms), None);
    traffic.remember(request);
    decided
}

fn redemption(
    rng: &mut Rng,
    ledger: &mut Ledger,
    traffic: &mut Traffic,
    ((no, number), nth): (Place, u32),
    claimed: Option<Millis>,
    start: Millis,
) {
    let coupon = &ledger.coupons[no.0 as usize - 1];
    let decided =
        Millis(claimed.map_or(start.0 - rng.between(0, 9_000), |claimed| rng.between(claimed.0, start.0)));
    let id = id(rng, decided);
    let (coupon_id, code) = (coupon.id.clone(), coupon.text(number));
    let key = coupon.place(number).map(|(load, idx)| crate::ledger::key(load, idx));
    let user: Box<str> = if claimed.is_some() { format!("early-{number}") } else { format!("u{nth}") }.into();
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
    ledger.store(Decision { id, kind, coupon_id, coupon, user, offset, decided, verdict }, None, None);
    traffic.remember(request);
}

fn id(rng: &mut Rng, decided: Millis) -> RequestId {
    let minted = decided.0 - rng.between(0, 500);
    if rng.chance(500) {
        RequestId { identity: rng.wide(), body: 5 }
    } else {
        RequestId { identity: (u128::from(minted.unsigned_abs()) << 80) | (rng.wide() >> 48), body: 0 }
    }
}
