//! I2, I11: the life of every code is a walk through this table, told by nothing but outcomes and lapses in the order
//! of the log, and it ends where the rows say that it stands.
//!
//! | from | by | to |
//! |---|---|---|
//! | free | a claim | claimed, until the end of its hold |
//! | claimed | its user's lock | locked, until the end of the lock; the hold's end stays as it is |
//! | locked | its user's release; the lock's end | claimed; free after a release if the hold is over |
//! | claimed | given back by its user; the hold's end | free |
//! | claimed (no lock required), locked (for this order, or for any) | redeemed by its user | redeemed |
//! | redeemed | rolled back | claimed, with a fresh hold |
//! | free, claimed, locked | withdrawn | withdrawn |
//!
//! Whatever is decided when a deadline has passed, and the lapse was not told before it, is illegal, and so is a
//! lapse at any other time than the one that its claim or lock was told.

use super::lapses::{Lapsed, Lapses};
use super::ledger::{
    CLAIMED, Change, Did, LOCKED, Ledger, Place, REDEEMED, RETURNED, REVOKED, Redemption, Row, Rules, Terms,
    word_of,
};
use super::log::Log;
use super::report::{Invariant, Report};
use super::shared::Shared;
use super::steps::{Step, What, steps};

/// A step that the table does not have, or a row that it does not lead to.
#[derive(Debug)]
pub(super) struct Illegal {
    pub(super) invariant: Invariant,
    pub(super) why: String,
}

/// The next step may be taken, or not.
pub(super) type Legal = Result<(), Illegal>;

pub(super) fn must(holds: bool, invariant: Invariant, why: impl FnOnce() -> String) -> Legal {
    if holds { Ok(()) } else { Err(Illegal { invariant, why: why() }) }
}

/// Walks through the life of every code that has one.
pub(super) fn lives(ledger: &Ledger, log: &Log, lapses: &Lapses, report: &mut Report) {
    let steps = steps(ledger, lapses);
    for life in steps.chunk_by(|one, other| one.place == other.place) {
        let Some(place) = life.first().map(|step| step.place) else { continue };
        let Some(coupon) = ledger.coupons.get(&place.0) else { continue };
        if lapses.unsure.contains(&place) {
            continue;
        }
        let code = Code { ledger, log, lapses, place, rules: &coupon.rules };
        let legal = if coupon.rules.is_shared() {
            Shared::walk(code, life)
        } else {
            Walk { code, standing: Standing::Free }.through(life)
        };
        report.checked(Invariant::I2, life.len());
        report.checked(Invariant::I11, life.len());
        if let Err(Illegal { invariant, why }) = legal {
            report.broken(invariant, || format!("{}: {why}", ledger.code_name(place)));
        }
    }
}

/// A code, and where to read of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code<'a> {
    pub(super) ledger: &'a Ledger,
    log: &'a Log,
    lapses: &'a Lapses,
    pub(super) place: Place,
    pub(super) rules: &'a Rules,
}

/// What a step is, read from where it stands.
pub(super) enum Happened<'a> {
    Lapse(&'a Lapsed),
    Claim(u32, &'a Row),
    Change(&'a Change, &'a Row),
    Redeem(u32, &'a Redemption, &'a Row),
}

impl<'a> Code<'a> {
    /// What happened. What was decided was decided at the partition's time, by nobody's clock.
    pub(super) fn happened(&self, step: &Step) -> Result<Happened<'a>, Illegal> {
        let ledger = self.ledger;
        let row = |index: u32| ledger.rows.get(index as usize);
        let happened = match step.what {
            What::Lapse(index) => self.lapses.all.get(index as usize).map(Happened::Lapse),
            What::Claim(index) => row(index).map(|row| Happened::Claim(index, row)),
            What::Change(index) => ledger
                .changes
                .get(index as usize)
                .and_then(|change| Some(Happened::Change(change, row(change.row)?))),
            What::Redeem(index) => ledger
                .redemptions
                .get(index as usize)
                .and_then(|redemption| Some(Happened::Redeem(index, redemption, row(redemption.row)?))),
        };
        let happened = happened
            .ok_or_else(|| Illegal { invariant: Invariant::I2, why: "a step without a row".to_owned() })?;
        if let Happened::Claim(_, row) | Happened::Change(_, row) | Happened::Redeem(_, _, row) = &happened {
            let time = self.log.time_at(row.partition, row.offset);
            must(time.is_none_or(|time| time == row.decided_ms), Invariant::I11, || {
                let (at, time) = (row.decided_ms, time.unwrap_or(0));
                format!("request {} was decided at {at}, and the partition's time was {time}", row.id)
            })?;
        }
        Ok(happened)
    }
}

/// A claim as it stands by what was told so far.
#[derive(Clone, Copy, Debug)]
struct Life<'a> {
    index: u32,
    row: &'a Row,
    state: i16,
    hold: Option<i64>,
    lock: Option<i64>,
    order: Option<&'a str>,
    paid: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Standing<'a> {
    Free,
    Held(Life<'a>),
    Withdrawn,
}

struct Walk<'a> {
    code: Code<'a>,
    standing: Standing<'a>,
}

impl<'a> Walk<'a> {
    fn through(mut self, steps: &[Step]) -> Legal {
        for step in steps {
            match self.code.happened(step)? {
                Happened::Lapse(lapse) => self.lapse(lapse)?,
                Happened::Claim(index, row) => self.claim(index, row)?,
                Happened::Change(change, row) => self.change(change, row)?,
                Happened::Redeem(index, redemption, row) => self.redeem(index, redemption, row)?,
            }
        }
        if let Standing::Held(life) = &self.standing {
            self.stands(life, life.state, None)?;
            let redemption = life.paid.and_then(|paid| self.code.ledger.redemptions.get(paid as usize));
            must(redemption.is_none_or(|paid| paid.rolled_back_ms.is_none()), Invariant::I2, || {
                format!("the redemption of request {} is rolled back, and nobody asked for it", life.row.id)
            })?;
        }
        let mark = self.code.ledger.marks.get(&self.code.place).copied().unwrap_or_default();
        let withdrawn = matches!(self.standing, Standing::Withdrawn);
        must(mark.revoked == withdrawn && mark.uses == 0, Invariant::I2, || {
            format!("its mark is {mark:?}, and it was {}withdrawn", if withdrawn { "" } else { "never " })
        })
    }

    fn claim(&mut self, index: u32, row: &'a Row) -> Legal {
        match self.standing {
            Standing::Free => {}
            Standing::Held(life) => {
                self.nothing_is_over(row)?;
                must(false, Invariant::I2, || {
                    let state = word_of(life.state).unwrap_or_default();
                    format!("request {} claimed it while it was {state} by request {}", row.id, life.row.id)
                })?;
            }
            Standing::Withdrawn => {
                must(false, Invariant::I2, || format!("request {} claimed what was withdrawn", row.id))?;
            }
        }
        let told = self.code.ledger.terms.get(&index).and_then(|terms| terms.first_hold_ms);
        let hold = self.code.rules.hold_ms.map(|hold| row.decided_ms + hold);
        must(told == hold, Invariant::I11, || {
            format!("request {} was told a hold until {told:?}, and it is until {hold:?}", row.id)
        })?;
        let life = Life { index, row, state: CLAIMED, hold, lock: None, order: None, paid: None };
        self.standing = Standing::Held(life);
        Ok(())
    }

    /// A deadline that has passed has lapsed before anything else is decided.
    fn nothing_is_over(&self, row: &Row) -> Legal {
        let Standing::Held(Life { state, hold, lock, .. }) = self.standing else { return Ok(()) };
        let (what, deadline) = match state {
            CLAIMED => ("hold", hold),
            LOCKED => ("lock", lock),
            _ => return Ok(()),
        };
        must(deadline.is_none_or(|deadline| deadline > row.decided_ms), Invariant::I11, || {
            let (deadline, at) = (deadline.unwrap_or(0), row.decided_ms);
            format!(
                "its {what} ended at {deadline} and had not lapsed when request {} was decided at {at}",
                row.id
            )
        })
    }

    /// The live claim, which a request is about.
    fn held(&self, row: &Row) -> Result<Life<'a>, Illegal> {
        self.nothing_is_over(row)?;
        match self.standing {
            Standing::Held(life) => Ok(life),
            _ => {
                let why = format!("request {} was accepted when nobody had the code", row.id);
                Err(Illegal { invariant: Invariant::I2, why })
            }
        }
    }

    fn own(&self, row: &Row) -> Result<Life<'a>, Illegal> {
        let life = self.held(row)?;
        must(life.row.holder == row.holder, Invariant::I2, || {
            format!("request {} was accepted when somebody else had the code", row.id)
        })?;
        Ok(life)
    }

    fn redeem(&mut self, index: u32, redemption: &'a Redemption, row: &'a Row) -> Legal {
        let mut life = self.own(row)?;
        let order = &*redemption.order;
        let state = word_of(life.state).unwrap_or_default();
        must(life.state != CLAIMED || !self.code.rules.requires_lock, Invariant::I11, || {
            format!("request {} redeemed it without a lock that was alive", row.id)
        })?;
        must(matches!(life.state, CLAIMED | LOCKED), Invariant::I2, || {
            format!("request {} redeemed it when it was {state}", row.id)
        })?;
        must(life.order.is_none_or(|locked| locked == order), Invariant::I2, || {
            format!("request {} redeemed it for {order:?}, and the lock was for {:?}", row.id, life.order)
        })?;
        must(redemption.claimed_ms == Some(life.row.decided_ms), Invariant::I2, || {
            format!("request {} redeemed a claim of another time", row.id)
        })?;
        (life.state, life.hold, life.lock) = (REDEEMED, None, None);
        (life.order, life.paid) = (Some(order), Some(index));
        self.standing = Standing::Held(life);
        Ok(())
    }

    fn change(&mut self, change: &'a Change, row: &'a Row) -> Legal {
        match change.did {
            Did::Lock => {
                let mut life = self.in_state(self.own(row)?, CLAIMED, row)?;
                (life.state, life.order) = (LOCKED, change.order.as_deref());
                life.lock = Some(row.decided_ms + self.code.rules.lock_ms);
                self.left(life, change, row)
            }
            Did::Unlock => {
                let mut life = self.in_state(self.own(row)?, LOCKED, row)?;
                (life.state, life.lock, life.order) = (CLAIMED, None, None);
                if life.hold.is_some_and(|hold| hold <= row.decided_ms) {
                    // Its lapse is the next step.
                    self.standing = Standing::Held(life);
                    return says(change, row, RETURNED, life.row);
                }
                self.left(life, change, row)
            }
            Did::Return => {
                let life = self.in_state(self.own(row)?, CLAIMED, row)?;
                says(change, row, RETURNED, life.row)?;
                self.standing = Standing::Free;
                self.stands(&life, RETURNED, None)
            }
            Did::Rollback => self.roll_back(change, row),
            Did::Revoke => self.withdraw(change, row),
            Did::Nonsense => must(false, Invariant::I2, || format!("request {} is no such thing", row.id)),
        }
    }

    fn roll_back(&mut self, change: &'a Change, row: &'a Row) -> Legal {
        let ledger = self.code.ledger;
        let mut life = self.in_state(self.held(row)?, REDEEMED, row)?;
        let redemption = life.paid.and_then(|paid| ledger.redemptions.get(paid as usize));
        let id = redemption.and_then(|redemption| ledger.rows.get(redemption.row as usize)).map(|row| row.id);
        must(id == change.redemption, Invariant::I2, || {
            format!("request {} rolled back another redemption than the one that stood", row.id)
        })?;
        must(redemption.is_some_and(|r| r.rolled_back_ms == Some(row.decided_ms)), Invariant::I2, || {
            format!("request {} rolled a redemption back whose row says otherwise", row.id)
        })?;
        (life.state, life.order, life.paid) = (CLAIMED, None, None);
        life.hold = self.code.rules.hold_ms.map(|hold| row.decided_ms + hold);
        self.left(life, change, row)
    }

    fn withdraw(&mut self, change: &'a Change, row: &'a Row) -> Legal {
        self.nothing_is_over(row)?;
        let standing = std::mem::replace(&mut self.standing, Standing::Withdrawn);
        match standing {
            Standing::Free => {
                must(change.state == REVOKED && change.claimed_ms.is_none(), Invariant::I2, || {
                    format!("request {} withdrew a free code, and says otherwise", row.id)
                })
            }
            Standing::Held(life) => {
                must(life.state != REDEEMED, Invariant::I2, || {
                    format!("request {} withdrew it when it was REDEEMED", row.id)
                })?;
                says(change, row, REVOKED, life.row)?;
                self.stands(&life, REVOKED, None)
            }
            Standing::Withdrawn => {
                must(false, Invariant::I2, || format!("request {} withdrew it once more", row.id))
            }
        }
    }

    fn lapse(&mut self, lapse: &Lapsed) -> Legal {
        if self.is_later(lapse) {
            return Ok(());
        }
        let what = if lapse.of_hold { "hold" } else { "lock" };
        let Standing::Held(mut life) = self.standing else {
            return must(false, Invariant::I11, || {
                format!("its {what} lapsed at {}, when nobody had it", lapse.at)
            });
        };
        let (state, deadline) = if lapse.of_hold { (CLAIMED, life.hold) } else { (LOCKED, life.lock) };
        must(
            life.state == state && deadline == Some(lapse.at) && life.row.holder == lapse.holder,
            Invariant::I11,
            || {
                let now = word_of(life.state).unwrap_or_default();
                format!(
                    "its {what} lapsed at {}, when it was {now} and its {what} was until {deadline:?}",
                    lapse.at
                )
            },
        )?;
        if lapse.of_hold {
            self.standing = Standing::Free;
            return self.stands(&life, RETURNED, Some(lapse.at));
        }
        (life.state, life.order) = (CLAIMED, None);
        self.standing = Standing::Held(life);
        Ok(())
    }

    /// Whether a lock that may have lapsed after the snapshot did: its row shows it locked still, or it is another lock
    /// than the one that is known.
    fn is_later(&self, lapse: &Lapsed) -> bool {
        let is_known = |life: &Life<'_>| {
            life.state == LOCKED && life.lock == Some(lapse.at) && life.row.holder == lapse.holder
        };
        let shows_it =
            matches!(&self.standing, Standing::Held(life) if is_known(life) && life.row.state != LOCKED);
        lapse.may_be_later && !lapse.of_hold && !shows_it
    }

    fn in_state(&self, life: Life<'a>, state: i16, row: &Row) -> Result<Life<'a>, Illegal> {
        must(life.state == state, Invariant::I2, || {
            let (expected, found) = (word_of(state), word_of(life.state).unwrap_or_default());
            format!(
                "request {} was accepted when it was {found}, not {}",
                row.id,
                expected.unwrap_or_default()
            )
        })?;
        Ok(life)
    }

    /// The outcome says how it left the claim.
    fn left(&mut self, life: Life<'a>, change: &Change, row: &Row) -> Legal {
        says(change, row, life.state, life.row)?;
        let told = (change.hold_until_ms, change.lock_until_ms);
        must(told == (life.hold, life.lock), Invariant::I11, || {
            format!(
                "request {} was told deadlines {told:?}, and they are {:?}",
                row.id,
                (life.hold, life.lock)
            )
        })?;
        self.standing = Standing::Held(life);
        Ok(())
    }

    /// The row of a claim says how it stands in the end.
    fn stands(&self, life: &Life<'_>, state: i16, lapsed: Option<i64>) -> Legal {
        must(life.row.state == state, Invariant::I2, || {
            let (row, walk) = (word_of(life.row.state), word_of(state));
            format!("the row of request {} says {row:?}, and what was told says {walk:?}", life.row.id)
        })?;
        let nothing = Terms::default();
        let terms = self.code.ledger.terms.get(&life.index).unwrap_or(&nothing);
        let ended = matches!(state, RETURNED | REVOKED);
        let expected =
            if ended { (None, None, None, lapsed) } else { (life.hold, life.lock, life.order, lapsed) };
        let found = (terms.hold_until_ms, terms.lock_until_ms, terms.order.as_deref(), terms.lapsed_ms);
        must(found == expected, Invariant::I11, || {
            format!(
                "the row of request {} has hold, lock, order and lapse {found:?}, and was told {expected:?}",
                life.row.id
            )
        })
    }
}

/// An outcome says in which state it left which claim.
fn says(change: &Change, row: &Row, state: i16, claim: &Row) -> Legal {
    must(change.state == state && change.claimed_ms == Some(claim.decided_ms), Invariant::I2, || {
        let (told, is) = (word_of(change.state), word_of(state));
        format!("request {} was told {told:?} since {:?}, and it is {is:?}", row.id, change.claimed_ms)
    })
}
