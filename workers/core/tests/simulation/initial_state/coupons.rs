//! Coupons and loads: random definitions, stock with a history, and what the API creates during a run.

use super::history::History;
use crate::environment::ledger::Ledger;
use crate::environment::ledger::tables::{Coupon, Load, LoadState};
use crate::environment::log::Log;
use crate::plan::{COUPON_IDS, INITIAL_COUPONS};
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::StockRow;
use coupon_core::coupon::{Definition, Status};
use coupon_core::ids::{CouponNo, LoadId, Millis, Offset};
use coupon_core::money::{self, Discount, Rate};

/// Loads in one run, at most: those of the initial coupons and the ones that the API adds.
pub(crate) const MAX_LOADS: usize = INITIAL_COUPONS + 8;

fn definition(rng: &mut Rng, start: Millis) -> Definition {
    let status = *rng.pick(&[[Status::Active; 18].as_slice(), &[Status::Paused, Status::Ended]].concat());
    let hold = match rng.below(8) {
        0..3 => None,
        3..6 => Some(rng.between(500, 12_000)),
        6 => Some(rng.between(20_000, 90_000)),
        _ => Some(600_000),
    };
    let whole_seconds = rng.chance(400);
    let hold = hold.map(|hold| if whole_seconds { hold / 1_000 * 1_000 + 1_000 } else { hold });
    let lock = match rng.below(4) {
        0..2 => rng.between(200, 5_000),
        2 => rng.between(10_000, 60_000),
        _ => 300_000,
    };
    Definition {
        status,
        starts: rng.chance(150).then(|| Millis(start.0 + rng.between(0, 60_000))),
        expires: rng.chance(150).then(|| Millis(start.0 + rng.between(20_000, 300_000))),
        claims_per_user: *rng.pick(&[None, None, Some(1), Some(1), Some(2), Some(3)]),
        redemptions_per_user: *rng.pick(&[None, None, None, Some(1), Some(2)]),
        redemptions_per_code: *rng.pick(&[&[Some(1); 8][..], &[None, Some(2), Some(2), Some(3)]].concat()),
        redemptions_total: *rng.pick(&[None, None, None, Some(2), Some(6), Some(30)]),
        hold,
        lock,
        requires_lock: rng.chance(250),
        discount: discount(rng),
    }
}

fn discount(rng: &mut Rng) -> Discount {
    let amount = |text: &str| money::parse(text).expect("an amount");
    let rate = match rng.below(4) {
        0 => Rate::Fixed(amount("5")),
        1 => Rate::Percentage(amount("33.3333")),
        2 => Rate::Percentage(amount("100")),
        _ => Rate::Percentage(amount("10")),
    };
    Discount {
        rate,
        currency: rng.chance(400).then(|| "EUR".into()),
        minimum_order: rng.chance(300).then(|| amount("20")),
        maximum_discount: rng.chance(300).then(|| amount("7.5")),
    }
}

/// Adds a coupon with stock. If it is `used`, some of its codes have claims, redemptions and flags.
pub(super) fn add_with_history(
    rng: &mut Rng,
    ledger: &mut Ledger,
    traffic: &mut Traffic,
    id: &str,
    (used, created, start): (bool, Offset, Millis),
) {
    let top = if rng.chance(300) { rng.between(0, 10) } else { rng.between(10, 120) };
    let mut coupon = Coupon::new(id, definition(rng, start), created);
    let cursor = if coupon.definition.is_shared() || !used { 0 } else { rng.between(0, top / 3) };
    if used && rng.chance(500) {
        coupon.ahead.extend((cursor + 1..=top).filter(|_| rng.chance(250)));
        coupon.returned.extend((1..=cursor).filter(|_| rng.chance(300)));
    }
    coupon.stock = StockRow { top, cursor, ..StockRow::default() };
    let load = LoadId(ledger.loads.len() as i64 + 1);
    let taken = (1..=cursor).filter(|number| !coupon.returned.contains(number));
    let taken: Vec<i64> = taken.chain(coupon.ahead.iter().copied()).collect();
    let returned: Vec<i64> = coupon.returned.iter().copied().collect();
    coupon.loads.push((0, load));
    ledger.coupons.push(coupon);
    let no = CouponNo(ledger.coupons.len() as i64);
    ledger.loads.push(Load { id: load, coupon: no, count: top, state: LoadState::Applied });
    let mut history = History { rng, ledger, traffic, start };
    taken.into_iter().for_each(|number| history.of_taken_code((no, number)));
    returned.into_iter().for_each(|number| history.of_returned_code((no, number)));
    let index = ledger.coupons.len() - 1;
    let counted = ledger.coupons[index].counted_stock(&ledger.claims);
    ledger.coupons[index].stock = counted;
}

/// Adds a load to a random coupon.
pub(crate) fn add_load(rng: &mut Rng, ledger: &mut Ledger, state: LoadState) {
    let coupon = CouponNo(1 + rng.below(ledger.coupons.len()) as i64);
    let id = LoadId(ledger.loads.len() as i64 + 1);
    // Sometimes a load without codes, which never becomes stock.
    let count = if rng.chance(100) { 0 } else { rng.between(1, 30) };
    ledger.loads.push(Load { id, coupon, count, state });
}

/// Creates the next coupon without stock, if one is left. The log may already contain requests for it.
pub(crate) fn create(rng: &mut Rng, ledger: &mut Ledger, log: &Log) {
    let Some(id) = COUPON_IDS.get(ledger.coupons.len()) else { return };
    let definition = definition(rng, log.now());
    ledger.coupons.push(Coupon::new(id, definition, log.end()));
}
