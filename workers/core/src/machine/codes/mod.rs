//! The codes that one batch reads and changes: those that its records name, and those whose claims lapse in it.
//!
//! Nothing of this is cached from batch to batch: it is read for each batch that needs it. The changes of the batch that
//! is written meanwhile overlay what was read, since a read may show the state before them. Several transitions of one
//! claim within the batch fold into one change of its row.

mod changes;
mod due;
mod overlay;

pub(super) use due::Due;

use crate::domain::batch::{CodeFlags, Decision, Verdict};
use crate::domain::claim::{Claim, ClaimStatus};
use crate::domain::ids::{CodeNumber, CouponNo, LoadId, Millis, RequestId};
use crate::domain::words::{ClaimState, Kind};
use crate::interface::{DueClaims, LookupResults, OrderLookup, StoredCode, StoredRedemption};
use changes::Changes;
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet};

type Map<K, V> = HashMap<K, V, FixedState>;
type Set<T> = HashSet<T, FixedState>;

/// A code of a coupon.
pub(super) type CodeId = (CouponNo, CodeNumber);

/// The state of a code.
#[derive(Clone, Debug)]
pub(super) struct CodeState {
    /// The code as shown to people.
    pub(super) code: Box<str>,
    /// Its live claim.
    pub(super) claim: Option<Claim>,
    pub(super) flags: CodeFlags,
}

/// The code of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedCode {
    /// This code.
    Found(CodeId),
    /// No code of this coupon's stock.
    Unknown,
    /// A code whose load becomes stock in this batch: only the next batch can read it.
    BecomesStock,
}

/// The codes of one batch.
#[derive(Debug)]
pub(super) struct Codes {
    names: Map<Box<str>, StoredCode>,
    states: Map<CodeId, CodeState>,
    /// The users whose claims of a code have lapsed.
    lapsed: Set<(CouponNo, CodeNumber, Box<str>)>,
    redemptions: Map<RequestId, StoredRedemption>,
    /// Orders that were paid with shared codes.
    orders: Set<OrderLookup>,
    /// Orders whose redemptions the batch in flight rolls back: a read may show the state before.
    freed_orders: Set<OrderLookup>,
    /// Redemptions that records of this batch roll back.
    to_roll_back: Set<RequestId>,
    /// Coupons of the claims that lapse.
    coupon_ids: Map<CouponNo, Box<str>>,
    pub(super) due: Due,
    changes: Changes,
}

impl CodeState {
    /// A code without a claim and with default flags.
    fn of(code: &str) -> Self {
        Self { code: code.into(), claim: None, flags: CodeFlags::default() }
    }
}

impl Codes {
    /// The codes of a batch whose last record brings the time to `until`, and that rolls these redemptions back.
    pub(super) fn new(until: Millis, to_roll_back: impl IntoIterator<Item = RequestId>) -> Self {
        Self {
            names: Map::default(),
            states: Map::default(),
            lapsed: Set::default(),
            redemptions: Map::default(),
            orders: Set::default(),
            freed_orders: Set::default(),
            to_roll_back: to_roll_back.into_iter().collect(),
            coupon_ids: Map::default(),
            due: Due::new(until),
            changes: Changes::default(),
        }
    }

    /// Whether the batch names no code, rolls nothing back, and no claim lapses in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.due.was_read() && self.names.is_empty() && self.to_roll_back.is_empty()
    }

    /// Inserts the results of lookups; `due_limit` is the limit of the due lookup.
    pub(super) fn insert(&mut self, results: &mut LookupResults, due_limit: usize) {
        for stored in results.codes.drain(..) {
            if let Some(base) = stored.base {
                let id = (stored.coupon, CodeNumber(base + stored.idx));
                let (code, claim) = (stored.code.clone(), stored.claim.clone());
                self.states.insert(id, CodeState { code, claim, flags: stored.flags });
            }
            self.names.insert(stored.key.clone(), stored);
        }
        self.lapsed.extend(results.lapsed.drain(..));
        let redemptions = results.redemptions.drain(..);
        self.redemptions.extend(redemptions.map(|stored| (stored.redemption.id, stored)));
        let freed = &self.freed_orders;
        self.orders.extend(results.orders.drain(..).filter(|order| !freed.contains(order)));
        if let Some(due) = results.due.take() {
            self.insert_due(due, due_limit);
        }
    }

    fn insert_due(&mut self, due: DueClaims, limit: usize) {
        self.due.insert_read(&due, limit);
        for (coupon_id, claim) in due.claims {
            self.coupon_ids.insert(claim.coupon, coupon_id);
            self.set_claim((claim.coupon, claim.number), claim);
        }
    }

    fn set_claim(&mut self, id: CodeId, claim: Claim) {
        let state = self.states.entry(id).or_insert_with(|| CodeState::of(&claim.code));
        state.claim = Some(claim);
    }

    /// The coupons of the claims that lapse.
    pub(super) fn coupon_ids(&self) -> impl Iterator<Item = &Box<str>> {
        self.coupon_ids.values()
    }

    /// The coupons of all codes.
    pub(super) fn coupons(&self) -> impl Iterator<Item = CouponNo> {
        self.states.keys().map(|(coupon, _)| *coupon)
    }

    /// The code of a name, for a request about this coupon; `applied` returns whether this batch applies a load.
    pub(super) fn named(&self, key: &str, coupon: CouponNo, applied: impl Fn(LoadId) -> bool) -> NamedCode {
        match self.names.get(key).filter(|stored| stored.coupon == coupon) {
            Some(StoredCode { base: Some(base), idx, .. }) => {
                NamedCode::Found((coupon, CodeNumber(base + idx)))
            }
            Some(stored) if applied(stored.load) => NamedCode::BecomesStock,
            Some(_) | None => NamedCode::Unknown,
        }
    }

    pub(super) fn state(&self, id: CodeId) -> Option<&CodeState> {
        self.states.get(&id)
    }

    /// The live claim of a code.
    pub(super) fn claim(&self, id: CodeId) -> Option<&Claim> {
        self.states.get(&id)?.claim.as_ref()
    }

    /// Whether a claim of this user to this code has lapsed.
    pub(super) fn has_lapsed(&self, id: CodeId, user: &str) -> bool {
        !self.lapsed.is_empty() && self.lapsed.contains(&(id.0, id.1, user.into()))
    }

    /// Whether an order was paid with this code.
    pub(super) fn is_order_used(&self, id: CodeId, order: &str) -> bool {
        if let Some(ClaimStatus { state, order: paid, .. }) = self.claim(id).map(|claim| &claim.status) {
            return *state == ClaimState::Redeemed && paid.as_deref() == Some(order);
        }
        self.orders.contains(&OrderLookup { coupon: id.0, number: id.1, order: order.into() })
    }

    pub(super) fn redemption(&self, id: RequestId) -> Option<&StoredRedemption> {
        self.redemptions.get(&id)
    }

    pub(super) fn redemptions(&self) -> impl Iterator<Item = &StoredRedemption> {
        self.redemptions.values()
    }
}

/// The redemption that a decision made or rolled back.
fn redemption_of(decision: &Decision) -> Option<(StoredRedemption, OrderLookup, &str)> {
    let Verdict::Changed(changed) = &decision.verdict else { return None };
    let (redemption, coupon) = (changed.redemption.clone()?, decision.coupon?);
    let order = OrderLookup { coupon, number: changed.number, order: redemption.order.clone() };
    let (number, user) = (changed.number, decision.request.user.clone());
    let rolled_back = decision.request.kind == Kind::Rollback;
    Some((StoredRedemption { redemption, coupon, number, user, rolled_back }, order, &changed.code))
}
