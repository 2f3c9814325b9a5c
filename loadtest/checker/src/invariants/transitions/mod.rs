//! I1, I2, I11: the transitions of every code, replayed from outcomes and lapses alone, in the order of the log. Each
//! transition is one of this table, and the last state equals the row of the claim.
//!
//! | from | by | to |
//! |---|---|---|
//! | free | a claim | claimed, until the end of its hold |
//! | claimed | a lock of its user | locked, until the end of the lock; the end of the hold does not change |
//! | locked | an unlock of its user; the end of the lock | claimed; free after an unlock, if the hold has ended |
//! | claimed | a return by its user; the end of the hold | free |
//! | claimed (if no lock is required), locked (for this order, or for any) | a redemption by its user | redeemed |
//! | redeemed | a rollback | claimed, with a new hold |
//! | free, claimed, locked | a revocation | revoked |
//!
//! A request that is decided after a deadline has passed, without a lapse before it, is a violation. So is a lapse at any
//! time other than the one in the outcome of its claim or lock.
//!
//! Reading order: `steps.rs` (the steps in order), `code.rs` (what the replay of one code needs), `single_use.rs` (the
//! table above), `shared.rs` (codes without claims).

mod code;
mod shared;
mod single_use;
mod steps;

use super::lapses::Lapses;
use crate::kafka::Log;
use crate::postgres::Ledger;
use crate::report::{Invariant, Report};
use code::{Code, Violation};
use shared::SharedCode;
use single_use::SingleUseCode;
use steps::steps;

/// Replays every code with more transitions than a plain claim. Reports the first violation of each.
pub(super) fn check_transitions(ledger: &Ledger, log: &Log, lapses: &Lapses, report: &mut Report) {
    let steps = steps(ledger, lapses);
    for steps in steps.chunk_by(|one, other| one.code == other.code) {
        let Some(id) = steps.first().map(|step| step.code) else { continue };
        let Some(coupon) = ledger.coupons.get(&id.0) else { continue };
        if lapses.uncertain.contains(&id) {
            continue;
        }
        let code = Code { ledger, log, lapses, id, rules: &coupon.rules };
        let replayed = if coupon.rules.is_shared() {
            SharedCode::replay(code, steps)
        } else {
            SingleUseCode::replay(code, steps)
        };
        report.checked(Invariant::I2, steps.len());
        report.checked(Invariant::I11, steps.len());
        if let Err(Violation { invariant, message }) = replayed {
            report.violated(invariant, || format!("{}: {message}", ledger.code_name(id)));
        }
    }
}
