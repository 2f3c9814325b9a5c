//! I2: codes that are shared by many. Nobody claims them; they are redeemed by anybody, as often as allowed, each order
//! once; a redemption that is rolled back counts no more.

use super::ledger::{Did, Map};
use super::life::{Code, Happened, Illegal, Legal, must};
use super::report::Invariant;
use super::steps::Step;

/// A code that is shared, as it stands by what was told so far.
#[derive(Debug, Default)]
pub(super) struct Shared<'a> {
    /// Live redemptions, by their orders.
    live: Map<&'a str, u32>,
    withdrawn: bool,
}

impl<'a> Shared<'a> {
    pub(super) fn walk(code: Code<'a>, steps: &[Step]) -> Legal {
        let ledger = code.ledger;
        let mut shared = Self::default();
        for step in steps {
            shared.step(code, code.happened(step)?)?;
        }
        let stand = shared.live.values().filter_map(|index| ledger.redemptions.get(*index as usize));
        must(stand.into_iter().all(|redemption| redemption.rolled_back_ms.is_none()), Invariant::I2, || {
            "a redemption is rolled back, and nobody asked for it".to_owned()
        })?;
        let uses = i64::try_from(shared.live.len()).unwrap_or(i64::MAX);
        let mark = ledger.marks.get(&code.place).copied().unwrap_or_default();
        must(mark.uses == uses && mark.revoked == shared.withdrawn, Invariant::I1, || {
            format!("its mark is {mark:?}, and {uses} redemptions of it stand")
        })
    }

    fn step(&mut self, code: Code<'a>, happened: Happened<'a>) -> Legal {
        let ledger = code.ledger;
        let most = code.rules.redemptions_per_code;
        let exhausted =
            most.is_some_and(|most| i64::try_from(self.live.len()).is_ok_and(|uses| uses >= most));
        match happened {
            Happened::Redeem(index, redemption, row) => {
                must(!self.withdrawn, Invariant::I2, || {
                    format!("request {} redeemed what was withdrawn", row.id)
                })?;
                must(!exhausted, Invariant::I2, || {
                    format!("request {} redeemed it more often than {most:?} times", row.id)
                })?;
                must(redemption.claimed_ms.is_none(), Invariant::I2, || {
                    format!("request {} redeemed a claim of a code that is shared", row.id)
                })?;
                let used = self.live.insert(&redemption.order, index);
                must(used.is_none(), Invariant::I2, || {
                    format!("request {} redeemed it again for the order {:?}", row.id, redemption.order)
                })
            }
            Happened::Change(change, row) if change.did == Did::Rollback => {
                let index = change.redemption.and_then(|id| ledger.redemption_of(id));
                let redemption = index.and_then(|index| ledger.redemptions.get(index));
                let order = redemption.map_or("", |redemption| &*redemption.order);
                let stood = self.live.remove(order).map(|index| index as usize);
                must(stood.is_some() && stood == index, Invariant::I2, || {
                    format!("request {} rolled back a redemption that did not stand", row.id)
                })?;
                let at = redemption.and_then(|redemption| redemption.rolled_back_ms);
                must(at == Some(row.decided_ms), Invariant::I2, || {
                    format!("request {} rolled a redemption back whose row says otherwise", row.id)
                })
            }
            Happened::Change(change, row) if change.did == Did::Revoke => {
                must(!exhausted && !self.withdrawn, Invariant::I2, || {
                    format!("request {} withdrew it when nothing was left to withdraw", row.id)
                })?;
                self.withdrawn = true;
                Ok(())
            }
            Happened::Claim(_, row) | Happened::Change(_, row) => {
                let why = format!("request {} was accepted, and nobody has a code that is shared", row.id);
                Err(Illegal { invariant: Invariant::I2, why })
            }
            Happened::Lapse(lapse) => {
                let why = format!("it lapsed at {}, and nobody has a code that is shared", lapse.at);
                Err(Illegal { invariant: Invariant::I11, why })
            }
        }
    }
}
