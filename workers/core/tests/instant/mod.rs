//! The owner of one partition whose calls all succeed immediately. The responses cost almost nothing, so a measurement
//! covers the machine alone.

use coupon_core::batch::{Batch, Position, StockRow};
use coupon_core::coupon::Definition;
use coupon_core::ids::{
    CodeNumber, CouponNo, EmitSeq, Epoch, Millis, Nonce, Offset, Partition, RequestId, WriteNo,
};
use coupon_core::interface::{
    CodeEntry, Effect, Input, LookupResults, Lookups, PartitionRow, Popped, RefillResult, StoredCoupon,
    UserCounts, WriteResult,
};
use coupon_core::machine::{Config, Machine};
use coupon_core::record::{Payload, Record, Request};
use coupon_core::words::Kind;
use std::collections::VecDeque;
use std::sync::Arc;

/// Records in one batch: as many as a busy owner prefetches.
pub(crate) const BATCH: i64 = 2_000;
const MIDDAY_MS: i64 = 1_700_000_000_000;
/// How long a busy partition takes to receive one batch.
const BATCH_INTERVAL_MS: i64 = 20;

/// A machine and the contents of the services around it: one coupon.
pub(crate) struct InstantOwner {
    machine: Machine,
    services: Services,
    next: Offset,
    /// The number of users in all lookups.
    pub(crate) users_read: usize,
    /// The last batch that was written.
    pub(crate) written: Option<Arc<Batch>>,
}

struct Services {
    definition: Definition,
    stock: StockRow,
    /// The number of claims that every user has.
    claims_per_user: u32,
    /// The last number that was popped or read.
    popped: i64,
}

impl InstantOwner {
    /// Takes over a partition with one coupon, of which every user has `claims_per_user` claims.
    pub(crate) fn new(definition: Definition, stock: StockRow, claims_per_user: u32) -> Self {
        let machine = Machine::new(Partition(0), Config::default(), 1);
        let services = Services { definition, stock, claims_per_user, popped: stock.cursor };
        let mut owner = Self { machine, services, next: Offset(0), users_read: 0, written: None };
        owner.apply(Input::Begin, &mut |step| step());
        owner
    }

    /// The next batch of claims. `user` names the user of the record at an offset.
    pub(crate) fn claims(&mut self, user: impl Fn(i64) -> String) -> Vec<Record> {
        let first = self.next.0;
        self.next = Offset(first + BATCH);
        let appended = Millis(MIDDAY_MS + first / BATCH * BATCH_INTERVAL_MS);
        (first..first + BATCH).map(|offset| claim(offset, appended, user(offset))).collect()
    }

    /// Applies an input, and the responses to all effects that follow from it. Only the steps of the machine run inside
    /// `meter`.
    pub(crate) fn apply(&mut self, input: Input, meter: &mut dyn FnMut(&mut dyn FnMut())) {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Vec::with_capacity(64);
        while let Some(input) = inputs.pop_front() {
            let mut input = Some(input);
            meter(&mut || {
                if let Some(input) = input.take() {
                    self.machine.apply(input, &mut effects);
                }
            });
            for effect in effects.drain(..) {
                if let Effect::Lookup { lookups, .. } = &effect {
                    self.users_read += lookups.users.iter().map(|lookup| lookup.users.len()).sum::<usize>();
                }
                if let Effect::Write { batch, .. } = &effect {
                    self.written = Some(Arc::clone(batch));
                }
                inputs.extend(self.services.respond(effect));
            }
        }
    }
}

impl Services {
    fn respond(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::TakeOver { nonce } => Some(Input::TakenOver(row(nonce))),
            Effect::CheckLog { .. } => Some(Input::LogChecked(Ok(()))),
            Effect::Lookup { token, lookups } => {
                let results = Box::new(self.look_up(lookups));
                Some(Input::LookedUp { token, results })
            }
            Effect::Reserve { token, pops, reads } => {
                let popped = pops.iter().map(|pop| Popped::Codes(self.codes(pop.count))).collect();
                let read = reads.iter().map(|read| self.codes(read.count)).collect();
                Some(Input::Reserved { token, popped, read })
            }
            Effect::Refill(refill) => {
                let last = CodeNumber(refill.codes.after.0 + refill.codes.count as i64);
                let result = RefillResult::Refilled { count: refill.codes.count, last };
                Some(Input::Refilled { list: refill.list, result })
            }
            Effect::Write { batch, .. } => {
                let (write_no, attempt) = (batch.fence.write_no, batch.fence.attempt);
                Some(Input::Written { write_no, attempt, result: WriteResult::Written })
            }
            Effect::ReadClock { .. } => {
                Some(Input::ClockRead { now: Millis(i64::MAX / 2), rejected_through: None })
            }
            Effect::Publish(batch) => batch.emit_seq.map(Input::Published),
            Effect::Released(release) => unreachable!("{release:?}"),
            _ => None,
        }
    }

    fn look_up(&self, lookups: Lookups) -> LookupResults {
        let coupons = lookups.coupons.into_iter().map(|coupon_id| StoredCoupon {
            coupon_id,
            coupon: CouponNo(1),
            definition: self.definition.clone(),
            stock: self.stock,
            ahead: Vec::new(),
        });
        let users = lookups.users.into_iter().flat_map(|lookup| {
            let (coupon, claims) = (lookup.coupon, self.claims_per_user);
            lookup.users.into_iter().map(move |user| UserCounts { coupon, user, claims, redemptions: 0 })
        });
        LookupResults { coupons: coupons.collect(), users: users.collect(), ..LookupResults::default() }
    }

    fn codes(&mut self, count: usize) -> Vec<CodeEntry> {
        let first = self.popped + 1;
        self.popped = self.stock.top.min(self.popped + count as i64);
        let entry = |number| CodeEntry { number: CodeNumber(number), code: "2F8F-XDV5-VJPE".into() };
        (first..=self.popped).map(entry).collect()
    }
}

/// The row of a partition that no owner has written to.
fn row(nonce: Nonce) -> PartitionRow {
    PartitionRow {
        epoch: Epoch(1),
        nonce,
        write_no: WriteNo(0),
        attempt: None,
        position: Position { last_offset: Offset(-1), ..Position::default() },
        next_emit_seq: EmitSeq(1),
        emitted_seq: EmitSeq(0),
        next_deadline: None,
    }
}

fn claim(offset: i64, appended: Millis, user: String) -> Record {
    let identity = (u128::from(appended.0.unsigned_abs()) << 80) | u128::from(offset.unsigned_abs());
    let request = Request {
        id: RequestId { identity, body: 0 },
        kind: Kind::Claim,
        coupon_id: "noon-sale".into(),
        user: user.into(),
        code: None,
        details: None,
    };
    let payload = Payload::Request(request);
    Record { offset: Offset(offset), appended, digest: offset, bytes: 180, payload }
}
