//! A world in which everything succeeds at once: it costs next to nothing, so that what is measured is the machine.

use coupon_core::batch::{Batch, Position, StockRow};
use coupon_core::coupon::Definition;
use coupon_core::ids::{
    CodeNumber, CouponNo, EmitSeq, Epoch, Millis, Nonce, Offset, Partition, RequestId, WriteNo,
};
use coupon_core::interface::{
    CodeEntry, Effect, Input, LookupResults, Lookups, PartitionRow, Popped, RefillResult, StoredCoupon,
    UserCounts,
};
use coupon_core::machine::{Config, Machine};
use coupon_core::record::{Payload, Record, Request};
use coupon_core::words::Kind;
use std::collections::VecDeque;
use std::sync::Arc;

/// Records of one batch: what a busy owner gathers.
pub(crate) const BATCH: i64 = 2_000;
const MIDDAY: i64 = 1_700_000_000_000;
/// A busy partition takes in a batch in so many milliseconds.
const MILLIS_PER_BATCH: i64 = 20;

/// One coupon, and the owner of its partition.
pub(crate) struct World {
    machine: Machine,
    definition: Definition,
    stock: StockRow,
    /// What everybody is said to have who is asked about.
    has: u32,
    /// How many users were asked about.
    pub(crate) users_read: usize,
    popped: i64,
    next: Offset,
    /// The last batch that was written.
    pub(crate) written: Option<Arc<Batch>>,
}

impl World {
    /// Of a coupon with these rules and this stock; everybody who is asked about has `has` claims of it.
    pub(crate) fn new(definition: Definition, stock: StockRow, has: u32) -> Self {
        let machine = Machine::new(Partition(0), Config::default(), 1);
        let popped = stock.cursor;
        let next = Offset(0);
        let mut world = Self { machine, definition, stock, has, users_read: 0, popped, next, written: None };
        world.play(Input::Begin, &mut |apply| apply());
        world
    }

    /// Claims of one batch; `user` names who claims by the place of the record in the log.
    pub(crate) fn claims(&mut self, user: impl Fn(i64) -> String) -> Vec<Record> {
        let first = self.next.0;
        self.next = Offset(first + BATCH);
        let appended = Millis(MIDDAY + first / BATCH * MILLIS_PER_BATCH);
        (first..first + BATCH).map(|offset| claim(offset, appended, user(offset))).collect()
    }

    /// Hands an input to the machine and answers whatever it asks, until it asks no more. Each step of the machine,
    /// and nothing else, goes through `meter`.
    pub(crate) fn play(&mut self, input: Input, meter: &mut dyn FnMut(&mut dyn FnMut())) {
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
                inputs.extend(Self::answer(
                    effect,
                    (&self.definition, self.stock, self.has),
                    &mut self.users_read,
                    &mut self.popped,
                    &mut self.written,
                ));
            }
        }
    }

    fn answer(
        effect: Effect,
        (definition, stock, has): (&Definition, StockRow, u32),
        users_read: &mut usize,
        popped: &mut i64,
        written: &mut Option<Arc<Batch>>,
    ) -> Option<Input> {
        match effect {
            Effect::TakeOver { nonce } => Some(Input::TakenOver(row(nonce))),
            Effect::CheckLog { .. } => Some(Input::LogChecked(Ok(()))),
            Effect::Lookup { token, lookups: wants } => {
                *users_read += wants.users.iter().map(|of| of.users.len()).sum::<usize>();
                let answers = Box::new(answers(wants, definition, stock, has));
                Some(Input::LookedUp { token, results: answers })
            }
            Effect::Reserve { token, pops, reads } => {
                let pops = pops.iter().map(|pop| Popped::Codes(codes(popped, pop.count, stock.top)));
                let pops = pops.collect();
                let read = reads.iter().map(|read| codes(popped, read.count, stock.top)).collect();
                Some(Input::Reserved { token, popped: pops, read })
            }
            Effect::Refill(fill) => {
                let last = CodeNumber(fill.codes.after.0 + fill.codes.count as i64);
                let result = RefillResult::Refilled { count: fill.codes.count, last };
                Some(Input::Refilled { list: fill.list, result })
            }
            Effect::Write { batch, .. } => {
                let (write_no, attempt) = (batch.fence.write_no, batch.fence.attempt);
                *written = Some(batch);
                let result = coupon_core::interface::WriteResult::Written;
                Some(Input::Written { write_no, attempt, result })
            }
            Effect::Publish(batch) => batch.emit_seq.map(Input::Published),
            Effect::Released(release) => unreachable!("{release:?}"),
            _ => None,
        }
    }
}

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

fn answers(wants: Lookups, definition: &Definition, stock: StockRow, has: u32) -> LookupResults {
    let coupons = wants.coupons.into_iter().map(|coupon_id| StoredCoupon {
        coupon_id,
        coupon: CouponNo(1),
        definition: definition.clone(),
        stock,
        ahead: Vec::new(),
    });
    let users = wants.users.into_iter().flat_map(|of| {
        let coupon = of.coupon;
        of.users.into_iter().map(move |user| UserCounts { coupon, user, claims: has, redemptions: 0 })
    });
    LookupResults { coupons: coupons.collect(), users: users.collect(), ..LookupResults::default() }
}

fn codes(popped: &mut i64, count: usize, top: i64) -> Vec<CodeEntry> {
    let first = *popped + 1;
    *popped = top.min(*popped + count as i64);
    (first..=*popped).map(|n| CodeEntry { number: CodeNumber(n), code: "2F8F-XDV5-VJPE".into() }).collect()
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
