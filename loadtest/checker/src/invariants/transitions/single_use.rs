//! I2, I11: codes that one user at a time holds by a claim. The table of transitions is in `mod.rs`.

use super::code::{Checked, Code, Transition, ensure, fail};
use super::steps::Step;
use crate::invariants::lapses::Lapse;
use crate::postgres::{
    CLAIMED, Change, ClaimStatus, LOCKED, Operation, REDEEMED, RETURNED, REVOKED, Redemption, Row, state_name,
};
use crate::report::Invariant;

/// The live claim of a code, after the steps so far.
#[derive(Clone, Copy, Debug)]
struct LiveClaim<'a> {
    index: u32,
    row: &'a Row,
    state: i16,
    hold: Option<i64>,
    lock: Option<i64>,
    order: Option<&'a str>,
    /// The index of its redemption.
    redemption: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum CodeState<'a> {
    Free,
    Held(LiveClaim<'a>),
    Revoked,
}

/// A code, after the steps so far.
pub(super) struct SingleUseCode<'a> {
    code: Code<'a>,
    state: CodeState<'a>,
}

fn name(state: i16) -> &'static str {
    state_name(state).unwrap_or("unknown")
}

impl<'a> SingleUseCode<'a> {
    pub(super) fn replay(code: Code<'a>, steps: &[Step]) -> Checked {
        let mut replay = Self { code, state: CodeState::Free };
        for step in steps {
            match code.transition(step)? {
                Transition::Lapse(lapse) => replay.lapse(lapse)?,
                Transition::Claim(index, row) => replay.claim(index, row)?,
                Transition::Change(change, row) => replay.change(change, row)?,
                Transition::Redeem(index, redemption, row) => replay.redeem(index, redemption, row)?,
            }
        }
        replay.check_final_state()
    }

    fn check_final_state(&self) -> Checked {
        if let CodeState::Held(claim) = &self.state {
            self.check_claim_row(claim, claim.state, None)?;
            let redemption = claim.redemption.and_then(|index| self.code.ledger.redemption_at(index));
            let is_rolled_back = redemption.is_some_and(|redemption| redemption.rolled_back_ms.is_some());
            ensure(!is_rolled_back, Invariant::I2, || {
                format!("the redemption of request {} is rolled back without a request", claim.row.id)
            })?;
        }
        let flags = self.code.flags();
        let revoked = matches!(self.state, CodeState::Revoked);
        ensure(flags.revoked == revoked && flags.uses == 0, Invariant::I2, || {
            format!("its flags are {flags:?}, but it was {}revoked", if revoked { "" } else { "never " })
        })
    }

    fn claim(&mut self, index: u32, row: &'a Row) -> Checked {
        match self.state {
            CodeState::Free => {}
            CodeState::Held(claim) => {
                self.check_not_lapsed(row)?;
                let (id, state) = (row.id, name(claim.state));
                return fail(
                    Invariant::I2,
                    format!("request {id} claimed it while it was {state} by request {}", claim.row.id),
                );
            }
            CodeState::Revoked => {
                return fail(Invariant::I2, format!("request {} claimed a revoked code", row.id));
            }
        }
        let found = self.code.ledger.claim_status.get(&index).and_then(|status| status.first_hold_ms);
        let hold = self.code.rules.hold_ms.map(|hold| row.decided_ms + hold);
        ensure(found == hold, Invariant::I11, || {
            format!("request {}: its outcome has hold until {found:?}, expected {hold:?}", row.id)
        })?;
        let claim = LiveClaim { index, row, state: CLAIMED, hold, lock: None, order: None, redemption: None };
        self.state = CodeState::Held(claim);
        Ok(())
    }

    /// I11: a deadline that has passed lapses before anything else is decided.
    fn check_not_lapsed(&self, row: &Row) -> Checked {
        let CodeState::Held(LiveClaim { state, hold, lock, .. }) = self.state else { return Ok(()) };
        let (what, deadline) = match state {
            CLAIMED => ("hold", hold),
            LOCKED => ("lock", lock),
            _ => return Ok(()),
        };
        ensure(deadline.is_none_or(|deadline| deadline > row.decided_ms), Invariant::I11, || {
            let (deadline, at) = (deadline.unwrap_or(0), row.decided_ms);
            format!(
                "its {what} ended at {deadline}, but had not lapsed when request {} was decided at {at}",
                row.id
            )
        })
    }

    /// The live claim, for a request that needs one.
    fn live_claim(&self, row: &Row) -> Checked<LiveClaim<'a>> {
        self.check_not_lapsed(row)?;
        match self.state {
            CodeState::Held(claim) => Ok(claim),
            _ => fail(Invariant::I2, format!("request {} was accepted when no user held the code", row.id)),
        }
    }

    /// The live claim, for a request that only its user may make.
    fn own_claim(&self, row: &Row) -> Checked<LiveClaim<'a>> {
        let claim = self.live_claim(row)?;
        ensure(claim.row.user == row.user, Invariant::I2, || {
            format!("request {} was accepted when another user held the code", row.id)
        })?;
        Ok(claim)
    }

    fn redeem(&mut self, index: u32, redemption: &'a Redemption, row: &'a Row) -> Checked {
        let mut claim = self.own_claim(row)?;
        let order = &*redemption.order;
        ensure(claim.state != CLAIMED || !self.code.rules.requires_lock, Invariant::I11, || {
            format!("request {} redeemed it without a live lock", row.id)
        })?;
        ensure(matches!(claim.state, CLAIMED | LOCKED), Invariant::I2, || {
            format!("request {} redeemed it when it was {}", row.id, name(claim.state))
        })?;
        ensure(claim.order.is_none_or(|locked| locked == order), Invariant::I2, || {
            let locked = claim.order.unwrap_or_default();
            format!("request {} redeemed it for order {order:?}, but the lock is for {locked:?}", row.id)
        })?;
        ensure(redemption.claimed_ms == Some(claim.row.decided_ms), Invariant::I2, || {
            format!("the redemption of request {} has the time of another claim", row.id)
        })?;
        (claim.state, claim.hold, claim.lock) = (REDEEMED, None, None);
        (claim.order, claim.redemption) = (Some(order), Some(index));
        self.state = CodeState::Held(claim);
        Ok(())
    }

    fn change(&mut self, change: &'a Change, row: &'a Row) -> Checked {
        match change.operation {
            Operation::Lock => {
                let mut claim = in_state(self.own_claim(row)?, CLAIMED, row)?;
                (claim.state, claim.order) = (LOCKED, change.order.as_deref());
                claim.lock = Some(row.decided_ms + self.code.rules.lock_ms);
                self.hold(claim, change, row)
            }
            Operation::Unlock => {
                let mut claim = in_state(self.own_claim(row)?, LOCKED, row)?;
                (claim.state, claim.lock, claim.order) = (CLAIMED, None, None);
                if claim.hold.is_some_and(|hold| hold <= row.decided_ms) {
                    // The next step is the lapse of the hold.
                    self.state = CodeState::Held(claim);
                    return check_outcome(change, row, RETURNED, claim.row);
                }
                self.hold(claim, change, row)
            }
            Operation::Return => {
                let claim = in_state(self.own_claim(row)?, CLAIMED, row)?;
                check_outcome(change, row, RETURNED, claim.row)?;
                self.state = CodeState::Free;
                self.check_claim_row(&claim, RETURNED, None)
            }
            Operation::Rollback => self.roll_back(change, row),
            Operation::Revoke => self.revoke(change, row),
            Operation::Unknown => {
                fail(Invariant::I2, format!("request {} is of a kind that is never accepted", row.id))
            }
        }
    }

    fn roll_back(&mut self, change: &'a Change, row: &'a Row) -> Checked {
        let ledger = self.code.ledger;
        let mut claim = in_state(self.live_claim(row)?, REDEEMED, row)?;
        let redemption = claim.redemption.and_then(|index| ledger.redemption_at(index));
        let id = redemption.and_then(|redemption| ledger.row_at(redemption.row)).map(|row| row.id);
        ensure(id == change.redemption, Invariant::I2, || {
            format!("request {} rolled back a redemption other than the live one", row.id)
        })?;
        ensure(redemption.is_some_and(|r| r.rolled_back_ms == Some(row.decided_ms)), Invariant::I2, || {
            format!("request {} rolled back a redemption whose row differs", row.id)
        })?;
        (claim.state, claim.order, claim.redemption) = (CLAIMED, None, None);
        claim.hold = self.code.rules.hold_ms.map(|hold| row.decided_ms + hold);
        self.hold(claim, change, row)
    }

    fn revoke(&mut self, change: &'a Change, row: &'a Row) -> Checked {
        self.check_not_lapsed(row)?;
        match std::mem::replace(&mut self.state, CodeState::Revoked) {
            CodeState::Free => {
                ensure(change.state == REVOKED && change.claimed_ms.is_none(), Invariant::I2, || {
                    format!("request {} revoked a free code, but its outcome has a claim", row.id)
                })
            }
            CodeState::Held(claim) => {
                ensure(claim.state != REDEEMED, Invariant::I2, || {
                    format!("request {} revoked it when it was REDEEMED", row.id)
                })?;
                check_outcome(change, row, REVOKED, claim.row)?;
                self.check_claim_row(&claim, REVOKED, None)
            }
            CodeState::Revoked => fail(Invariant::I2, format!("request {} revoked it again", row.id)),
        }
    }

    fn lapse(&mut self, lapse: &Lapse) -> Checked {
        if self.is_after_snapshot(lapse) {
            return Ok(());
        }
        let what = if lapse.of_hold { "hold" } else { "lock" };
        let CodeState::Held(mut claim) = self.state else {
            return fail(Invariant::I11, format!("its {what} lapsed at {}, when no user held it", lapse.at));
        };
        let (state, deadline) = if lapse.of_hold { (CLAIMED, claim.hold) } else { (LOCKED, claim.lock) };
        let is_due = claim.state == state && deadline == Some(lapse.at) && claim.row.user == lapse.user;
        ensure(is_due, Invariant::I11, || {
            let now = name(claim.state);
            format!("its {what} lapsed at {}, when it was {now} with {what} until {deadline:?}", lapse.at)
        })?;
        if lapse.of_hold {
            self.state = CodeState::Free;
            return self.check_claim_row(&claim, RETURNED, Some(lapse.at));
        }
        (claim.state, claim.order) = (CLAIMED, None);
        self.state = CodeState::Held(claim);
        Ok(())
    }

    /// Whether the lapse of a lock that may have happened after the snapshot did so: the row of the claim is still locked, or
    /// the lock is not the one of the steps so far.
    fn is_after_snapshot(&self, lapse: &Lapse) -> bool {
        let is_this_lock = |claim: &LiveClaim<'_>| {
            claim.state == LOCKED && claim.lock == Some(lapse.at) && claim.row.user == lapse.user
        };
        let is_in_row = matches!(
            &self.state,
            CodeState::Held(claim) if is_this_lock(claim) && claim.row.state != LOCKED
        );
        lapse.may_be_later && !lapse.of_hold && !is_in_row
    }

    /// Sets the claim as a request left it. The outcome of the request must have the same state and deadlines.
    fn hold(&mut self, claim: LiveClaim<'a>, change: &Change, row: &Row) -> Checked {
        check_outcome(change, row, claim.state, claim.row)?;
        let (found, expected) = ((change.hold_until_ms, change.lock_until_ms), (claim.hold, claim.lock));
        ensure(found == expected, Invariant::I11, || {
            format!("request {}: its outcome has deadlines {found:?}, expected {expected:?}", row.id)
        })?;
        self.state = CodeState::Held(claim);
        Ok(())
    }

    /// The row of a claim equals the result of all steps.
    fn check_claim_row(&self, claim: &LiveClaim<'_>, state: i16, lapsed: Option<i64>) -> Checked {
        ensure(claim.row.state == state, Invariant::I2, || {
            let (found, expected) = (name(claim.row.state), name(state));
            format!(
                "the row of request {} has state {found}, but its outcomes lead to {expected}",
                claim.row.id
            )
        })?;
        let plain = ClaimStatus::default();
        let status = self.code.ledger.claim_status.get(&claim.index).unwrap_or(&plain);
        let has_ended = matches!(state, RETURNED | REVOKED);
        let expected = if has_ended {
            (None, None, None, lapsed)
        } else {
            (claim.hold, claim.lock, claim.order, lapsed)
        };
        let found = (status.hold_until_ms, status.lock_until_ms, status.order.as_deref(), status.lapsed_ms);
        ensure(found == expected, Invariant::I11, || {
            format!(
                "the row of request {} has hold, lock, order and lapse {found:?}, expected {expected:?}",
                claim.row.id
            )
        })
    }
}

fn in_state<'a>(claim: LiveClaim<'a>, state: i16, row: &Row) -> Checked<LiveClaim<'a>> {
    ensure(claim.state == state, Invariant::I2, || {
        let (found, expected) = (name(claim.state), name(state));
        format!("request {} was accepted when it was {found}, not {expected}", row.id)
    })?;
    Ok(claim)
}

/// The outcome of a request names this claim, in this state.
fn check_outcome(change: &Change, row: &Row, state: i16, claim: &Row) -> Checked {
    ensure(change.state == state && change.claimed_ms == Some(claim.decided_ms), Invariant::I2, || {
        let (found, expected) = (name(change.state), name(state));
        let claimed = change.claimed_ms;
        format!("request {}: its outcome has a {found} claim of {claimed:?}, expected {expected}", row.id)
    })
}
