//! The time before the run: coupons with stock in every shape, claims that may be repeated, loads that wait.

use crate::ledger::{Coupon, Ledger, Load, LoadState, Map, code_of, row_in_use};
use crate::log::Log;
use crate::plan::Flaw;
use crate::reference::Reference;
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::{Decision, Position, StockRow, Verdict};
use coupon_core::coupon::{Definition, Status};
use coupon_core::ids::{CodeNumber, CouponNo, LoadId, Millis, Offset, RequestId};
use coupon_core::record::Request;
use coupon_core::vocabulary::Kind;
use std::collections::{BTreeSet, HashSet};

const BASE: Offset = Offset(1_000);
const MIDNIGHT: i64 = 1_700_006_400_000;
const NAMES: [&str; 14] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "late-1",
    "late-2", "late-3", "late-4",
];
/// Coupons of these that exist when the run begins.
const EARLY: usize = 10;

pub(crate) fn before_the_run(rng: &mut Rng, flaw: Flaw) -> (Ledger, Reference, Log, Traffic) {
    // Some runs pass midnight, where the outcomes of one request could come to lie in two tables.
    let start = Millis(MIDNIGHT - rng.between(0, 120_000));
    let last_offset = Offset(BASE.0 - 1);
    let position = Position { last_offset, last_digest: 1, time: start, ..Position::default() };
    let mut ledger = Ledger::new(row_in_use(BASE, position), flaw);
    let mut traffic = Traffic::new(rng, NAMES.map(Into::into).to_vec());
    let mut told = Vec::new();
    for name in &NAMES[..EARLY] {
        let (coupon, taken) = coupon_in_use(rng, name, start);
        ledger.coupons.push(coupon);
        let no = CouponNo(ledger.coupons.len() as i64);
        told.extend(taken.into_iter().map(|number| early_claim(rng, no, name, number, start)));
    }
    for _ in 0..rng.below(3) {
        let state = if rng.chance(700) { LoadState::Sealed(BASE) } else { LoadState::Open };
        add_load(rng, &mut ledger, state);
    }
    let mut reference = Reference::new(&ledger);
    for (decision, request) in told {
        ledger.store(decision.clone());
        reference.remember(decision);
        traffic.remember(request);
    }
    (ledger, reference, Log::new(BASE, start), traffic)
}

fn definition(rng: &mut Rng, start: Millis) -> Definition {
    let status = *rng.pick(&[[Status::Active; 18].as_slice(), &[Status::Paused, Status::Ended]].concat());
    Definition {
        status,
        starts: rng.chance(150).then(|| Millis(start.0 + rng.between(0, 60_000))),
        expires: rng.chance(150).then(|| Millis(start.0 + rng.between(20_000, 300_000))),
        claims_per_user: *rng.pick(&[None, None, Some(1), Some(1), Some(2), Some(3)]),
        ..Definition::default()
    }
}

/// A coupon whose stock has been used, and the numbers in live claims.
fn coupon_in_use(rng: &mut Rng, name: &str, start: Millis) -> (Coupon, Vec<i64>) {
    let top = if rng.chance(300) { rng.between(0, 10) } else { rng.between(10, 120) };
    let cursor = rng.between(0, top / 3);
    let (mut ahead, mut returned) = (BTreeSet::new(), BTreeSet::new());
    if rng.chance(500) {
        ahead.extend((cursor + 1..=top).filter(|_| rng.chance(250)));
        returned.extend((1..=cursor).filter(|_| rng.chance(300)));
    }
    let taken: Vec<i64> =
        (1..=cursor).filter(|number| !returned.contains(number)).chain(ahead.iter().copied()).collect();
    let stock = StockRow {
        top,
        cursor,
        ahead: ahead.len() as i64,
        returned: returned.len() as i64,
        claimed: taken.len() as i64,
        ..StockRow::default()
    };
    let definition = definition(rng, start);
    let (id, live, users) = (name.into(), HashSet::default(), Map::default());
    (Coupon { id, definition, stock, ahead, returned, live, users, since: BASE }, taken)
}

/// A claim from before the run. Its user will come again, with the same request or another one.
fn early_claim(
    rng: &mut Rng,
    coupon: CouponNo,
    name: &str,
    number: i64,
    start: Millis,
) -> (Decision, Request) {
    let decided = Millis(start.0 - rng.between(0, 100_000));
    let minted = Millis(decided.0 - rng.between(0, 500));
    let id = if rng.chance(500) {
        RequestId { identity: rng.wide(), body: 5 }
    } else {
        RequestId { identity: (u128::from(minted.0.unsigned_abs()) << 80) | (rng.wide() >> 48), body: 0 }
    };
    let (kind, coupon_id, user): (_, Box<str>, Box<str>) =
        (Kind::Claim, name.into(), format!("early-{number}").into());
    let request = Request { id, kind, coupon_id: coupon_id.clone(), user: user.clone(), code: None, details: None };
    let verdict = Verdict::Claimed { number: CodeNumber(number), code: code_of(coupon, number), hold_until: None };
    let (coupon, offset) = (Some(coupon), Offset(number));
    (Decision { id, kind, coupon_id, coupon, user, offset, decided, verdict }, request)
}

/// The API makes a load of some coupon.
pub(crate) fn add_load(rng: &mut Rng, ledger: &mut Ledger, state: LoadState) {
    let coupon = CouponNo(1 + rng.below(ledger.coupons.len()) as i64);
    let id = LoadId(ledger.loads.len() as i64 + 1);
    ledger.loads.push(Load { id, coupon, count: rng.between(1, 30), state });
}

/// The API makes the next coupon, if one is left to be made. Requests for it may be in the log already.
pub(crate) fn add_coupon(rng: &mut Rng, ledger: &mut Ledger, log: &Log) {
    let Some(name) = NAMES.get(ledger.coupons.len()) else { return };
    let (id, stock, live, users) = ((*name).into(), StockRow::default(), HashSet::default(), Map::default());
    let definition = definition(rng, log.now());
    let (ahead, returned) = (BTreeSet::new(), BTreeSet::new());
    ledger.coupons.push(Coupon { id, definition, stock, ahead, returned, live, users, since: log.end() });
}
