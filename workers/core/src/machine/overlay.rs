//! What the batch that is being written does to what was read of codes and claims: no read is sure to show it.

use super::codes::{Codes, Place, Set, Standing, earlier, redemption_of};
use crate::domain::batch::{Batch, Decision, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::CodeNumber;
use crate::domain::words::Kind;
use crate::planted::{Bug, Planted};

impl Codes {
    /// What the batch that is being written does to what was read.
    pub(super) fn overlay(&mut self, batch: &Batch, planted: Planted) {
        if self.is_empty() {
            return;
        }
        self.overlay_redemptions(batch);
        for (name, applied) in self.names.values_mut().filter_map(|known| {
            let applied = batch.loads.iter().find(|applied| applied.load == known.load)?;
            Some((known, applied))
        }) {
            name.base = Some(applied.base);
            let place = (name.coupon, CodeNumber(applied.base + name.idx));
            let standing = || Standing { code: name.code.clone(), claim: None, flags: name.flags };
            self.standings.entry(place).or_insert_with(standing);
        }
        let overlaid = if planted.has(Bug::LapsedTwice) { Set::default() } else { overlaid(batch) };
        for place in &overlaid {
            if let Some(standing) = self.standings.get_mut(place) {
                standing.claim = None;
            }
        }
        self.due.retain(|(_, coupon, number)| !overlaid.contains(&(*coupon, *number)));
        for claim in live_claims(batch) {
            self.overlay_claim(claim);
        }
        for change in &batch.claims {
            if change.claim.status.lapsed.is_some() {
                self.lapsed.insert((change.claim.coupon, change.claim.number, change.claim.user.clone()));
            }
        }
        for change in &batch.code_flags {
            if let Some(standing) = self.standings.get_mut(&(change.coupon, change.number)) {
                standing.flags = change.after;
            }
        }
    }

    fn overlay_claim(&mut self, claim: Claim) {
        let place = (claim.coupon, claim.number);
        let deadline = claim.status.deadline();
        let due = deadline.filter(|deadline| *deadline <= self.until);
        match due {
            Some(deadline) if self.looked => {
                self.due.insert((deadline, place.0, place.1));
            }
            _ => self.beyond = earlier(self.beyond, deadline),
        }
        if due.is_some() || self.standings.contains_key(&place) {
            self.claimed(place, claim);
        }
    }

    fn overlay_redemptions(&mut self, batch: &Batch) {
        for decision in &batch.decisions {
            let Some((stored, order, code)) = redemption_of(decision) else { continue };
            let id = stored.redemption.id;
            if decision.kind == Kind::Redeem {
                self.freed.remove(&order);
                self.orders.insert(order);
            } else {
                self.orders.remove(&order);
                self.freed.insert(order);
            }
            if self.wanted.contains(&id) {
                let place = (stored.coupon, stored.number);
                self.standings.entry(place).or_insert_with(|| Standing::of(code));
                self.redemptions.insert(id, stored);
            }
        }
    }
}

/// The codes whose claims a batch makes or changes.
fn overlaid(batch: &Batch) -> Set<Place> {
    let changed = batch.claims.iter().map(|change| (change.claim.coupon, change.claim.number));
    let claimed = batch.decisions.iter().filter_map(|decision| match decision.verdict {
        Verdict::Claimed { number, .. } => Some((decision.coupon?, number)),
        Verdict::Changed(_) | Verdict::Rejected(_) => None,
    });
    changed.chain(claimed).collect()
}

/// The live claims among those that a batch makes or changes, as it leaves them.
fn live_claims(batch: &Batch) -> impl Iterator<Item = Claim> {
    let changed: Set<u128> = batch.claims.iter().map(|change| change.claim.id.identity).collect();
    let kept = batch.claims.iter().filter(|change| change.claim.status.is_live());
    let unchanged = batch.decisions.iter().filter(move |decision| !changed.contains(&decision.id.identity));
    unchanged.filter_map(claim_of).chain(kept.map(|change| change.claim.clone()))
}

/// The claim that a decision made.
fn claim_of(decision: &Decision) -> Option<Claim> {
    let Verdict::Claimed { number, code, hold_until } = &decision.verdict else { return None };
    Some(Claim {
        id: decision.id,
        coupon: decision.coupon?,
        number: *number,
        code: code.clone(),
        user: decision.user.clone(),
        claimed: decision.decided,
        status: ClaimStatus::claimed(*hold_until),
    })
}
