//! What a write does that is refused by nothing.

use super::refusing::{is_row_of_its_own, lapses, order_of};
use super::{ClaimRow, Entry, Ledger, LoadState, Map, RedemptionRow};
use crate::plan::Flaw;
use coupon_core::batch::{Batch, CodeFlags, Decision, Redemption, Verdict};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, Millis, RequestId};

impl Ledger {
    /// What `write_batch` and `write_life` write.
    pub(crate) fn commit(&mut self, batch: &Batch) {
        let row = &mut self.row;
        if self.flaw != Flaw::WriteNumberNotCounted {
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
            let told = batch.decisions.iter().chain(&batch.duplicates);
            let entry = Entry {
                ids: told.map(|decision| decision.id).collect(),
                dead_letters: batch.dead_letters.clone(),
                events: batch.events.clone(),
            };
            self.outbox.insert(seq, entry);
        }
    }

    fn commit_decisions(&mut self, batch: &Batch) {
        let mut made: Map<u128, &ClaimStatus> = Map::default();
        for change in &batch.claims {
            match change.before {
                Some(_) => self.set_terms(change.claim.id.identity, change.claim.status.clone()),
                None => drop(made.insert(change.claim.id.identity, &change.claim.status)),
            }
        }
        for rolled_back in batch.rolled_back.iter().filter(|rolled_back| !rolled_back.made_here) {
            self.roll_back(rolled_back.id, rolled_back.at);
        }
        for decision in &batch.decisions {
            let terms = made.get(&decision.id.identity).map(|terms| (*terms).clone());
            let undone = batch.rolled_back.iter().find(|back| back.made_here && back.id == decision.id);
            self.store(decision.clone(), terms, undone.map(|undone| undone.at));
        }
        for change in &batch.code_flags {
            self.set_mark(change.coupon, change.number, change.after);
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
                let _was_there = if add { set.insert(number.0) } else { set.remove(&number.0) };
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

    /// Inserts a row of `claims`, `redemptions` or `outcomes`. `terms` are those of a claim that did not stay as it was
    /// made; `undone` is when a redemption was rolled back.
    pub(crate) fn store(&mut self, decision: Decision, terms: Option<ClaimStatus>, undone: Option<Millis>) {
        let id = decision.id;
        match (&decision.verdict, decision.coupon) {
            (Verdict::Claimed { number, code, hold_until }, Some(coupon)) => {
                let claim = Claim {
                    id,
                    coupon,
                    number: *number,
                    code: code.clone(),
                    user: decision.user.clone(),
                    claimed: decision.decided,
                    status: terms.unwrap_or_else(|| ClaimStatus::claimed(*hold_until)),
                };
                self.index(&claim, true);
                self.claims.insert(id.identity, ClaimRow { decision, claim });
            }
            (Verdict::Changed(changed), Some(coupon)) if is_row_of_its_own(&decision) => {
                let Some(redemption) = changed.redemption.clone() else { return };
                let (number, user) = (changed.number, decision.user.clone());
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
                self.outcomes.entry((id.identity, id.body)).or_default().push(decision);
            }
        }
    }

    fn set_terms(&mut self, identity: u128, terms: ClaimStatus) {
        let Some(row) = self.claims.get_mut(&identity) else { return };
        let before = row.claim.clone();
        row.claim.status = terms;
        let after = row.claim.clone();
        self.index(&before, false);
        self.index(&after, true);
    }

    /// What indexes and counts say of a claim.
    fn index(&mut self, claim: &Claim, add: bool) {
        let terms = &claim.status;
        if let Some(deadline) = terms.deadline().filter(|_| lapses(terms.state)) {
            let row = (deadline, claim.coupon, claim.number, claim.id.identity);
            let _was_there = if add { self.deadlines.insert(row) } else { self.deadlines.remove(&row) };
        }
        if add && terms.lapsed.is_some() {
            self.lapsed.insert((claim.coupon, claim.number, claim.user.clone()));
        }
        let Some(coupon) = self.coupon_mut(claim.coupon).filter(|_| terms.is_live()) else { return };
        let users = coupon.users.entry(claim.user.clone()).or_default();
        if add {
            *users += 1;
            coupon.live.insert(claim.number.0, claim.id.identity);
        } else {
            *users -= 1;
            coupon.live.remove(&claim.number.0);
        }
    }

    fn roll_back(&mut self, id: RequestId, at: Millis) {
        let Some(row) = self.redemptions.get_mut(&id.identity) else { return };
        row.rolled_back = Some(at);
        let row = row.clone();
        self.index_redemption(row.coupon, row.number, &row.decision.user, &row.redemption, false);
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
        let _was_there = if add { self.orders.insert(order) } else { self.orders.remove(&order) };
        let Some(coupon) = self.coupon_mut(coupon) else { return };
        let times = coupon.redeemers.entry(user.into()).or_default();
        let paid = coupon.paid.entry(number.0).or_default();
        if add {
            *times += 1;
            paid.push(redemption.id);
        } else {
            *times -= 1;
            paid.retain(|id| *id != redemption.id);
        }
    }

    pub(crate) fn set_mark(&mut self, coupon: CouponNo, number: CodeNumber, flags: CodeFlags) {
        if let Some(coupon) = self.coupon_mut(coupon) {
            coupon.code_flags.insert(number.0, flags);
        }
    }
}
