//! Overlays the changes of the batch that is written on what was read: a read may show the state before them.

use super::{CodeId, CodeState, Codes, Set, redemption_of};
use crate::domain::batch::{Batch, Decision, LoadApplied, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::CodeNumber;
use crate::domain::words::Kind;
use crate::planted::{Bug, Planted};

impl Codes {
    /// Overlays the changes of the batch that is written.
    pub(in crate::machine) fn overlay(&mut self, batch: &Batch, planted: Planted) {
        if self.is_empty() {
            return;
        }
        self.overlay_redemptions(batch);
        self.overlay_loads(&batch.loads);
        let changed = if planted.has(Bug::LapsedTwice) { Set::default() } else { changed_codes(batch) };
        for id in &changed {
            if let Some(state) = self.states.get_mut(id) {
                state.claim = None;
            }
        }
        self.due.retain(|id| !changed.contains(&id));
        for claim in live_claims(batch) {
            self.overlay_claim(claim);
        }
        for change in &batch.claims {
            if change.claim.status.lapsed.is_some() {
                self.lapsed.insert((change.claim.coupon, change.claim.number, change.claim.user.clone()));
            }
        }
        for change in &batch.code_flags {
            if let Some(state) = self.states.get_mut(&(change.coupon, change.number)) {
                state.flags = change.after;
            }
        }
    }

    fn overlay_loads(&mut self, loads: &[LoadApplied]) {
        for stored in self.names.values_mut() {
            let Some(applied) = loads.iter().find(|applied| applied.load == stored.load) else { continue };
            stored.base = Some(applied.base);
            let id = (stored.coupon, CodeNumber(applied.base + stored.idx));
            let state = || CodeState { code: stored.code.clone(), claim: None, flags: stored.flags };
            self.states.entry(id).or_insert_with(state);
        }
    }

    fn overlay_claim(&mut self, claim: Claim) {
        let id = (claim.coupon, claim.number);
        let deadline = claim.status.deadline();
        let is_due = deadline.is_some_and(|deadline| deadline <= self.due.until());
        if is_due && self.due.was_read() {
            self.due.expect(id, deadline);
        } else {
            self.due.expect_later(deadline);
        }
        if is_due || self.states.contains_key(&id) {
            self.set_claim(id, claim);
        }
    }

    fn overlay_redemptions(&mut self, batch: &Batch) {
        for decision in &batch.decisions {
            let Some((stored, order, code)) = redemption_of(decision) else { continue };
            let redemption = stored.redemption.id;
            if decision.request.kind == Kind::Redeem {
                self.freed_orders.remove(&order);
                self.orders.insert(order);
            } else {
                self.orders.remove(&order);
                self.freed_orders.insert(order);
            }
            if self.to_roll_back.contains(&redemption) {
                let id = (stored.coupon, stored.number);
                self.states.entry(id).or_insert_with(|| CodeState::of(code));
                self.redemptions.insert(redemption, stored);
            }
        }
    }
}

/// The codes whose claims a batch makes or changes.
fn changed_codes(batch: &Batch) -> Set<CodeId> {
    let changed = batch.claims.iter().map(|change| (change.claim.coupon, change.claim.number));
    let claimed = batch.decisions.iter().filter_map(|decision| match decision.verdict {
        Verdict::Claimed { number, .. } => Some((decision.coupon?, number)),
        Verdict::Changed(_) | Verdict::Rejected(_) => None,
    });
    changed.chain(claimed).collect()
}

/// The live claims after a batch, of those that it makes or changes.
fn live_claims(batch: &Batch) -> impl Iterator<Item = Claim> {
    let changed: Set<u128> = batch.claims.iter().map(|change| change.claim.id.identity).collect();
    let live = batch.claims.iter().filter(|change| change.claim.status.is_live());
    let unchanged =
        batch.decisions.iter().filter(move |decision| !changed.contains(&decision.request.id.identity));
    unchanged.filter_map(claim_of).chain(live.map(|change| change.claim.clone()))
}

/// The claim that a decision made.
fn claim_of(decision: &Decision) -> Option<Claim> {
    let Verdict::Claimed { number, code, hold_until } = &decision.verdict else { return None };
    Some(Claim {
        id: decision.request.id,
        coupon: decision.coupon?,
        number: *number,
        code: code.clone(),
        user: decision.request.user.clone(),
        claimed: decision.decided,
        status: ClaimStatus::claimed(*hold_until),
    })
}
