//! The rows of the ledger, and the stock of one coupon with the indexes over its rows.

use super::{Map, display_code};
use coupon_core::batch::{CodeFlags, Decision, Event, Redemption, StockRow};
use coupon_core::claim::Claim;
use coupon_core::coupon::Definition;
use coupon_core::ids::{CodeNumber, CouponNo, LoadId, Millis, Offset, RequestId};
use coupon_core::record::DeadLetter;
use coupon_core::words::ClaimState;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadState {
    Open,
    /// Sealed before the record at this offset was appended.
    Sealed(Offset),
    Applied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) id: LoadId,
    pub(crate) coupon: CouponNo,
    pub(crate) count: i64,
    pub(crate) state: LoadState,
}

/// A row of `claims`.
#[derive(Clone, Debug)]
pub(crate) struct ClaimRow {
    pub(crate) decision: Decision,
    pub(crate) claim: Claim,
}

/// A row of `redemptions`.
#[derive(Clone, Debug)]
pub(crate) struct RedemptionRow {
    pub(crate) decision: Decision,
    pub(crate) coupon: CouponNo,
    pub(crate) number: CodeNumber,
    pub(crate) redemption: Redemption,
    pub(crate) rolled_back: Option<Millis>,
}

/// The messages of one batch, as rows of `outbox` and `outbox_messages` hold them.
#[derive(Clone, Debug)]
pub(crate) struct OutboxEntry {
    pub(crate) ids: Vec<RequestId>,
    pub(crate) dead_letters: Vec<(Offset, DeadLetter)>,
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub(crate) struct Coupon {
    pub(crate) id: Box<str>,
    pub(crate) definition: Definition,
    pub(crate) stock: StockRow,
    pub(crate) ahead: BTreeSet<i64>,
    pub(crate) returned: BTreeSet<i64>,
    /// Identities of the live claims, by code number.
    pub(crate) live_claims: BTreeMap<i64, u128>,
    pub(crate) flags: BTreeMap<i64, CodeFlags>,
    /// Number of live claims, by user.
    pub(crate) claims_by_user: Map<Box<str>, u32>,
    /// Number of redemptions not rolled back, by user.
    pub(crate) redemptions_by_user: Map<Box<str>, u32>,
    /// Redemptions not rolled back, by code number.
    pub(crate) redemptions_by_code: BTreeMap<i64, Vec<RequestId>>,
    /// The loads that are stock, each with its base.
    pub(crate) loads: Vec<(i64, LoadId)>,
    /// The coupon exists for every record from this offset on.
    pub(crate) created: Offset,
}

impl Coupon {
    pub(crate) fn new(id: &str, definition: Definition, created: Offset) -> Self {
        Self {
            id: id.into(),
            definition,
            stock: StockRow::default(),
            ahead: BTreeSet::new(),
            returned: BTreeSet::new(),
            live_claims: BTreeMap::new(),
            flags: BTreeMap::new(),
            claims_by_user: Map::default(),
            redemptions_by_user: Map::default(),
            redemptions_by_code: BTreeMap::new(),
            loads: Vec::new(),
            created,
        }
    }

    /// The load of the code with this number, and the index of the code in it.
    pub(crate) fn load_and_index(&self, number: i64) -> Option<(LoadId, i64)> {
        let (base, load) = self.loads.iter().rfind(|(base, _)| *base < number)?;
        (number <= self.stock.top).then_some((*load, number - base))
    }

    /// The code with this number, as displayed.
    pub(crate) fn code_text(&self, number: i64) -> Box<str> {
        self.load_and_index(number).map_or("?".into(), |(load, idx)| display_code(load, idx))
    }

    /// The counters, computed from the rows of claims, flags and redemptions.
    pub(crate) fn counted_stock(&self, claims: &Map<u128, ClaimRow>) -> StockRow {
        let in_state = |state: ClaimState| {
            let states = self.live_claims.values().map(|identity| claims[identity].claim.status.state);
            states.filter(|found| *found == state).count() as i64
        };
        let shared = self.definition.is_shared();
        let per_code = self.definition.redemptions_per_code.map_or(i64::MAX, i64::from);
        let flags = self.flags.values();
        let exhausted =
            flags.clone().filter(|flags| shared && !flags.revoked && flags.uses >= per_code).count();
        StockRow {
            top: self.stock.top,
            cursor: self.stock.cursor,
            ahead: self.ahead.len() as i64,
            returned: self.returned.len() as i64,
            claimed: in_state(ClaimState::Claimed),
            locked: in_state(ClaimState::Locked),
            redeemed: in_state(ClaimState::Redeemed) + exhausted as i64,
            revoked: flags.filter(|flags| flags.revoked).count() as i64,
            redemptions: self.redemptions_by_code.values().map(Vec::len).sum::<usize>() as i64,
        }
    }
}
