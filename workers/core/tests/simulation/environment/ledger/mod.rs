//! The ledger in memory: the tables that one partition needs, and `write_batch`, `write_life` and `take_over` as the
//! migrations have them, in the order in which their statements refuse.
//!
//! Here are the tables and what is read from them; [`refusing`] and [`writing`] are the two halves of a write.

mod refusing;
mod writing;

use crate::plan::Flaw;
use coupon_core::batch::{CodeFlags, Decision, Event, Redemption, StockRow};
use coupon_core::claim::Claim;
use coupon_core::coupon::Definition;
use coupon_core::ids::{
    CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Millis, Nonce, Offset, RequestId, WriteNo,
};
use coupon_core::interface::{
    CodeEntry, DueClaims, DueLookup, OrderLookup, PartitionRow, ReadCodes, StoredCode, StoredRedemption,
};
use coupon_core::record::DeadLetter;
use coupon_core::words::ClaimState;
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// Requests of users whose names begin like this are refused as data.
pub(crate) const REFUSED: &str = "refused-";

#[derive(Clone, Debug)]
pub(crate) struct Coupon {
    pub(crate) id: Box<str>,
    pub(crate) definition: Definition,
    pub(crate) stock: StockRow,
    pub(crate) ahead: BTreeSet<i64>,
    pub(crate) returned: BTreeSet<i64>,
    /// Live claims by number.
    pub(crate) live: BTreeMap<i64, u128>,
    pub(crate) code_flags: BTreeMap<i64, CodeFlags>,
    /// How many live claims each user has.
    pub(crate) users: Map<Box<str>, u32>,
    /// How many redemptions of each user were not rolled back.
    pub(crate) redeemers: Map<Box<str>, u32>,
    /// Redemptions that were not rolled back, by number.
    pub(crate) paid: BTreeMap<i64, Vec<RequestId>>,
    /// The loads that are its stock, each with its base.
    pub(crate) loads: Vec<(i64, LoadId)>,
    /// Records appended from here on find it there.
    pub(crate) since: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadState {
    Open,
    /// Sealed before this offset was appended.
    Sealed(Offset),
    Applied,
}

#[derive(Clone, Copy, Debug)]
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

/// What one batch has to tell, as rows of `outbox` and `outbox_messages` hold it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) ids: Vec<RequestId>,
    pub(crate) dead_letters: Vec<(Offset, DeadLetter)>,
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) row: PartitionRow,
    /// Number n is at n − 1.
    pub(crate) coupons: Vec<Coupon>,
    pub(crate) loads: Vec<Load>,
    pub(crate) outbox: BTreeMap<EmitSeq, Entry>,
    pub(crate) claims: Map<u128, ClaimRow>,
    pub(crate) redemptions: Map<u128, RedemptionRow>,
    /// Live claims that lapse some day.
    pub(crate) deadlines: BTreeSet<(Millis, CouponNo, CodeNumber, u128)>,
    /// Whose claims of which codes have lapsed.
    pub(crate) lapsed: BTreeSet<(CouponNo, CodeNumber, Box<str>)>,
    /// Orders paid for, by redemptions that were not rolled back.
    orders: HashSet<OrderLookup, FixedState>,
    outcomes: Map<(u128, i64), Vec<Decision>>,
    bodies: Map<u128, Vec<i64>>,
    flaw: Flaw,
}

/// A code as shown to people; no two of the system are alike.
pub(crate) fn shown(load: LoadId, idx: i64) -> Box<str> {
    format!("c{load}-{idx}").into()
}

/// The same code, normalised.
pub(crate) fn key(load: LoadId, idx: i64) -> Box<str> {
    format!("C{load}X{idx}").into()
}

/// Which code a key names, if it exists.
pub(crate) fn named(key: &str) -> Option<(LoadId, i64)> {
    let (load, idx) = key.strip_prefix('C')?.split_once('X')?;
    Some((LoadId(load.parse().ok()?), idx.parse().ok()?))
}

impl Coupon {
    pub(crate) fn new(id: &str, definition: Definition, since: Offset) -> Self {
        Self {
            id: id.into(),
            definition,
            stock: StockRow::default(),
            ahead: BTreeSet::new(),
            returned: BTreeSet::new(),
            live: BTreeMap::new(),
            code_flags: BTreeMap::new(),
            users: Map::default(),
            redeemers: Map::default(),
            paid: BTreeMap::new(),
            loads: Vec::new(),
            since,
        }
    }

    /// Which code has this number.
    pub(crate) fn place(&self, number: i64) -> Option<(LoadId, i64)> {
        let (base, load) = self.loads.iter().rfind(|(base, _)| *base < number)?;
        (number <= self.stock.top).then_some((*load, number - base))
    }

    /// The code with this number, as shown to people.
    pub(crate) fn text(&self, number: i64) -> Box<str> {
        self.place(number).map_or("?".into(), |(load, idx)| shown(load, idx))
    }
}

impl Ledger {
    pub(crate) fn new(row: PartitionRow, flaw: Flaw) -> Self {
        Self {
            row,
            coupons: Vec::new(),
            loads: Vec::new(),
            outbox: BTreeMap::new(),
            claims: Map::default(),
            redemptions: Map::default(),
            deadlines: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            orders: HashSet::default(),
            outcomes: Map::default(),
            bodies: Map::default(),
            flaw,
        }
    }

    pub(crate) fn coupon(&self, coupon: CouponNo) -> Option<&Coupon> {
        self.coupons.get(usize::try_from(coupon.0 - 1).ok()?)
    }

    pub(crate) fn coupon_mut(&mut self, coupon: CouponNo) -> Option<&mut Coupon> {
        self.coupons.get_mut(usize::try_from(coupon.0 - 1).ok()?)
    }

    pub(crate) fn by_id(&self, coupon_id: &str) -> Option<(CouponNo, &Coupon)> {
        let index = self.coupons.iter().position(|coupon| &*coupon.id == coupon_id)?;
        Some((CouponNo(index as i64 + 1), &self.coupons[index]))
    }

    pub(crate) fn load(&self, load: LoadId) -> Option<&Load> {
        self.loads.iter().find(|known| known.id == load)
    }

    /// Every outcome stored under an identity.
    pub(crate) fn decided(&self, identity: u128) -> impl Iterator<Item = &Decision> {
        let bodies = self.bodies.get(&identity).map_or(&[][..], Vec::as_slice);
        let outcomes = bodies.iter().filter_map(move |body| self.outcomes.get(&(identity, *body))).flatten();
        let claims = self.claims.get(&identity).map(|row| &row.decision);
        let redemptions = self.redemptions.get(&identity).map(|row| &row.decision);
        claims.into_iter().chain(redemptions).chain(outcomes)
    }

    /// Every outcome from before the run.
    pub(crate) fn all_decided(&self) -> impl Iterator<Item = &Decision> {
        let claims = self.claims.values().map(|row| &row.decision);
        let redemptions = self.redemptions.values().map(|row| &row.decision);
        claims.chain(redemptions).chain(self.outcomes.values().flatten())
    }

    /// The first stored outcome of one request, and how many there are.
    pub(crate) fn outcome(&self, id: RequestId) -> (Option<&Decision>, usize) {
        let mut stored = self.decided(id.identity).filter(|decision| decision.id == id);
        let first = stored.next();
        (first, usize::from(first.is_some()) + stored.count())
    }

    /// The first `count` numbers above `after` that are not ahead, with their codes.
    pub(crate) fn codes(&self, read: ReadCodes) -> Vec<CodeEntry> {
        let Some(coupon) = self.coupon(read.coupon) else { return Vec::new() };
        (read.after.0 + 1..=coupon.stock.top)
            .filter(|number| !coupon.ahead.contains(number))
            .take(read.count)
            .map(|number| CodeEntry { number: CodeNumber(number), code: coupon.text(number) })
            .collect()
    }

    /// A code by its load and place, if there is one.
    pub(crate) fn code_at(&self, load: LoadId, idx: i64) -> Option<StoredCode> {
        let known = self.load(load).filter(|known| (1..=known.count).contains(&idx))?;
        let coupon = self.coupon(known.coupon)?;
        let base = coupon.loads.iter().find(|(_, applied)| *applied == load).map(|(base, _)| *base);
        let claim =
            base.and_then(|base| coupon.live.get(&(base + idx))).map(|identity| &self.claims[identity]);
        let mark = base.and_then(|base| coupon.code_flags.get(&(base + idx)));
        Some(StoredCode {
            key: key(load, idx),
            code: shown(load, idx),
            coupon: known.coupon,
            load,
            idx,
            base,
            claim: claim.map(|row| row.claim.clone()),
            flags: mark.copied().unwrap_or_default(),
        })
    }

    pub(crate) fn redemption(&self, id: RequestId) -> Option<StoredRedemption> {
        let row = self.redemptions.get(&id.identity).filter(|row| row.redemption.id == id)?;
        Some(StoredRedemption {
            redemption: row.redemption.clone(),
            coupon: row.coupon,
            number: row.number,
            user: row.decision.user.clone(),
            rolled_back: row.rolled_back.is_some(),
        })
    }

    pub(crate) fn is_paid(&self, order: &OrderLookup) -> bool {
        self.orders.contains(order)
    }

    pub(crate) fn due(&self, until: DueLookup) -> DueClaims {
        let mut beyond = self.deadlines.iter().skip_while(|(deadline, ..)| *deadline <= until.until);
        let due = self.deadlines.iter().take_while(|(deadline, ..)| *deadline <= until.until);
        let with_coupon = |identity: u128| {
            let claim = self.claims[&identity].claim.clone();
            Some((self.coupon(claim.coupon)?.id.clone(), claim))
        };
        DueClaims {
            claims: due.take(until.limit).filter_map(|(.., identity)| with_coupon(*identity)).collect(),
            next: beyond.next().map(|(deadline, ..)| *deadline),
        }
    }

    pub(crate) fn take_over(&mut self, nonce: Nonce) -> PartitionRow {
        self.row.epoch = Epoch(self.row.epoch.0 + 1);
        self.row.nonce = nonce;
        self.row.attempt = None;
        PartitionRow { next_deadline: self.deadlines.first().map(|(deadline, ..)| *deadline), ..self.row }
    }
}

impl Coupon {
    /// The counters as the rows of claims, marks and redemptions have them.
    pub(crate) fn counted(&self, claims: &Map<u128, ClaimRow>) -> StockRow {
        let in_state = |state: ClaimState| {
            let states = self.live.values().map(|identity| claims[identity].claim.status.state);
            states.filter(|found| *found == state).count() as i64
        };
        let shared = self.definition.is_shared();
        let per_code = self.definition.redemptions_per_code.map_or(i64::MAX, i64::from);
        let marks = self.code_flags.values();
        let exhausted = marks.clone().filter(|mark| shared && !mark.revoked && mark.uses >= per_code).count();
        StockRow {
            top: self.stock.top,
            cursor: self.stock.cursor,
            ahead: self.ahead.len() as i64,
            returned: self.returned.len() as i64,
            claimed: in_state(ClaimState::Claimed),
            locked: in_state(ClaimState::Locked),
            redeemed: in_state(ClaimState::Redeemed) + exhausted as i64,
            revoked: marks.filter(|mark| mark.revoked).count() as i64,
            redemptions: self.paid.values().map(Vec::len).sum::<usize>() as i64,
        }
    }
}

/// A partition that has been in use for a while.
pub(crate) fn row_in_use(base: Offset, position: coupon_core::batch::Position) -> PartitionRow {
    PartitionRow {
        epoch: Epoch(4),
        nonce: Nonce(4),
        write_no: WriteNo(40),
        attempt: None,
        position: coupon_core::batch::Position { next_offset: base, ..position },
        next_emit_seq: EmitSeq(21),
        emitted_seq: EmitSeq(20),
        next_deadline: None,
    }
}
