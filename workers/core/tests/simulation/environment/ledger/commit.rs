//! What an accepted batch writes: the partition's row, outcomes, claims, redemptions, flags, stock and the outbox entry.

use super::rejection::{can_lapse, has_own_row, order_of};
use super::tables::{ClaimRow, LoadState, OutboxEntry, RedemptionRow};
use super::{Ledger, Map};
use crate::plan::LedgerBug;
use coupon_core::batch::{Batch, CodeFlags, Decision, Redemption, Verdict};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, Millis, RequestId};

impl Ledger {
    pub(crate) fn commit(&mut self, batch: &Batch) {
        let row = &mut self.row;
        if self.bug != LedgerBug::WriteNumberNotCounted {
            row.write_no = batch.fence.write_no;
        }
        row.attempt = Some(batch.fence.attempt);
        row.position = batch.position;
        row.emitted_seq = batch.watermark;
        let seq = row.next_emit_seq;
        if batch.publishes() {
            row.next_emit_seq = seq.next();
        }
        self.commit_decisions(batch);
        self.commit_stock(batch);
        self.outbox.retain(|seq, _| *seq > batch.watermark);
        if batch.publishes() {
            let published = batch.decisions.iter().chain(&batch.duplicates);
            let entry = OutboxEntry {
                ids: published.map(|decision| decision.request.id).collect(),
                dead_letters: batch.dead_letters.clone(),
                events: batch.events.clone(),
            };
            self.outbox.insert(seq, entry);
        }
    }

    fn commit_decisions(&mut self, batch: &Batch) {
        let mut created: Map<u128, &ClaimStatus> = Map::default();
        for change in &batch.claims {
            match change.before {
                Some(_) => self.set_status(change.claim.id.identity, change.claim.status.clone()),
                None => drop(created.insert(change.claim.id.identity, &change.claim.status)),
            }
        }
        for rolled_back in batch.rolled_back.iter().filter(|rolled_back| !rolled_back.made_here) {
            self.roll_back(rolled_back.id, rolled_back.at);
        }
        for decision in &batch.decisions {
            let status = created.get(&decision.request.id.identity).map(|status| (*status).clone());
            let undone =
                batch.rolled_back.iter().find(|back| back.made_here && back.id == decision.request.id);
            self.store(decision.clone(), batch.position.time.day(), status, undone.map(|undone| undone.at));
        }
        for change in &batch.code_flags {
            self.set_flags(change.coupon, change.number, change.after);
        }
    }

    fn commit_stock(&mut self, batch: &Batch) {
        for change in &batch.stock {
            let Some(coupon) = self.coupon_mut(change.coupon) else { continue };
            coupon.stock = change.after;
            coupon.ahead = coupon.ahead.split_off(&(change.after.cursor + 1));
        }
        let numbers = [
            (&batch.ahead_taken, true, true),
            (&batch.ahead_freed, true, false),
            (&batch.returned_added, false, true),
            (&batch.returned_taken, false, false),
        ];
        for (list, ahead, add) in numbers {
            for (coupon, number) in list {
                let Some(coupon) = self.coupon_mut(*coupon) else { continue };
                let set = if ahead { &mut coupon.ahead } else { &mut coupon.returned };
                let _was_present = if add { set.insert(number.0) } else { set.remove(&number.0) };
            }
        }
        for applied in &batch.loads {
            let Some(load) = self.loads.iter_mut().find(|load| load.id == applied.load) else { continue };
            load.state = LoadState::Applied;
            let coupon = load.coupon;
            if let Some(coupon) = self.coupon_mut(coupon) {
                coupon.loads.push((applied.base, applied.load));
            }
        }
    }

    /// Inserts a row of `claims`, `redemptions` or `outcomes`. `status` is that of a claim which the same batch changed
    /// after creating it; `day` is that of the batch; `undone` is the time at which the same batch rolled the redemption back.
    pub(crate) fn store(
        &mut self,
        decision: Decision,
        day: i32,
        status: Option<ClaimStatus>,
        undone: Option<Millis>,
    ) {
        let id = decision.request.id;
        match (&decision.verdict, decision.coupon) {
            (Verdict::Claimed { number, code, hold_until }, Some(coupon)) => {
                let claim = Claim {
                    id,
                    coupon,
                    number: *number,
                    code: code.clone(),
                    user: decision.request.user.clone(),
                    claimed: decision.decided,
                    status: status.unwrap_or_else(|| ClaimStatus::claimed(*hold_until)),
                };
                self.index_claim(&claim, true);
                self.claims.insert(id.identity, ClaimRow { decision, claim });
            }
            (Verdict::Changed(changed), Some(coupon)) if has_own_row(&decision) => {
                let Some(redemption) = changed.redemption.clone() else { return };
                let (number, user) = (changed.number, decision.request.user.clone());
                if undone.is_none() {
                    self.index_redemption(coupon, number, &user, &redemption, true);
                }
                let row = RedemptionRow { decision, coupon, number, redemption, rolled_back: undone };
                self.redemptions.insert(id.identity, row);
            }
            _ => {
                let bodies = self.bodies.entry(id.identity).or_default();
                if !bodies.contains(&id.body) {
                    bodies.push(id.body);
                }
                self.outcomes.entry((id.identity, id.body)).or_default().push((day, decision));
            }
        }
    }

    fn set_status(&mut self, identity: u128, status: ClaimStatus) {
        let Some(row) = self.claims.get_mut(&identity) else { return };
        let before = row.claim.clone();
        row.claim.status = status;
        let after = row.claim.clone();
        self.index_claim(&before, false);
        self.index_claim(&after, true);
    }

    /// Adds a claim to the indexes and counters, or removes it.
    fn index_claim(&mut self, claim: &Claim, add: bool) {
        let status = &claim.status;
        if let Some(deadline) = status.deadline().filter(|_| can_lapse(status.state)) {
            let row = (deadline, claim.coupon, claim.number, claim.id.identity);
            let _was_present = if add { self.deadlines.insert(row) } else { self.deadlines.remove(&row) };
        }
        if add && status.lapsed.is_some() {
            self.lapsed.insert((claim.coupon, claim.number, claim.user.clone()));
        }
        let Some(coupon) = self.coupon_mut(claim.coupon).filter(|_| status.is_live()) else { return };
        let count = coupon.claims_by_user.entry(claim.user.clone()).or_default();
        if add {
            *count += 1;
            coupon.live_claims.insert(claim.number.0, claim.id.identity);
        } else {
            *count -= 1;
            coupon.live_claims.remove(&claim.number.0);
        }
    }

    fn roll_back(&mut self, id: RequestId, at: Millis) {
        let Some(row) = self.redemptions.get_mut(&id.identity) else { return };
        row.rolled_back = Some(at);
        let row = row.clone();
        self.index_redemption(row.coupon, row.number, &row.decision.request.user, &row.redemption, false);
    }

    fn index_redemption(
        &mut self,
        coupon: CouponNo,
        number: CodeNumber,
        user: &str,
        redemption: &Redemption,
        add: bool,
    ) {
        let order = order_of(coupon, number, &redemption.order);
        let _was_present = if add { self.orders.insert(order) } else { self.orders.remove(&order) };
        let Some(coupon) = self.coupon_mut(coupon) else { return };
        let count = coupon.redemptions_by_user.entry(user.into()).or_default();
        let ids = coupon.redemptions_by_code.entry(number.0).or_default();
        if add {
            *count += 1;
            ids.push(redemption.id);
        } else {
            *count -= 1;
            ids.retain(|id| *id != redemption.id);
        }
    }

    pub(crate) fn set_flags(&mut self, coupon: CouponNo, number: CodeNumber, flags: CodeFlags) {
        if let Some(coupon) = self.coupon_mut(coupon) {
            coupon.flags.insert(number.0, flags);
        }
    }
}
