//! What one batch knows of the codes that its records name and of the claims that lapse in it, and what it has
//! changed of them so far.
//!
//! Nothing of this is remembered from batch to batch: it is read for each batch that needs it. The batch that is
//! being written while this one is gathered overlays what was read, since no read is sure to show it.

use crate::domain::batch::{Batch, ClaimChange, CodeFlags, CodeFlagsChange, Decision, RolledBack, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::{CodeNumber, CouponNo, LoadId, Millis, RequestId};
use crate::domain::words::{ClaimState, Kind};
use crate::interface::{DueClaims, LookupResults, OrderLookup, StoredCode, StoredRedemption};
use foldhash::fast::FixedState;
use std::collections::{BTreeSet, HashMap, HashSet};

type Map<K, V> = HashMap<K, V, FixedState>;
pub(super) type Set<T> = HashSet<T, FixedState>;

/// A code of a coupon.
pub(super) type Place = (CouponNo, CodeNumber);

/// What is known of a code.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The code as shown to people.
    pub(super) code: Box<str>,
    /// Its live claim.
    pub(super) claim: Option<Claim>,
    pub(super) flags: CodeFlags,
}

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// To this code.
    Place(Place),
    /// To no code of this coupon that is stock.
    Unknown,
    /// To a code whose load becomes stock with this very batch: the next one has read it.
    NotYet,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Codes {
    pub(super) names: Map<Box<str>, StoredCode>,
    pub(super) standings: Map<Place, Standing>,
    pub(super) lapsed: Set<(CouponNo, CodeNumber, Box<str>)>,
    pub(super) redemptions: Map<RequestId, StoredRedemption>,
    pub(super) orders: Set<OrderLookup>,
    /// Orders whose redemptions the batch that is being written rolls back: a read may show the time before.
    pub(super) freed: Set<OrderLookup>,
    /// Deadlines up to `until` that have not fired.
    pub(super) due: BTreeSet<(Millis, CouponNo, CodeNumber)>,
    /// The time of the last record that was gathered.
    pub(super) until: Millis,
    /// The last one that was read, where there are more: what comes after it may not be known.
    horizon: Option<(Millis, CouponNo, CodeNumber)>,
    /// The earliest deadline beyond `until`.
    pub(super) beyond: Option<Millis>,
    /// Whether deadlines were looked for.
    pub(super) looked: bool,

    changes: Vec<ClaimChange>,
    changed: Map<u128, usize>,
    made: Set<u128>,
    code_flags: Vec<CodeFlagsChange>,
    rolled_back: Vec<RolledBack>,
    redeemed: Set<RequestId>,
    /// Redemptions that this batch is asked to roll back.
    pub(super) wanted: Set<RequestId>,
    coupon_ids: Map<CouponNo, Box<str>>,
}

impl Standing {
    /// Of a code of which no more is known.
    pub(super) fn of(code: &str) -> Self {
        Self { code: code.into(), claim: None, flags: CodeFlags::default() }
    }
}

impl Codes {
    /// Of a batch whose last record brings the time to `until`.
    pub(super) fn new(until: Millis, wanted: impl IntoIterator<Item = RequestId>) -> Self {
        Self { until, wanted: wanted.into_iter().collect(), ..Self::default() }
    }

    /// The coupons of the claims that are due.
    pub(super) fn coupon_ids(&self) -> impl Iterator<Item = &Box<str>> {
        self.coupon_ids.values()
    }

    /// The coupons of everything that is known.
    pub(super) fn coupons(&self) -> impl Iterator<Item = CouponNo> {
        self.standings.keys().map(|(coupon, _)| *coupon)
    }

    /// Whether the batch names no code, rolls nothing back, and nothing lapses in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.looked && self.names.is_empty() && self.wanted.is_empty()
    }

    /// The time of the last record that was gathered.
    pub(super) const fn until(&self) -> Millis {
        self.until
    }

    /// Takes in what was read; `limit` is how many due claims were asked for at most.
    pub(super) fn learn(&mut self, answers: &mut LookupResults, limit: usize) {
        for known in answers.codes.drain(..) {
            if let Some(base) = known.base {
                let place = (known.coupon, CodeNumber(base + known.idx));
                let (code, claim) = (known.code.clone(), known.claim.clone());
                self.standings.insert(place, Standing { code, claim, flags: known.flags });
            }
            self.names.insert(known.key.clone(), known);
        }
        self.lapsed.extend(answers.lapsed.drain(..));
        let redemptions = answers.redemptions.drain(..);
        self.redemptions.extend(redemptions.map(|stored| (stored.redemption.id, stored)));
        let freed = &self.freed;
        self.orders.extend(answers.orders.drain(..).filter(|order| !freed.contains(order)));
        if let Some(due) = answers.due.take() {
            self.learn_due(due, limit);
        }
    }

    pub(super) fn claimed(&mut self, place: Place, claim: Claim) {
        let standing = self.standings.entry(place).or_insert_with(|| Standing::of(&claim.code));
        standing.claim = Some(claim);
    }

    fn learn_due(&mut self, due: DueClaims, limit: usize) {
        self.looked = true;
        self.beyond = due.next;
        if due.claims.len() >= limit {
            let last = due.claims.last().map(|(_, claim)| claim);
            self.horizon =
                last.and_then(|claim| Some((claim.status.deadline()?, claim.coupon, claim.number)));
        }
        for (coupon_id, claim) in due.claims {
            let place = (claim.coupon, claim.number);
            self.coupon_ids.insert(claim.coupon, coupon_id);
            self.due.extend(claim.status.deadline().map(|deadline| (deadline, place.0, place.1)));
            self.claimed(place, claim);
        }
    }

    /// Where a name leads, for a request about this coupon; `applied` are the loads of this batch.
    pub(super) fn named(&self, key: &str, coupon: CouponNo, applied: impl Fn(LoadId) -> bool) -> Named {
        match self.names.get(key).filter(|known| known.coupon == coupon) {
            Some(StoredCode { base: Some(base), idx, .. }) => Named::Place((coupon, CodeNumber(base + idx))),
            Some(known) if applied(known.load) => Named::NotYet,
            Some(_) | None => Named::Unknown,
        }
    }

    pub(super) fn standing(&self, place: Place) -> Option<&Standing> {
        self.standings.get(&place)
    }

    /// Whether a claim of this user to this code has lapsed.
    pub(super) fn has_lapsed(&self, place: Place, user: &str) -> bool {
        !self.lapsed.is_empty() && self.lapsed.contains(&(place.0, place.1, user.into()))
    }

    /// Whether an order was paid for with this code.
    pub(super) fn order_used(&self, place: Place, order: &str) -> bool {
        let claim = self.standings.get(&place).and_then(|standing| standing.claim.as_ref());
        if let Some(ClaimStatus { state, order: named, .. }) = claim.map(|claim| &claim.status) {
            return *state == ClaimState::Redeemed && named.as_deref() == Some(order);
        }
        let order = OrderLookup { coupon: place.0, number: place.1, order: order.into() };
        self.orders.contains(&order)
    }

    pub(super) fn redemption(&self, id: RequestId) -> Option<&StoredRedemption> {
        self.redemptions.get(&id)
    }

    /// The live claim of a code.
    pub(super) fn claim(&self, place: Place) -> Option<&Claim> {
        self.standings.get(&place)?.claim.as_ref()
    }

    /// The codes whose claims lapse in this batch, as far as it is known before it is decided.
    pub(super) fn due(&self) -> impl Iterator<Item = Place> {
        self.due.iter().map(|(_, coupon, number)| (*coupon, *number))
    }

    /// The redemptions that are known.
    pub(super) fn redemptions(&self) -> impl Iterator<Item = &StoredRedemption> {
        self.redemptions.values()
    }

    /// A new claim; only told where something can still happen to it in this batch.
    pub(super) fn made(&mut self, place: Place, claim: impl FnOnce() -> Claim, hold_until: Option<Millis>) {
        let due = hold_until.is_some_and(|until| until <= self.until);
        if !due {
            self.beyond = earlier(self.beyond, hold_until);
        }
        if !due && (self.standings.is_empty() || !self.standings.contains_key(&place)) {
            return;
        }
        let claim = claim();
        self.made.insert(claim.id.identity);
        self.expect(place, claim.status.deadline());
        self.claimed(place, claim);
    }

    /// New terms of the claim of a code; answers the claim as it is now.
    pub(super) fn change(&mut self, place: Place, status: ClaimStatus) -> Option<Claim> {
        let claim = self.standings.get_mut(&place)?.claim.as_mut()?;
        let before = (claim.status.state, claim.status.deadline());
        claim.status = status;
        let claim = claim.clone();
        let made_here = self.made.contains(&claim.id.identity);
        let place_of = *self.changed.entry(claim.id.identity).or_insert(self.changes.len());
        match self.changes.get_mut(place_of) {
            Some(change) => change.claim = claim.clone(),
            None => self
                .changes
                .push(ClaimChange { before: (!made_here).then_some(before), claim: claim.clone() }),
        }
        if claim.status.lapsed.is_some() {
            self.lapsed.insert((place.0, place.1, claim.user.clone()));
        }
        if !claim.status.is_live()
            && let Some(standing) = self.standings.get_mut(&place)
        {
            standing.claim = None;
        }
        self.expect(place, claim.status.deadline());
        Some(claim)
    }

    /// The mark of a code changes.
    pub(super) fn flags(&mut self, place: Place, after: CodeFlags) {
        let Some(standing) = self.standings.get_mut(&place) else { return };
        let before = std::mem::replace(&mut standing.flags, after);
        match self.code_flags.iter_mut().find(|change| (change.coupon, change.number) == place) {
            Some(change) => change.after = after,
            None => self.code_flags.push(CodeFlagsChange { coupon: place.0, number: place.1, before, after }),
        }
    }

    /// A redemption was made in this batch.
    pub(super) fn redeemed(&mut self, decision: &Decision) {
        let Some((stored, order, _)) = redemption_of(decision) else { return };
        if self
            .standings
            .get(&(stored.coupon, stored.number))
            .is_some_and(|standing| standing.claim.is_none())
        {
            self.orders.insert(order);
        }
        if self.wanted.contains(&decision.id) {
            self.redeemed.insert(decision.id);
            self.redemptions.insert(decision.id, stored);
        }
    }

    /// A redemption was rolled back in this batch.
    pub(super) fn roll_back(&mut self, id: RequestId, at: Millis) {
        let Some(stored) = self.redemptions.get_mut(&id) else { return };
        stored.rolled_back = true;
        let order = stored.redemption.order.clone();
        let order = OrderLookup { coupon: stored.coupon, number: stored.number, order };
        self.orders.remove(&order);
        self.rolled_back.push(RolledBack { id, at, made_here: self.redeemed.contains(&id) });
    }

    /// The next code whose claim has a deadline up to `now`.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<(Millis, Place)> {
        let known = |due: &(Millis, CouponNo, CodeNumber)| self.horizon.is_none_or(|last| *due <= last);
        let first = self.due.first().filter(|due| due.0 <= now && known(due))?;
        let (deadline, coupon, number) = *first;
        self.due.pop_first();
        Some((deadline, (coupon, number)))
    }

    /// A deadline that could not fire stays due.
    pub(super) fn put_back_due(&mut self, deadline: Millis, place: Place) {
        self.due.insert((deadline, place.0, place.1));
    }

    /// Whether every deadline up to `now` is known and has fired.
    pub(super) fn has_fired_all(&self, now: Millis) -> bool {
        let left = self.due.first().is_some_and(|(deadline, ..)| *deadline <= now);
        !left && self.horizon.is_none_or(|(horizon, ..)| now < horizon)
    }

    /// No live claim lapses before this, as far as this batch knows; `known` is what was known before it.
    pub(super) fn none_lapse_before(&self, known: Millis) -> Millis {
        let left = self.due.first().map(|(deadline, ..)| *deadline);
        let found = earlier(earlier(left, self.horizon.map(|(horizon, ..)| horizon)), self.beyond)
            .unwrap_or(Millis(i64::MAX));
        if self.looked { found } else { found.min(known) }
    }

    /// Whether nothing has lapsed or been changed yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.changes.is_empty()
    }

    /// What this batch has changed.
    pub(super) fn write_to(self, batch: &mut Batch) {
        batch.claims = self.changes;
        batch.code_flags = self.code_flags;
        batch.rolled_back = self.rolled_back;
    }

    fn expect(&mut self, place: Place, deadline: Option<Millis>) {
        match deadline {
            Some(deadline) if deadline <= self.until => {
                self.due.insert((deadline, place.0, place.1));
            }
            deadline => self.beyond = earlier(self.beyond, deadline),
        }
    }
}

pub(super) fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The redemption that a decision made or rolled back.
pub(super) fn redemption_of(decision: &Decision) -> Option<(StoredRedemption, OrderLookup, &str)> {
    let Verdict::Changed(changed) = &decision.verdict else { return None };
    let (redemption, coupon) = (changed.redemption.clone()?, decision.coupon?);
    let order = OrderLookup { coupon, number: changed.number, order: redemption.order.clone() };
    let (number, user) = (changed.number, decision.user.clone());
    let rolled_back = decision.kind == Kind::Rollback;
    Some((StoredRedemption { redemption, coupon, number, user, rolled_back }, order, &changed.code))
}
