//! The changes of codes and claims by one batch.

use super::{CodeId, Codes, Map, Set, redemption_of};
use crate::domain::batch::{Batch, ClaimChange, CodeFlags, CodeFlagsChange, Decision, RolledBack};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::{Millis, RequestId};
use crate::domain::words::ClaimState;
use crate::interface::OrderLookup;

/// The changes of one batch so far.
#[derive(Debug, Default)]
pub(super) struct Changes {
    claims: Vec<ClaimChange>,
    /// Index into `claims` by identity of the claim.
    claim_index: Map<u128, usize>,
    /// Claims that this batch made.
    made: Set<u128>,
    code_flags: Vec<CodeFlagsChange>,
    rolled_back: Vec<RolledBack>,
    /// Redemptions that this batch made, of those that it rolls back.
    redeemed: Set<RequestId>,
}

impl Codes {
    /// Records a new claim. It is kept only if another transition of it can follow in this batch.
    pub(in crate::machine) fn add_claim(
        &mut self,
        id: CodeId,
        hold_until: Option<Millis>,
        claim: impl FnOnce() -> Claim,
    ) {
        let is_due = hold_until.is_some_and(|until| until <= self.due.until());
        if !is_due {
            self.due.expect_later(hold_until);
        }
        if !is_due && (self.states.is_empty() || !self.states.contains_key(&id)) {
            return;
        }
        let claim = claim();
        self.changes.made.insert(claim.id.identity);
        self.due.expect(id, claim.status.deadline());
        self.set_claim(id, claim);
    }

    /// Sets the status of a code's claim; returns the changed claim.
    pub(in crate::machine) fn change_claim(&mut self, id: CodeId, status: ClaimStatus) -> Option<Claim> {
        let state = self.states.get_mut(&id)?;
        let claim = state.claim.as_mut()?;
        let before = (claim.status.state, claim.status.deadline());
        claim.status = status;
        let claim = claim.clone();
        if !claim.status.is_live() {
            state.claim = None;
        }
        self.changes.push_claim(before, &claim);
        if claim.status.lapsed.is_some() {
            self.lapsed.insert((id.0, id.1, claim.user.clone()));
        }
        self.due.expect(id, claim.status.deadline());
        Some(claim)
    }

    /// Sets the flags of a code.
    pub(in crate::machine) fn change_flags(&mut self, id: CodeId, after: CodeFlags) {
        let Some(state) = self.states.get_mut(&id) else { return };
        let before = std::mem::replace(&mut state.flags, after);
        let flags = &mut self.changes.code_flags;
        match flags.iter_mut().find(|change| (change.coupon, change.number) == id) {
            Some(change) => change.after = after,
            None => flags.push(CodeFlagsChange { coupon: id.0, number: id.1, before, after }),
        }
    }

    /// Records the redemption of a decision.
    pub(in crate::machine) fn add_redemption(&mut self, decision: &Decision) {
        let Some((stored, order, _)) = redemption_of(decision) else { return };
        let state = self.states.get(&(stored.coupon, stored.number));
        if state.is_some_and(|state| state.claim.is_none()) {
            self.orders.insert(order);
        }
        let id = stored.redemption.id;
        if self.to_roll_back.contains(&id) {
            self.changes.redeemed.insert(id);
            self.redemptions.insert(id, stored);
        }
    }

    /// Records the rollback of a redemption.
    pub(in crate::machine) fn roll_back(&mut self, id: RequestId, at: Millis) {
        let Some(stored) = self.redemptions.get_mut(&id) else { return };
        stored.rolled_back = true;
        let order = stored.redemption.order.clone();
        let order = OrderLookup { coupon: stored.coupon, number: stored.number, order };
        self.orders.remove(&order);
        let made_here = self.changes.redeemed.contains(&id);
        self.changes.rolled_back.push(RolledBack { id, at, made_here });
    }

    /// Whether no claim has changed.
    pub(in crate::machine) fn is_unchanged(&self) -> bool {
        self.changes.claims.is_empty()
    }

    /// Moves the changes into the batch.
    pub(in crate::machine) fn write_to(self, batch: &mut Batch) {
        batch.claims = self.changes.claims;
        batch.code_flags = self.changes.code_flags;
        batch.rolled_back = self.changes.rolled_back;
    }
}

impl Changes {
    fn push_claim(&mut self, before: (ClaimState, Option<Millis>), claim: &Claim) {
        let identity = claim.id.identity;
        let index = *self.claim_index.entry(identity).or_insert(self.claims.len());
        match self.claims.get_mut(index) {
            Some(change) => change.claim = claim.clone(),
            None => {
                let before = (!self.made.contains(&identity)).then_some(before);
                self.claims.push(ClaimChange { before, claim: claim.clone() });
            }
        }
    }
}
