//! The ledger in memory: the tables that one partition needs, with `write_batch`, `write_life` and `take_over` as the
//! migrations define them.
//!
//! [`tables`] holds the rows. [`rejection`] finds the reason for which a write is rejected, in the order of the SQL
//! statements; [`commit`] writes. A write is all or nothing. Here: the queries, and the takeover.

mod commit;
mod rejection;
pub(crate) mod tables;

use crate::plan::LedgerBug;
use coupon_core::batch::{Decision, Position};
use coupon_core::ids::{
    CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Millis, Nonce, Offset, RequestId, WriteNo,
};
use coupon_core::interface::{
    CodeEntry, DueClaims, DueLookup, OrderLookup, PartitionRow, ReadCodes, StoredCode, StoredRedemption,
};
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tables::{ClaimRow, Coupon, Load, OutboxEntry, RedemptionRow};

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// The ledger rejects requests of users with this prefix as data.
pub(crate) const UNSTORABLE_USER_PREFIX: &str = "unstorable-";

#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) row: PartitionRow,
    /// The coupon with number n is at index n − 1.
    pub(crate) coupons: Vec<Coupon>,
    pub(crate) loads: Vec<Load>,
    /// Records that an operator has had rejected, from the first to the last offset.
    pub(crate) rejected_records: Vec<(Offset, Offset)>,
    pub(crate) outbox: BTreeMap<EmitSeq, OutboxEntry>,
    pub(crate) claims: Map<u128, ClaimRow>,
    pub(crate) redemptions: Map<u128, RedemptionRow>,
    /// Live claims with a deadline, earliest first.
    pub(crate) deadlines: BTreeSet<(Millis, CouponNo, CodeNumber, u128)>,
    /// Codes and the users whose claims of them have lapsed.
    pub(crate) lapsed: BTreeSet<(CouponNo, CodeNumber, Box<str>)>,
    /// Orders with a redemption that is not rolled back.
    orders: HashSet<OrderLookup, FixedState>,
    /// Each with the day of its batch.
    outcomes: Map<(u128, i64), Vec<(i32, Decision)>>,
    bodies: Map<u128, Vec<i64>>,
    bug: LedgerBug,
}

/// A code as displayed; unique over all coupons.
pub(crate) fn display_code(load: LoadId, idx: i64) -> Box<str> {
    format!("c{load}-{idx}").into()
}

/// The same code, normalised.
pub(crate) fn code_key(load: LoadId, idx: i64) -> Box<str> {
    format!("C{load}X{idx}").into()
}

/// The load and the index in a normalised code, if it is one. The code need not exist.
pub(crate) fn parse_code_key(key: &str) -> Option<(LoadId, i64)> {
    let (load, idx) = key.strip_prefix('C')?.split_once('X')?;
    Some((LoadId(load.parse().ok()?), idx.parse().ok()?))
}

impl Ledger {
    pub(crate) fn new(row: PartitionRow, bug: LedgerBug) -> Self {
        Self {
            row,
            coupons: Vec::new(),
            loads: Vec::new(),
            rejected_records: Vec::new(),
            outbox: BTreeMap::new(),
            claims: Map::default(),
            redemptions: Map::default(),
            deadlines: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            orders: HashSet::default(),
            outcomes: Map::default(),
            bodies: Map::default(),
            bug,
        }
    }

    pub(crate) fn coupon(&self, coupon: CouponNo) -> Option<&Coupon> {
        self.coupons.get(usize::try_from(coupon.0 - 1).ok()?)
    }

    pub(crate) fn coupon_mut(&mut self, coupon: CouponNo) -> Option<&mut Coupon> {
        self.coupons.get_mut(usize::try_from(coupon.0 - 1).ok()?)
    }

    pub(crate) fn coupon_by_id(&self, coupon_id: &str) -> Option<(CouponNo, &Coupon)> {
        let index = self.coupons.iter().position(|coupon| &*coupon.id == coupon_id)?;
        Some((CouponNo(index as i64 + 1), &self.coupons[index]))
    }

    pub(crate) fn load(&self, load: LoadId) -> Option<&Load> {
        self.loads.iter().find(|row| row.id == load)
    }

    /// Every outcome stored under an identity; of those that are neither claims nor redemptions, those of some days.
    pub(crate) fn outcomes_of(
        &self,
        identity: u128,
        is_day: impl Fn(i32) -> bool,
    ) -> impl Iterator<Item = &Decision> {
        let bodies = self.bodies.get(&identity).map_or(&[][..], Vec::as_slice);
        let rows = bodies.iter().filter_map(move |body| self.outcomes.get(&(identity, *body))).flatten();
        let outcomes = rows.filter(move |(day, _)| is_day(*day)).map(|(_, decision)| decision);
        let claims = self.claims.get(&identity).map(|row| &row.decision);
        let redemptions = self.redemptions.get(&identity).map(|row| &row.decision);
        claims.into_iter().chain(redemptions).chain(outcomes)
    }

    /// Every stored outcome.
    pub(crate) fn all_outcomes(&self) -> impl Iterator<Item = &Decision> {
        let claims = self.claims.values().map(|row| &row.decision);
        let redemptions = self.redemptions.values().map(|row| &row.decision);
        claims.chain(redemptions).chain(self.other_outcomes().map(|(_, decision)| decision))
    }

    /// The rows of `outcomes`, each with its day.
    pub(crate) fn other_outcomes(&self) -> impl Iterator<Item = (i32, &Decision)> {
        self.outcomes.values().flatten().map(|(day, decision)| (*day, decision))
    }

    /// The first stored outcome of one request, and the number of its outcomes.
    pub(crate) fn outcome(&self, id: RequestId) -> (Option<&Decision>, usize) {
        let mut stored = self.outcomes_of(id.identity, |_| true).filter(|decision| decision.request.id == id);
        let first = stored.next();
        (first, usize::from(first.is_some()) + stored.count())
    }

    /// The first `count` numbers above `after` that are not ahead, with their codes.
    pub(crate) fn read_codes(&self, read: ReadCodes) -> Vec<CodeEntry> {
        let Some(coupon) = self.coupon(read.coupon) else { return Vec::new() };
        (read.after.0 + 1..=coupon.stock.top)
            .filter(|number| !coupon.ahead.contains(number))
            .take(read.count)
            .map(|number| CodeEntry { number: CodeNumber(number), code: coupon.code_text(number) })
            .collect()
    }

    /// A code by its load and its index in it, if it exists.
    pub(crate) fn code_at(&self, load: LoadId, idx: i64) -> Option<StoredCode> {
        let row = self.load(load).filter(|row| (1..=row.count).contains(&idx))?;
        let coupon = self.coupon(row.coupon)?;
        let base = coupon.loads.iter().find(|(_, applied)| *applied == load).map(|(base, _)| *base);
        let number = base.map(|base| base + idx);
        let claim = number.and_then(|number| coupon.live_claims.get(&number));
        let flags = number.and_then(|number| coupon.flags.get(&number));
        Some(StoredCode {
            key: code_key(load, idx),
            code: display_code(load, idx),
            coupon: row.coupon,
            load,
            idx,
            base,
            claim: claim.map(|identity| self.claims[identity].claim.clone()),
            flags: flags.copied().unwrap_or_default(),
        })
    }

    pub(crate) fn redemption(&self, id: RequestId) -> Option<StoredRedemption> {
        let row = self.redemptions.get(&id.identity).filter(|row| row.redemption.id == id)?;
        Some(StoredRedemption {
            redemption: row.redemption.clone(),
            coupon: row.coupon,
            number: row.number,
            user: row.decision.request.user.clone(),
            rolled_back: row.rolled_back.is_some(),
        })
    }

    pub(crate) fn is_order_used(&self, order: &OrderLookup) -> bool {
        self.orders.contains(order)
    }

    pub(crate) fn due_claims(&self, due: DueLookup) -> DueClaims {
        let mut later = self.deadlines.iter().skip_while(|(deadline, ..)| *deadline <= due.until);
        let from = self.deadlines.iter().skip_while(|(deadline, ..)| *deadline < due.from);
        let passed = from.take_while(|(deadline, ..)| *deadline <= due.until);
        let with_coupon = |identity: u128| {
            let claim = self.claims[&identity].claim.clone();
            Some((self.coupon(claim.coupon)?.id.clone(), claim))
        };
        DueClaims {
            claims: passed.take(due.limit).filter_map(|(.., identity)| with_coupon(*identity)).collect(),
            next: later.next().map(|(deadline, ..)| *deadline),
        }
    }

    pub(crate) fn take_over(&mut self, nonce: Nonce) -> PartitionRow {
        self.row.epoch = Epoch(self.row.epoch.0 + 1);
        self.row.nonce = nonce;
        self.row.attempt = None;
        PartitionRow { next_deadline: self.deadlines.first().map(|(deadline, ..)| *deadline), ..self.row }
    }
}

/// The row of a partition with earlier owners, writes and outbox entries.
pub(crate) fn initial_row(base: Offset, position: Position) -> PartitionRow {
    PartitionRow {
        epoch: Epoch(4),
        nonce: Nonce(4),
        write_no: WriteNo(40),
        attempt: None,
        position: Position { next_offset: base, ..position },
        next_emit_seq: EmitSeq(21),
        emitted_seq: EmitSeq(20),
        next_deadline: None,
    }
}
