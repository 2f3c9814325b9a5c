//! I1, I2: shared codes. They have no claims: any user may redeem them, as often as allowed, and once for each order. A
//! redemption that is rolled back does not count.

use super::code::{Checked, Code, Transition, ensure, fail};
use super::steps::Step;
use crate::collections::Map;
use crate::postgres::{Change, Operation, Redemption, Row};
use crate::report::Invariant;

/// A shared code, after the steps so far.
#[derive(Debug)]
pub(super) struct SharedCode<'a> {
    code: Code<'a>,
    /// Live redemptions: their indexes, by order.
    live: Map<&'a str, u32>,
    revoked: bool,
}

impl<'a> SharedCode<'a> {
    pub(super) fn replay(code: Code<'a>, steps: &[Step]) -> Checked {
        let mut shared = Self { code, live: Map::default(), revoked: false };
        for step in steps {
            shared.step(code.transition(step)?)?;
        }
        let mut live = shared.live.values().filter_map(|index| code.ledger.redemption_at(*index));
        ensure(live.all(|redemption| redemption.rolled_back_ms.is_none()), Invariant::I2, || {
            "a redemption is rolled back without a request".to_owned()
        })?;
        let flags = code.flags();
        ensure(flags.uses == shared.uses() && flags.revoked == shared.revoked, Invariant::I1, || {
            format!("its flags are {flags:?}, but it has {} live redemptions", shared.uses())
        })
    }

    fn uses(&self) -> i64 {
        i64::try_from(self.live.len()).unwrap_or(i64::MAX)
    }

    fn is_exhausted(&self) -> bool {
        self.code.rules.redemptions_per_code.is_some_and(|limit| self.uses() >= limit)
    }

    fn step(&mut self, transition: Transition<'a>) -> Checked {
        match transition {
            Transition::Redeem(index, redemption, row) => self.redeem(index, redemption, row),
            Transition::Change(change, row) if change.operation == Operation::Rollback => {
                self.roll_back(change, row)
            }
            Transition::Change(change, row) if change.operation == Operation::Revoke => {
                ensure(!self.is_exhausted() && !self.revoked, Invariant::I2, || {
                    format!("request {} revoked it when no use was left", row.id)
                })?;
                self.revoked = true;
                Ok(())
            }
            Transition::Claim(_, row) | Transition::Change(_, row) => fail(
                Invariant::I2,
                format!("request {} was accepted, but a shared code has no claims", row.id),
            ),
            Transition::Lapse(lapse) => {
                fail(Invariant::I11, format!("it lapsed at {}, but a shared code has no claims", lapse.at))
            }
        }
    }

    fn redeem(&mut self, index: u32, redemption: &'a Redemption, row: &Row) -> Checked {
        ensure(!self.revoked, Invariant::I2, || format!("request {} redeemed a revoked code", row.id))?;
        ensure(!self.is_exhausted(), Invariant::I2, || {
            let limit = self.code.rules.redemptions_per_code.unwrap_or(0);
            format!("request {} redeemed it more than {limit} times", row.id)
        })?;
        ensure(redemption.claimed_ms.is_none(), Invariant::I2, || {
            format!("request {} redeemed a claim, but a shared code has no claims", row.id)
        })?;
        let used = self.live.insert(&redemption.order, index);
        ensure(used.is_none(), Invariant::I2, || {
            format!("request {} redeemed it again for the order {:?}", row.id, redemption.order)
        })
    }

    fn roll_back(&mut self, change: &Change, row: &Row) -> Checked {
        let ledger = self.code.ledger;
        let index = change.redemption.and_then(|id| ledger.redemption_index(id));
        let redemption = index.and_then(|index| ledger.redemption_at(index));
        let live = self.live.remove(redemption.map_or("", |redemption| &*redemption.order));
        ensure(live.is_some() && live == index, Invariant::I2, || {
            format!("request {} rolled back a redemption that was not live", row.id)
        })?;
        let at = redemption.and_then(|redemption| redemption.rolled_back_ms);
        ensure(at == Some(row.decided_ms), Invariant::I2, || {
            format!("request {} rolled back a redemption whose row differs", row.id)
        })
    }
}
