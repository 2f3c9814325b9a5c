//! The state before a run: coupons with stock of every shape, claims in every state, and loads that are not applied.
//!
//! [`coupons`]: definitions, stock and loads, also those that the API adds during the run. [`history`]: claims and
//! redemptions.

pub(crate) mod coupons;
mod history;

use crate::environment::ledger::tables::LoadState;
use crate::environment::ledger::{Ledger, initial_row};
use crate::environment::log::Log;
use crate::plan::{COUPON_IDS, IDLE_COUPONS, INITIAL_COUPONS, LedgerBug, Plan};
use crate::reference::Reference;
use crate::rng::Rng;
use crate::traffic::Traffic;
use coupon_core::batch::Position;
use coupon_core::ids::{Millis, Offset};

const BASE: Offset = Offset(1_000);
const MIDNIGHT_MS: i64 = 1_700_006_400_000;

pub(crate) fn build(rng: &mut Rng, plan: &Plan, ledger_bug: LedgerBug) -> (Ledger, Reference, Log, Traffic) {
    // Some runs pass midnight: the outcomes of one request could be stored in the tables of two days.
    let start = Millis(plan.round_to_clock_tick(MIDNIGHT_MS - rng.between(0, 120_000)));
    let last_offset = Offset(BASE.0 - 1);
    let position = Position { last_offset, last_digest: 1, time: start, ..Position::default() };
    let mut ledger = Ledger::new(initial_row(BASE, position), ledger_bug);
    let with_idle = rng.chance(700);
    let requested = COUPON_IDS.iter().filter(|id| !with_idle || !IDLE_COUPONS.contains(id));
    let mut traffic = Traffic::new(rng, plan, requested.map(|id| (*id).into()).collect());
    // An owner reads no users of an unused coupon. In half of the runs most coupons are unused.
    let unused = *rng.pick(&[0, 800]);
    for id in &COUPON_IDS[..INITIAL_COUPONS] {
        let used = !rng.chance(unused);
        coupons::add_with_history(rng, &mut ledger, &mut traffic, id, (used, BASE, start));
    }
    for _ in 0..rng.below(3) {
        let state = if rng.chance(700) { LoadState::Sealed(BASE) } else { LoadState::Open };
        coupons::add_load(rng, &mut ledger, state);
    }
    let reference = Reference::new(&ledger);
    (ledger, reference, Log::new(BASE, start), traffic)
}
