//! The ledger in memory: the tables that one partition needs, and `write_batch` and `take_over` exactly as
//! `0001_spine.sql` has them, in the order in which its statements refuse.

use crate::plan::Flaw;
use coupon_core::batch::{Batch, Decision, Event, StockRow, Verdict};
use coupon_core::coupon::Definition;
use coupon_core::effect::{CodeEntry, PartitionRow, ReadCodes, WriteResult};
use coupon_core::ids::{CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Nonce, Offset, RequestId, WriteNo};
use coupon_core::record::DeadLetter;
use coupon_core::vocabulary::Reason;
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

/// Requests of users whose names begin like this are refused as data.
pub(crate) const REFUSED: &str = "refused-";
const DAY: i64 = 86_400_000;

#[derive(Clone, Debug)]
pub(crate) struct Coupon {
    pub(crate) id: Box<str>,
    pub(crate) definition: Definition,
    pub(crate) stock: StockRow,
    pub(crate) ahead: BTreeSet<i64>,
    pub(crate) returned: BTreeSet<i64>,
    /// Live claims by number.
    pub(crate) live: HashSet<i64, FixedState>,
    pub(crate) users: Map<Box<str>, u32>,
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
    claims: Map<u128, Decision>,
    outcomes: Map<(u128, i64), Vec<Decision>>,
    bodies: Map<u128, Vec<i64>>,
    flaw: Flaw,
}

/// The text of a code; no two of the system are alike.
pub(crate) fn code_of(coupon: CouponNo, number: i64) -> Box<str> {
    format!("C{coupon}-{number}").into()
}

impl Ledger {
    pub(crate) fn new(row: PartitionRow, flaw: Flaw) -> Self {
        Self {
            row,
            coupons: Vec::new(),
            loads: Vec::new(),
            outbox: BTreeMap::new(),
            claims: Map::default(),
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
        self.claims.get(&identity).into_iter().chain(outcomes)
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
            .map(|number| CodeEntry { number: CodeNumber(number), code: code_of(read.coupon, number) })
            .collect()
    }

    pub(crate) const fn take_over(&mut self, nonce: Nonce) -> PartitionRow {
        self.row.epoch = Epoch(self.row.epoch.0 + 1);
        self.row.nonce = nonce;
        self.row.attempt = None;
        self.row
    }

    /// What `write_batch` would refuse, in the order of its statements; it writes everything or nothing.
    pub(crate) fn refusal(&self, batch: &Batch) -> Option<WriteResult> {
        let (fence, row) = (batch.fence, &self.row);
        let owns = (fence.epoch, fence.nonce) == (row.epoch, row.nonce) || self.flaw == Flaw::FenceIgnored;
        let next = fence.write_no == row.write_no.next() || self.flaw == Flaw::WriteNumberNotCounted;
        if !(owns && next) {
            return Some(WriteResult::Fenced);
        }
        let forward = row.position.next_offset <= batch.position.next_offset
            && row.emitted_seq <= batch.watermark
            && batch.watermark < row.next_emit_seq;
        if !forward {
            return Some(WriteResult::Mismatch("the offset or the watermark would move backwards".into()));
        }
        self.refused_rows(batch).or_else(|| self.refused_stock(batch))
    }

    fn refused_rows(&self, batch: &Batch) -> Option<WriteResult> {
        let (mut identities, mut numbers) = (HashSet::new(), HashSet::new());
        for decision in &batch.decisions {
            let Verdict::Claimed { number, .. } = &decision.verdict else { continue };
            if decision.user.starts_with(REFUSED) {
                return Some(WriteResult::DataRefused("invalid byte sequence in a claim".into()));
            }
            if self.claims.contains_key(&decision.id.identity) || !identities.insert(decision.id.identity) {
                return Some(WriteResult::AlreadyDecided);
            }
            let coupon = decision.coupon?;
            let live = self.coupon(coupon).is_some_and(|known| known.live.contains(&number.0));
            if live || !numbers.insert((coupon, *number)) {
                return Some(WriteResult::Mismatch(format!("code {number} of {coupon} is in a live claim")));
            }
        }
        let mut keys = HashSet::new();
        for decision in &batch.decisions {
            let Verdict::Rejected(reason) = decision.verdict else { continue };
            if decision.user.starts_with(REFUSED) && reason != Reason::Unprocessable {
                return Some(WriteResult::DataRefused("invalid byte sequence in an outcome".into()));
            }
            // The primary key has the day in it: the table is partitioned by it.
            let day = batch.position.time.0 / DAY;
            let key = (decision.id.identity, decision.id.body);
            let stored = self.outcomes.get(&key).map_or(&[][..], Vec::as_slice);
            if stored.iter().any(|known| known.decided.0 / DAY == day) || !keys.insert(key) {
                return Some(WriteResult::AlreadyDecided);
            }
        }
        None
    }

    fn refused_stock(&self, batch: &Batch) -> Option<WriteResult> {
        for change in &batch.stock {
            let row = self.coupon(change.coupon).map(|coupon| coupon.stock);
            let same = |row: StockRow| StockRow { claimed: change.was.claimed, ..row } == change.was;
            if !row.is_some_and(same) {
                return Some(WriteResult::Mismatch(format!("{:?} is not {:?}", row, change.was)));
            }
        }
        for applied in &batch.loads {
            if !self.load(applied.load).is_some_and(|load| matches!(load.state, LoadState::Sealed(_))) {
                return Some(WriteResult::Mismatch(format!("load {} is not sealed", applied.load)));
            }
        }
        let mut taken = HashSet::new();
        for (coupon, number) in &batch.returned_taken {
            let free = self.coupon(*coupon).is_some_and(|known| known.returned.contains(&number.0));
            if !free || !taken.insert((coupon, number)) {
                return Some(WriteResult::Mismatch(format!(
                    "returned code {number} of {coupon} is not free"
                )));
            }
        }
        None
    }

    /// What `write_batch` writes, where it refuses nothing.
    pub(crate) fn commit(&mut self, batch: &Batch) {
        let row = &mut self.row;
        if self.flaw != Flaw::WriteNumberNotCounted {
            row.write_no = batch.fence.write_no;
        }
        row.attempt = Some(batch.fence.attempt);
        row.position = batch.position;
        row.emitted_seq = batch.watermark;
        let seq = row.next_emit_seq;
        if batch.emits() {
            row.next_emit_seq = seq.next();
        }
        for decision in &batch.decisions {
            self.store(decision.clone());
        }
        let passed = batch.stock.iter().any(|change| change.is.ahead != change.was.ahead);
        for change in &batch.stock {
            let Some(coupon) = self.coupon_mut(change.coupon) else { continue };
            coupon.stock = change.is;
            if passed {
                coupon.ahead.retain(|number| *number > change.is.cursor);
            }
        }
        for applied in &batch.loads {
            if let Some(load) = self.loads.iter_mut().find(|load| load.id == applied.load) {
                load.state = LoadState::Applied;
            }
        }
        for (coupon, number) in &batch.returned_taken {
            if let Some(coupon) = self.coupon_mut(*coupon) {
                coupon.returned.remove(&number.0);
            }
        }
        self.outbox.retain(|seq, _| *seq > batch.watermark);
        if batch.emits() {
            let told = batch.decisions.iter().chain(&batch.repetitions);
            let entry = Entry {
                ids: told.map(|decision| decision.id).collect(),
                dead_letters: batch.dead_letters.clone(),
                events: batch.events.clone(),
            };
            self.outbox.insert(seq, entry);
        }
    }

    /// Inserts a row of `claims` or `outcomes`.
    pub(crate) fn store(&mut self, decision: Decision) {
        let RequestId { identity, body } = decision.id;
        if let Verdict::Claimed { number, .. } = &decision.verdict {
            if let Some(coupon) = decision.coupon.and_then(|coupon| self.coupon_mut(coupon)) {
                coupon.live.insert(number.0);
                *coupon.users.entry(decision.user.clone()).or_default() += 1;
            }
            self.claims.insert(identity, decision);
        } else {
            let bodies = self.bodies.entry(identity).or_default();
            if !bodies.contains(&body) {
                bodies.push(body);
            }
            self.outcomes.entry((identity, body)).or_default().push(decision);
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
