//! What people do to codes: the owner's next step most often, everything else often enough, and several things in a
//! row to the same code, so that batches have stories to fold.

use super::Traffic;
use crate::ledger::{self, Ledger};
use crate::rng::Rng;
use coupon_core::ids::{CodeNumber, RequestId};
use coupon_core::money;
use coupon_core::record::{Details, Payload, Request};
use coupon_core::words::{ClaimState, Kind};

/// A code as somebody speaks of it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    coupon_id: Box<str>,
    key: Box<str>,
    /// Who was the last to speak of it, and what they asked for.
    user: Box<str>,
    asked: Option<(Kind, RequestId)>,
    /// The order that it was redeemed for last.
    order: Option<Box<str>>,
}

const AMOUNTS: [&str; 8] = ["25.00", "100", "19.99", "20", "0", "0.01", "999999999999.99", "40.50"];

impl Traffic {
    pub(super) fn life(&mut self, rng: &mut Rng, id: RequestId, ledger: &Ledger) -> Request {
        let again = if rng.chance(550) { self.last.clone() } else { None };
        let target = again.unwrap_or_else(|| self.target(rng, ledger));
        let code = ledger::named(&target.key).and_then(|(load, idx)| ledger.code_at(load, idx));
        let claim = code.and_then(|code| code.claim);
        let state = claim.as_ref().map(|claim| claim.status.state);
        // What was asked for last is most often not decided yet.
        let asked = target.asked.filter(|_| rng.chance(600));
        let state = asked.map_or(state, |(kind, _)| believed(kind, state));
        let kind = self.kind(rng, state, &target, ledger);
        let user = match rng.below(20) {
            0..2 => self.some_user(rng),
            2..5 => target.user.clone(),
            _ => claim.as_ref().map_or(target.user.clone(), |claim| claim.user.clone()),
        };
        let order = claim.and_then(|claim| claim.status.order).or(target.order.clone());
        let details = self.details(rng, kind, order, &target, ledger);
        let paid = details.as_ref().and_then(|said| said.order.clone()).filter(|_| kind == Kind::Redeem);
        let (asked, order) = (Some((kind, id)), paid.or(target.order.clone()));
        self.last = Some(Target { user: user.clone(), asked, order, ..target.clone() });
        let code = (kind != Kind::Rollback).then_some(target.key);
        Request { id, kind, coupon_id: target.coupon_id, user, code, details }
    }

    /// Which code, and who speaks of it unless somebody has it.
    fn target(&self, rng: &mut Rng, ledger: &Ledger) -> Target {
        let coupon_id = self.some_coupon(rng);
        let mut user = self.some_user(rng);
        let key = *rng.pick(&["C0X0", "C1X1"]);
        let unknown = || Target {
            coupon_id: coupon_id.clone(),
            key: key.into(),
            user: "u1".into(),
            asked: None,
            order: None,
        };
        let Some((no, coupon)) = ledger.by_id(&coupon_id) else { return unknown() };
        let stock = coupon.stock;
        let number = match rng.below(20) {
            0..9 => one_of(rng, coupon.live.keys()),
            // In the window, in the hand, or next to them.
            9..13 => Some(stock.cursor + rng.between(1, 6)),
            13..15 => one_of(rng, coupon.returned.iter()),
            15 => Some(rng.between(1, stock.top.max(1))),
            16 => {
                let lapsed = ledger.lapsed.range((no, CodeNumber(0), "".into())..);
                let lapsed: Vec<_> = lapsed.take_while(|(coupon, ..)| *coupon == no).collect();
                let one = (!lapsed.is_empty()).then(|| *rng.pick(&lapsed));
                user = one.map_or(user, |(_, _, user)| user.clone());
                one.map(|(_, number, _)| number.0)
            }
            17 => one_of(rng, coupon.code_flags.keys()),
            18 => {
                return Target {
                    key: self.strange_code(rng, ledger),
                    coupon_id,
                    user,
                    asked: None,
                    order: None,
                };
            }
            _ => Some(rng.between(1, 4)),
        };
        let place = number.or(Some(1)).and_then(|number| coupon.place(number));
        let Some((load, idx)) = place else { return unknown() };
        Target { key: ledger::key(load, idx), coupon_id, user, asked: None, order: None }
    }

    /// Codes of a load are asked for as soon as it is announced.
    pub(super) fn speak_of_the_first_code(&mut self, announced: &Payload) {
        let Payload::StockAdded { coupon_id, load } = announced else { return };
        let (coupon_id, key, user) = (coupon_id.clone(), ledger::key(*load, 1), "u0".into());
        self.last = Some(Target { coupon_id, key, user, asked: None, order: None });
    }

    /// A code of a load that may not be stock, of any coupon; or none at all.
    fn strange_code(&self, rng: &mut Rng, ledger: &Ledger) -> Box<str> {
        let late: Vec<_> = ledger.loads.iter().skip(10).collect();
        if late.is_empty() || rng.chance(200) {
            return (*rng.pick(&["C1X1", "C2X3", "C1X100000", "nonsense"])).into();
        }
        let load = *rng.pick(&late);
        ledger::key(load.id, rng.between(1, load.count + 1))
    }

    fn kind(&self, rng: &mut Rng, state: Option<ClaimState>, target: &Target, ledger: &Ledger) -> Kind {
        let coupon = ledger.by_id(&target.coupon_id).map(|(_, coupon)| coupon);
        let shared = coupon.is_some_and(|coupon| coupon.definition.is_shared());
        let last_free = coupon.is_some_and(|coupon| coupon.stock.available() == 1);
        let (claim, lock, redeem, rollback) = (Kind::Claim, Kind::Lock, Kind::Redeem, Kind::Rollback);
        let (unlock, give_back, revoke) = (Kind::Unlock, Kind::Return, Kind::Revoke);
        let just = |asked| target.asked.is_some_and(|(kind, _)| kind == asked);
        let likely: &[Kind] = match state {
            _ if rng.chance(250) => &[claim, lock, unlock, give_back, redeem, rollback],
            _ if rng.chance(60) => &[revoke],
            _ if shared && just(Kind::Rollback) => &[redeem],
            _ if shared && just(Kind::Redeem) => &[rollback, rollback, redeem],
            _ if shared => &[redeem, redeem, redeem, redeem, rollback, rollback, claim],
            None if last_free && rng.chance(300) => &[revoke],
            None => &[claim, claim, claim, lock, redeem],
            Some(ClaimState::Claimed) => &[lock, lock, lock, redeem, redeem, give_back],
            Some(ClaimState::Locked) => &[redeem, redeem, redeem, unlock, unlock, lock],
            Some(ClaimState::Redeemed) => &[rollback, rollback, rollback, redeem, redeem, lock],
            Some(ClaimState::Returned | ClaimState::Revoked) => Kind::ALL,
        };
        let paid = coupon.is_some_and(|coupon| coupon.stock.redemptions > 0) || target.asked.is_some();
        match *rng.pick(likely) {
            Kind::Rollback if !paid && rng.chance(700) => redeem,
            kind => kind,
        }
    }

    fn details(
        &self,
        rng: &mut Rng,
        kind: Kind,
        again: Option<Box<str>>,
        target: &Target,
        ledger: &Ledger,
    ) -> Option<Box<Details>> {
        let mut details = Details::default();
        match kind {
            Kind::Lock => details.order = rng.chance(500).then(|| some_order(rng)),
            Kind::Redeem => {
                let order = again.filter(|_| rng.chance(600)).unwrap_or_else(|| some_order(rng));
                details.order = (!rng.chance(20)).then_some(order);
                details.amount = money::parse(rng.pick::<&str>(&AMOUNTS));
                details.currency =
                    Some((*rng.pick(&["EUR", "EUR", "EUR", "EUR", "EUR", "EUR", "USD", "JPY"])).into());
                match rng.below(60) {
                    0 => details.amount = None,
                    1 => details.amount = money::parse("10.005"),
                    2 => details.amount = money::parse("3").map(|amount| -amount),
                    3 => details.currency = None,
                    4 => details.currency = Some("eur".into()),
                    _ => {}
                }
            }
            Kind::Rollback => details.redemption = self.some_redemption(rng, target, ledger),
            _ => return None,
        }
        Some(Box::new(details))
    }

    /// A redemption of this code, or one that was asked for lately, or any other, or none.
    fn some_redemption(&self, rng: &mut Rng, target: &Target, ledger: &Ledger) -> Option<RequestId> {
        let of_coupon = ledger.by_id(&target.coupon_id).map(|(_, coupon)| coupon);
        let of_code = ledger::named(&target.key).and_then(|(load, idx)| {
            let base = ledger.code_at(load, idx)?.base?;
            one_of(rng, of_coupon?.paid.get(&(base + idx))?.iter())
        });
        let all = &self.redeems;
        let just_now = target.asked.filter(|(kind, _)| *kind == Kind::Redeem && rng.chance(700));
        match rng.below(12) {
            _ if just_now.is_some() => just_now.map(|(_, id)| id),
            0 => None,
            1 => Some(RequestId { identity: rng.wide(), body: 0 }),
            2 if !all.is_empty() => Some(rng.pick(all).0),
            3 => of_code.map(|id| RequestId { body: id.body + 1, ..id }),
            4..10 if of_code.is_some() => of_code,
            _ => {
                let mut own = all.iter().rev().filter(|(_, coupon_id)| *coupon_id == target.coupon_id);
                own.nth(rng.below(3)).map(|(id, _)| *id).or(of_code)
            }
        }
    }
}

/// How a code stands once somebody got what they asked for.
fn believed(asked: Kind, state: Option<ClaimState>) -> Option<ClaimState> {
    match asked {
        Kind::Claim | Kind::Unlock | Kind::Rollback => Some(ClaimState::Claimed),
        Kind::Lock => Some(ClaimState::Locked),
        Kind::Redeem => Some(ClaimState::Redeemed),
        Kind::Return => None,
        Kind::Revoke | Kind::Unknown => state,
    }
}

fn some_order(rng: &mut Rng) -> Box<str> {
    format!("order-{}", rng.below(3)).into()
}

fn one_of<'a, T: Copy + 'a>(rng: &mut Rng, of: impl ExactSizeIterator<Item = &'a T>) -> Option<T> {
    let mut of = of;
    let count = of.len();
    if count == 0 { None } else { of.nth(rng.below(count)).copied() }
}
