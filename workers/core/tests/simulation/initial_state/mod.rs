//! The time before the run: coupons with stock in every shape, claims in every state, loads that wait.

use crate::early;
use crate::ledger::{Coupon, Ledger, Load, LoadState, row_in_use};
use crate::log::Log;
use crate::plan::{Flaw, Plan};
use crate::reference::Reference;
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::{Position, StockRow};
use coupon_core::coupon::{Definition, Status};
use coupon_core::ids::{CouponNo, LoadId, Millis, Offset};
use coupon_core::money::{self, Discount, Rate};

const BASE: Offset = Offset(1_000);
const MIDNIGHT: i64 = 1_700_006_400_000;
const NAMES: [&str; 14] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "late-1",
    "late-2", "late-3", "late-4",
];
/// Coupons of these that exist when the run begins.
const EARLY: usize = 10;
/// Coupons of these that in most runs nobody sends anything about: what happens to them, deadlines do.
pub(crate) const SILENT: [&str; 2] = ["iota", "kappa"];
/// Loads at most, those of the time before the run included.
pub(crate) const MOST_LOADS: usize = EARLY + 8;

pub(crate) fn before_the_run(rng: &mut Rng, plan: &Plan, flaw: Flaw) -> (Ledger, Reference, Log, Traffic) {
    // Some runs pass midnight, where the outcomes of one request could come to lie in two tables.
    let start = Millis(plan.tick_of_clocks(MIDNIGHT - rng.between(0, 120_000)));
    let last_offset = Offset(BASE.0 - 1);
    let position = Position { last_offset, last_digest: 1, time: start, ..Position::default() };
    let mut ledger = Ledger::new(row_in_use(BASE, position), flaw);
    let silent = rng.chance(700);
    let spoken_of = NAMES.iter().filter(|name| !silent || !SILENT.contains(name));
    let mut traffic = Traffic::new(rng, plan, spoken_of.map(|name| (*name).into()).collect());
    // Of a coupon that nobody has touched, an owner knows without asking who has nothing: in some runs most are such.
    let untouched = *rng.pick(&[0, 0, 800]);
    for name in &NAMES[..EARLY] {
        let used = !rng.chance(untouched);
        add_coupon(rng, &mut ledger, &mut traffic, name, (used, start));
    }
    for _ in 0..rng.below(3) {
        let state = if rng.chance(700) { LoadState::Sealed(BASE) } else { LoadState::Open };
        add_load(rng, &mut ledger, state);
    }
    let reference = Reference::new(&ledger);
    (ledger, reference, Log::new(BASE, start), traffic)
}

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

/// A coupon with stock, which has been `used`, or which nobody has ever had a code of.
fn add_coupon(
    rng: &mut Rng,
    ledger: &mut Ledger,
    traffic: &mut Traffic,
    name: &str,
    (used, start): (bool, Millis),
) {
    let top = if rng.chance(300) { rng.between(0, 10) } else { rng.between(10, 120) };
    let mut coupon = Coupon::new(name, definition(rng, start), BASE);
    let cursor = if coupon.definition.is_shared() || !used { 0 } else { rng.between(0, top / 3) };
    if used && rng.chance(500) {
        coupon.ahead.extend((cursor + 1..=top).filter(|_| rng.chance(250)));
        coupon.returned.extend((1..=cursor).filter(|_| rng.chance(300)));
    }
    coupon.stock = StockRow { top, cursor, ..StockRow::default() };
    let load = LoadId(ledger.loads.len() as i64 + 1);
    let taken = 1..=cursor;
    let taken: Vec<i64> = taken
        .filter(|number| !coupon.returned.contains(number))
        .chain(coupon.ahead.iter().copied())
        .collect();
    let returned: Vec<i64> = coupon.returned.iter().copied().collect();
    coupon.loads.push((0, load));
    ledger.coupons.push(coupon);
    let no = CouponNo(ledger.coupons.len() as i64);
    ledger.loads.push(Load { id: load, coupon: no, count: top, state: LoadState::Applied });
    for number in taken {
        early::taken_code(rng, ledger, traffic, (no, number), start);
    }
    for number in returned {
        early::returned_code(rng, ledger, traffic, (no, number), start);
    }
    let counted = ledger.coupons[no.0 as usize - 1].counted(&ledger.claims);
    ledger.coupons[no.0 as usize - 1].stock = counted;
}

/// The API makes a load of some coupon.
pub(crate) fn add_load(rng: &mut Rng, ledger: &mut Ledger, state: LoadState) {
    let coupon = CouponNo(1 + rng.below(ledger.coupons.len()) as i64);
    let id = LoadId(ledger.loads.len() as i64 + 1);
    ledger.loads.push(Load { id, coupon, count: rng.between(1, 30), state });
}

/// The API makes the next coupon, if one is left to be made. Requests for it may be in the log already.
pub(crate) fn make_coupon(rng: &mut Rng, ledger: &mut Ledger, log: &Log) {
    let Some(name) = NAMES.get(ledger.coupons.len()) else { return };
    let definition = definition(rng, log.now());
    ledger.coupons.push(Coupon::new(name, definition, log.end()));
}
