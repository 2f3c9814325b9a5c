//! Requests that name a code: usually the next step of its holder, often enough any other request, and several requests
//! in a row for the same code, so that one batch contains several transitions of one claim.

use super::Traffic;
use crate::environment::ledger::tables::Coupon;
use crate::environment::ledger::{Ledger, code_key, parse_code_key};
use crate::plan::INITIAL_COUPONS;
use crate::rng::Rng;
use coupon_core::ids::{CodeNumber, CouponNo, RequestId};
use coupon_core::money;
use coupon_core::record::{Details, Payload, Request};
use coupon_core::words::{ClaimState, Kind};

/// The code of a request, and what was requested for it before.
#[derive(Clone, Debug)]
pub(super) struct Target {
    coupon_id: Box<str>,
    key: Box<str>,
    /// The user of the last request for it.
    user: Box<str>,
    /// The last request for it.
    requested: Option<(Kind, RequestId)>,
    /// The order of the last redeem request for it.
    order: Option<Box<str>>,
}

const AMOUNTS: [&str; 8] = ["25.00", "100", "19.99", "20", "0", "0.01", "999999999999.99", "40.50"];

impl Traffic {
    pub(super) fn code_request(&mut self, rng: &mut Rng, id: RequestId, ledger: &Ledger) -> Request {
        let again = if rng.chance(550) { self.last.clone() } else { None };
        let target = again.unwrap_or_else(|| self.target(rng, ledger));
        let code = parse_code_key(&target.key).and_then(|(load, idx)| ledger.code_at(load, idx));
        let claim = code.and_then(|code| code.claim);
        let state = claim.as_ref().map(|claim| claim.status.state);
        // The last request is usually not decided yet.
        let requested = target.requested.filter(|_| rng.chance(600));
        let state = requested.map_or(state, |(kind, _)| state_if_accepted(kind, state));
        let kind = random_kind(rng, state, &target, ledger);
        let user = match rng.below(20) {
            0..2 => self.random_user(rng),
            2..5 => target.user.clone(),
            _ => claim.as_ref().map_or(target.user.clone(), |claim| claim.user.clone()),
        };
        let order = claim.and_then(|claim| claim.status.order).or(target.order.clone());
        let details = self.details(rng, kind, order, &target, ledger);
        let redeemed = details.as_ref().filter(|_| kind == Kind::Redeem);
        let order = redeemed.and_then(|details| details.order.clone()).or(target.order.clone());
        self.last = Some(Target { user: user.clone(), requested: Some((kind, id)), order, ..target.clone() });
        let code = (kind != Kind::Rollback).then_some(target.key);
        Request { id, kind, coupon_id: target.coupon_id, user, code, details }
    }

    /// A random code, and the user of the request unless the code has a holder.
    fn target(&self, rng: &mut Rng, ledger: &Ledger) -> Target {
        let coupon_id = self.random_coupon(rng);
        let mut user = self.random_user(rng);
        let key = *rng.pick(&["C0X0", "C1X1"]);
        let unknown = Target::new(coupon_id.clone(), key.into(), "u1".into());
        let Some((no, coupon)) = ledger.coupon_by_id(&coupon_id) else { return unknown };
        let number = match rng.below(20) {
            0..9 => pick_from(rng, coupon.live_claims.keys()),
            // In the cache list, in the read-ahead buffer, or next to them.
            9..13 => Some(coupon.stock.cursor + rng.between(1, 6)),
            13..15 => pick_from(rng, coupon.returned.iter()),
            15 => Some(rng.between(1, coupon.stock.top.max(1))),
            16 => {
                let lapsed = random_lapsed(rng, ledger, no);
                user = lapsed.map_or(user, |(_, lapsed_user)| lapsed_user.into());
                lapsed.map(|(number, _)| number.0)
            }
            17 => pick_from(rng, coupon.flags.keys()),
            18 => return Target::new(coupon_id, unavailable_code(rng, ledger), user),
            _ => Some(rng.between(1, 4)),
        };
        match coupon.load_and_index(number.unwrap_or(1)) {
            Some((load, idx)) => Target::new(coupon_id, code_key(load, idx), user),
            None => unknown,
        }
    }

    /// Targets the first code of a load that was just announced.
    pub(super) fn target_first_code(&mut self, announced: &Payload) {
        if let Payload::StockAdded { coupon_id, load } = announced {
            self.last = Some(Target::new(coupon_id.clone(), code_key(*load, 1), "u0".into()));
        }
    }

    fn details(
        &self,
        rng: &mut Rng,
        kind: Kind,
        last_order: Option<Box<str>>,
        target: &Target,
        ledger: &Ledger,
    ) -> Option<Box<Details>> {
        let mut details = Details::default();
        match kind {
            Kind::Lock => details.order = rng.chance(500).then(|| random_order(rng)),
            Kind::Redeem => {
                let order = last_order.filter(|_| rng.chance(600)).unwrap_or_else(|| random_order(rng));
                details.order = (!rng.chance(20)).then_some(order);
                details.amount = money::parse(rng.pick::<&str>(&AMOUNTS));
                let currency = *rng.pick(&["EUR", "EUR", "EUR", "EUR", "EUR", "EUR", "USD", "JPY"]);
                details.currency = Some(currency.into());
                match rng.below(60) {
                    0 => details.amount = None,
                    1 => details.amount = money::parse("10.005"),
                    2 => details.amount = money::parse("3").map(|amount| -amount),
                    3 => details.currency = None,
                    4 => details.currency = Some("eur".into()),
                    _ => {}
                }
            }
            Kind::Rollback => details.redemption = self.random_redemption(rng, target, ledger),
            _ => return None,
        }
        Some(Box::new(details))
    }

    /// A redemption of this code, one that was just requested, any other one, or none.
    fn random_redemption(&self, rng: &mut Rng, target: &Target, ledger: &Ledger) -> Option<RequestId> {
        let of_coupon = ledger.coupon_by_id(&target.coupon_id).map(|(_, coupon)| coupon);
        let of_code = parse_code_key(&target.key).and_then(|(load, idx)| {
            let base = ledger.code_at(load, idx)?.base?;
            pick_from(rng, of_coupon?.redemptions_by_code.get(&(base + idx))?.iter())
        });
        let all = &self.redeems;
        let just_requested = target.requested.filter(|(kind, _)| *kind == Kind::Redeem && rng.chance(700));
        match rng.below(12) {
            _ if just_requested.is_some() => just_requested.map(|(_, id)| id),
            0 => None,
            1 => Some(RequestId { identity: rng.wide(), body: 0 }),
            2 if !all.is_empty() => Some(rng.pick(all).0),
            3 => of_code.map(|id| RequestId { body: id.body + 1, ..id }),
            4..10 if of_code.is_some() => of_code,
            _ => {
                let mut same = all.iter().rev().filter(|(_, coupon_id)| *coupon_id == target.coupon_id);
                same.nth(rng.below(3)).map(|(id, _)| *id).or(of_code)
            }
        }
    }
}

impl Target {
    const fn new(coupon_id: Box<str>, key: Box<str>, user: Box<str>) -> Self {
        Self { coupon_id, key, user, requested: None, order: None }
    }
}

/// A kind of request, usually one that the state allows.
fn random_kind(rng: &mut Rng, state: Option<ClaimState>, target: &Target, ledger: &Ledger) -> Kind {
    use Kind::{Claim, Lock, Redeem, Return, Revoke, Rollback, Unlock};
    let coupon = ledger.coupon_by_id(&target.coupon_id).map(|(_, coupon)| coupon);
    let shared = coupon.is_some_and(|coupon| coupon.definition.is_shared());
    let last_free = coupon.is_some_and(|coupon| coupon.stock.available() == 1);
    let just = |requested| target.requested.is_some_and(|(kind, _)| kind == requested);
    let likely: &[Kind] = match state {
        _ if rng.chance(250) => &[Claim, Lock, Unlock, Return, Redeem, Rollback],
        _ if rng.chance(60) => &[Revoke],
        _ if shared && just(Rollback) => &[Redeem],
        _ if shared && just(Redeem) => &[Rollback, Rollback, Redeem],
        _ if shared => &[Redeem, Redeem, Redeem, Redeem, Rollback, Rollback, Claim],
        None if last_free && rng.chance(300) => &[Revoke],
        None => &[Claim, Claim, Claim, Lock, Redeem],
        Some(ClaimState::Claimed) => &[Lock, Lock, Lock, Redeem, Redeem, Return],
        Some(ClaimState::Locked) => &[Redeem, Redeem, Redeem, Unlock, Unlock, Lock],
        Some(ClaimState::Redeemed) => &[Rollback, Rollback, Rollback, Redeem, Redeem, Lock],
        Some(ClaimState::Returned | ClaimState::Revoked) => Kind::ALL,
    };
    let has_redemptions = |coupon: &Coupon| coupon.stock.redemptions > 0;
    let can_roll_back = coupon.is_some_and(has_redemptions) || target.requested.is_some();
    match *rng.pick(likely) {
        Rollback if !can_roll_back && rng.chance(700) => Redeem,
        kind => kind,
    }
}

/// The state of a code after an accepted request.
const fn state_if_accepted(requested: Kind, state: Option<ClaimState>) -> Option<ClaimState> {
    match requested {
        Kind::Claim | Kind::Unlock | Kind::Rollback => Some(ClaimState::Claimed),
        Kind::Lock => Some(ClaimState::Locked),
        Kind::Redeem => Some(ClaimState::Redeemed),
        Kind::Return => None,
        Kind::Revoke | Kind::Unknown => state,
    }
}

/// A code of a load added by the API, which may not be stock and may be of another coupon; or a code that does not exist.
fn unavailable_code(rng: &mut Rng, ledger: &Ledger) -> Box<str> {
    let added: Vec<_> = ledger.loads.iter().skip(INITIAL_COUPONS).collect();
    if added.is_empty() || rng.chance(200) {
        return (*rng.pick(&["C1X1", "C2X3", "C1X100000", "nonsense"])).into();
    }
    let load = *rng.pick(&added);
    code_key(load.id, rng.between(1, load.count + 1))
}

/// A code of a coupon with a lapsed claim, and the user of that claim.
fn random_lapsed<'a>(rng: &mut Rng, ledger: &'a Ledger, no: CouponNo) -> Option<(CodeNumber, &'a str)> {
    let lapsed = ledger.lapsed.range((no, CodeNumber(0), "".into())..);
    let lapsed: Vec<_> = lapsed.take_while(|(coupon, ..)| *coupon == no).collect();
    let (_, number, user) = (!lapsed.is_empty()).then(|| *rng.pick(&lapsed))?;
    Some((*number, user))
}

fn random_order(rng: &mut Rng) -> Box<str> {
    format!("order-{}", rng.below(3)).into()
}

fn pick_from<'a, T: Copy + 'a>(rng: &mut Rng, of: impl ExactSizeIterator<Item = &'a T>) -> Option<T> {
    let mut of = of;
    let count = of.len();
    if count == 0 { None } else { of.nth(rng.below(count)).copied() }
}
