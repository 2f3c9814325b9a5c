//! One story at a time, with the world's answers given by hand. Random schedules are the simulation's business.

use super::*;
use crate::domain::batch::{StockRow, Verdict};
use crate::domain::coupon::Definition;
use crate::domain::ids::{CodeNumber, RequestId};
use crate::domain::record::{Payload, Request};
use crate::domain::words::{Kind, Reason};
use crate::interface::{CodeEntry, LookupResults, StoredCoupon, WriteResult};

const NOW: i64 = 1_000_000;

struct Story {
    machine: Machine,
    effects: Vec<Effect>,
    stock: StockRow,
}

impl Story {
    fn begin(config: Config) -> Self {
        let machine = Machine::new(Partition(0), config, 1);
        let mut story =
            Self { machine, effects: Vec::new(), stock: StockRow { top: 3, ..StockRow::default() } };
        story.tell(Input::Begin);
        let nonce = match story.effects.pop() {
            Some(Effect::TakeOver { nonce }) => nonce,
            other => unreachable!("{other:?}"),
        };
        story.tell(Input::TakenOver(row(nonce, 0, None)));
        story.tell(Input::LogChecked(Ok(())));
        story.effects.clear();
        story
    }

    fn tell(&mut self, input: Input) {
        self.machine.apply(input, &mut self.effects);
        self.answer_reads();
    }

    /// Answers loads and reservations as a ledger without claims would.
    fn answer_reads(&mut self) {
        while let Some(place) =
            self.effects.iter().position(|e| matches!(e, Effect::Lookup { .. } | Effect::Reserve { .. }))
        {
            let input = match self.effects.remove(place) {
                Effect::Lookup { token, lookups } => {
                    let coupons =
                        lookups.coupons.into_iter().filter(|id| &**id == "coupon").map(|coupon_id| {
                            let definition = Definition { claims_per_user: Some(1), ..Definition::default() };
                            StoredCoupon {
                                coupon_id,
                                coupon: CouponNo(1),
                                definition,
                                stock: self.stock,
                                ahead: vec![],
                            }
                        });
                    Input::LookedUp {
                        token,
                        results: Box::new(LookupResults {
                            coupons: coupons.collect(),
                            ..LookupResults::default()
                        }),
                    }
                }
                Effect::Reserve { token, pops, reads } => {
                    assert!(pops.is_empty(), "no list was filled");
                    let read = reads.iter().map(|read| {
                        let numbers =
                            read.after.0 + 1..=(read.after.0 + read.count as i64).min(self.stock.top);
                        numbers
                            .map(|n| CodeEntry { number: CodeNumber(n), code: format!("C{n}").into() })
                            .collect()
                    });
                    Input::Reserved { token, popped: vec![], read: read.collect() }
                }
                other => unreachable!("{other:?}"),
            };
            self.machine.apply(input, &mut self.effects);
        }
    }

    fn claims(&mut self, offsets: impl IntoIterator<Item = i64>) {
        let records = offsets.into_iter().map(|offset| claim(offset, offset)).collect();
        self.tell(Input::Records(records));
    }

    fn written(&self) -> Arc<Batch> {
        let batches = self.effects.iter().rev().filter_map(|effect| match effect {
            Effect::Write { batch, .. } => Some(Arc::clone(batch)),
            _ => None,
        });
        batches.into_iter().next().expect("a write")
    }

    fn answer(&mut self, batch: &Batch, result: WriteResult) {
        let Fence { write_no, attempt, .. } = batch.fence;
        self.tell(Input::Written { write_no, attempt, result });
    }
}

use crate::domain::batch::Fence;

fn row(nonce: Nonce, write_no: i64, attempt: Option<Attempt>) -> PartitionRow {
    let position = Position { last_offset: Offset(-1), ..Position::default() };
    let (next_emit_seq, emitted_seq) = (EmitSeq(1), EmitSeq(0));
    PartitionRow {
        epoch: Epoch(1),
        nonce,
        write_no: WriteNo(write_no),
        attempt,
        position,
        next_emit_seq,
        emitted_seq,
        next_deadline: None,
    }
}

fn claim(offset: i64, user: i64) -> Record {
    let id = RequestId { identity: ((NOW as u128) << 80) | offset as u128, body: 0 };
    let request = Request {
        id,
        kind: Kind::Claim,
        coupon_id: "coupon".into(),
        user: format!("user-{user}").into(),
        code: None,
        details: None,
    };
    let payload = Payload::Request(request);
    Record { offset: Offset(offset), appended: Millis(NOW + offset), digest: offset, bytes: 100, payload }
}

fn verdicts(batch: &Batch) -> Vec<Option<Reason>> {
    let reason = |verdict: &Verdict| match verdict {
        Verdict::Claimed { .. } | Verdict::Changed(_) => None,
        Verdict::Rejected(reason) => Some(*reason),
    };
    batch.decisions.iter().map(|decision| reason(&decision.verdict)).collect()
}

#[test]
fn claims_get_codes_in_order_until_none_is_left() {
    let mut story = Story::begin(Config::default());
    story.claims(0..5);
    let batch = story.written();
    assert_eq!(verdicts(&batch), [None, None, None, Some(Reason::SoldOut), Some(Reason::SoldOut)]);
    assert_eq!(batch.position.next_offset, Offset(5));
    assert_eq!(batch.stock[0].after, StockRow { top: 3, cursor: 3, claimed: 3, ..StockRow::default() });
    story.answer(&batch, WriteResult::Written);
    assert!(story.effects.iter().any(|effect| matches!(effect, Effect::Publish(_))));
}

#[test]
fn nothing_is_told_before_it_is_written() {
    let mut story = Story::begin(Config::default());
    story.claims(0..2);
    assert!(
        !story
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish(_) | Effect::CommitOffset { .. }))
    );
}

#[test]
fn a_write_whose_answer_is_lost_is_adopted_when_the_row_shows_it() {
    let mut story = Story::begin(Config::default());
    story.claims(0..1);
    let batch = story.written();
    story.answer(&batch, WriteResult::Unknown);
    assert!(matches!(story.effects.last(), Some(Effect::ReadBack)));
    story.tell(Input::ReadBack(row(batch.fence.nonce, 1, Some(batch.fence.attempt))));
    assert!(story.effects.iter().any(|effect| matches!(effect, Effect::Publish(told) if *told == batch)));
}

#[test]
fn a_write_that_did_not_happen_is_sent_again_unchanged() {
    let mut story = Story::begin(Config::default());
    story.claims(0..1);
    let batch = story.written();
    story.answer(&batch, WriteResult::Unknown);
    story.effects.clear();
    story.tell(Input::ReadBack(row(batch.fence.nonce, 0, None)));
    assert!(matches!(&story.effects[..], [Effect::Write { batch: again, backoff: 1 }] if *again == batch));
}

#[test]
fn an_owner_that_finds_another_epoch_lets_go() {
    let mut story = Story::begin(Config::default());
    story.claims(0..1);
    let batch = story.written();
    story.answer(&batch, WriteResult::Fenced);
    story.tell(Input::ReadBack(PartitionRow { epoch: Epoch(2), ..row(Nonce(9), 4, None) }));
    assert!(matches!(story.effects.last(), Some(Effect::Released(Release::Fenced))));
}

#[test]
fn when_a_batch_must_be_decided_again_the_next_one_is_too() {
    let mut story = Story::begin(Config { batch_records: 2, ..Config::default() });
    story.claims(0..4);
    let first = story.written();
    story.stock = StockRow { top: 3, cursor: 2, claimed: 2, ..StockRow::default() };
    story.answer(&first, WriteResult::Mismatch("somebody was faster".into()));
    let again = story.written();
    assert_eq!(again.fence.write_no, first.fence.write_no);
    assert_ne!(again.fence.attempt, first.fence.attempt);
    assert_eq!(verdicts(&again), [None, Some(Reason::SoldOut)], "decided from what the ledger holds now");
    story.answer(&again, WriteResult::Written);
    assert_eq!(verdicts(&story.written()), [Some(Reason::SoldOut); 2]);
}

#[test]
fn a_mismatch_twice_in_a_row_stops_the_partition_loudly() {
    let mut story = Story::begin(Config::default());
    story.claims(0..1);
    for _ in 0..2 {
        let batch = story.written();
        story.answer(&batch, WriteResult::Mismatch("a row is gone".into()));
    }
    assert_eq!(story.effects.last(), Some(&Effect::ReadBack), "is it still the owner?");
    let nonce = story.machine.nonce;
    story.tell(Input::ReadBack(row(nonce, 0, None)));
    let Some(Effect::Released(Release::Stopped(text))) = story.effects.last() else { unreachable!() };
    assert!(text.contains("a row is gone"), "{text}");
}

#[test]
fn a_record_that_postgres_refuses_as_data_ends_alone_as_unprocessable() {
    let mut story = Story::begin(Config::default());
    story.claims(0..4);
    let mut told = Vec::new();
    for _ in 0..20 {
        let batch = story.written();
        let poison = batch.decisions.iter().any(|decision| {
            decision.offset == Offset(2) && decision.verdict != Verdict::Rejected(Reason::Unprocessable)
        });
        if poison {
            story.answer(&batch, WriteResult::DataRejected("invalid byte sequence".into()));
            continue;
        }
        told.extend(batch.decisions.iter().map(|decision| (decision.offset.0, decision.user.clone())));
        story.stock = batch.stock.last().map_or(story.stock, |change| change.after);
        story.answer(&batch, WriteResult::Written);
        if batch.position.next_offset == Offset(4) {
            break;
        }
    }
    let expected: Vec<(i64, Box<str>)> = (0..4).map(|n| (n, format!("user-{n}").into())).collect();
    assert_eq!(told, expected, "each once, in order, with its user");
}

#[test]
fn a_copy_in_the_same_batch_is_no_second_outcome() {
    let mut story = Story::begin(Config::default());
    let copy = Record { offset: Offset(1), ..claim(0, 0) };
    story.tell(Input::Records(vec![claim(0, 0), copy]));
    let batch = story.written();
    assert_eq!(batch.decisions.len(), 1);
    assert_eq!(batch.position.next_offset, Offset(2));
}

#[test]
fn the_watermark_is_written_when_nothing_else_is() {
    let mut story = Story::begin(Config::default());
    story.claims(0..1);
    let batch = story.written();
    story.answer(&batch, WriteResult::Written);
    story.tell(Input::Published(EmitSeq(1)));
    story.effects.clear();
    story.tell(Input::Idle { since_last_record: Millis(0) });
    let idle = story.written();
    assert_eq!((idle.watermark, idle.emit_seq, idle.decisions.len()), (EmitSeq(1), None, 0));
    story.answer(&idle, WriteResult::Written);
    story.effects.clear();
    story.tell(Input::Idle { since_last_record: Millis(0) });
    assert!(story.effects.is_empty(), "once is enough");
}

#[test]
fn letting_go_waits_for_the_write_and_its_acknowledgement() {
    let mut story = Story::begin(Config::default());
    story.claims(0..1);
    let batch = story.written();
    story.tell(Input::HandOver);
    story.answer(&batch, WriteResult::Written);
    assert!(!story.effects.iter().any(|effect| matches!(effect, Effect::Released(_))));
    story.tell(Input::Published(EmitSeq(1)));
    let watermark = story.written();
    assert_eq!(watermark.watermark, EmitSeq(1));
    story.answer(&watermark, WriteResult::Written);
    assert_eq!(story.effects.last(), Some(&Effect::Released(Release::HandedOver)));
}

#[test]
fn a_backlog_past_its_bound_pauses_delivery_until_it_is_low() {
    let config = Config { backlog_high: 10, backlog_low: 2, batch_records: 4, ..Config::default() };
    let mut story = Story::begin(config);
    story.stock.top = 100;
    story.claims(0..30);
    assert!(story.effects.contains(&Effect::Pause));
    for _ in 0..20 {
        let batch = story.written();
        story.answer(&batch, WriteResult::Written);
        let seq = batch.emit_seq.expect("claims are told");
        story.tell(Input::Published(seq));
        if story.effects.contains(&Effect::Resume) {
            return;
        }
    }
    unreachable!("never resumed");
}
