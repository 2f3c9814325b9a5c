//! Single scenarios, with results given by hand. The simulation plays random schedules.

use super::*;
use crate::domain::batch::{Fence, StockRow, Verdict};
use crate::domain::coupon::Definition;
use crate::domain::ids::{CodeNumber, CouponNo, Millis, RequestId};
use crate::domain::record::{Payload, Request};
use crate::domain::words::{Kind, Reason};
use crate::interface::{
    CodeEntry, LookupResults, Lookups, PartitionRow, ReadCodes, StoredCoupon, WriteResult,
};
use std::sync::Arc;

const NOW: i64 = 1_000_000;

struct Scenario {
    machine: Machine,
    nonce: Nonce,
    effects: Vec<Effect>,
    stock: StockRow,
    /// Postgres' clock.
    now: Millis,
    clock_reads: usize,
}

impl Scenario {
    fn begin(config: Config) -> Self {
        let mut machine = Machine::new(Partition(0), config, 1);
        let mut effects = Vec::new();
        machine.apply(Input::Begin, &mut effects);
        let Some(Effect::TakeOver { nonce }) = effects.pop() else { unreachable!("{effects:?}") };
        let stock = StockRow { top: 3, ..StockRow::default() };
        let mut scenario = Self { machine, nonce, effects, stock, now: Millis(NOW), clock_reads: 0 };
        scenario.apply(Input::TakenOver(row(nonce, 0, None)));
        scenario.apply(Input::LogChecked(Ok(())));
        scenario.effects.clear();
        scenario
    }

    fn apply(&mut self, input: Input) {
        self.machine.apply(input, &mut self.effects);
        self.perform_reads();
    }

    /// Performs lookups and reservations as a Postgres without claims.
    fn perform_reads(&mut self) {
        let is_read = |effect: &Effect| {
            matches!(effect, Effect::Lookup { .. } | Effect::Reserve { .. } | Effect::ReadClock { .. })
        };
        while let Some(index) = self.effects.iter().position(is_read) {
            let input = match self.effects.remove(index) {
                Effect::Lookup { token, lookups } => {
                    Input::LookedUp { token, results: Box::new(self.results(lookups)) }
                }
                Effect::Reserve { token, pops, reads } => {
                    assert!(pops.is_empty(), "no list was refilled");
                    let read = reads.iter().map(|read| self.codes(read)).collect();
                    Input::Reserved { token, popped: vec![], read }
                }
                Effect::ReadClock { again: true, .. } => continue,
                Effect::ReadClock { .. } => {
                    self.clock_reads += 1;
                    Input::ClockRead { now: self.now, rejected_through: None }
                }
                other => unreachable!("{other:?}"),
            };
            self.machine.apply(input, &mut self.effects);
        }
    }

    fn results(&self, lookups: Lookups) -> LookupResults {
        let coupons = lookups.coupons.into_iter().filter(|id| &**id == "coupon").map(|coupon_id| {
            let definition = Definition { claims_per_user: Some(1), ..Definition::default() };
            StoredCoupon { coupon_id, coupon: CouponNo(1), definition, stock: self.stock, ahead: vec![] }
        });
        LookupResults { coupons: coupons.collect(), ..LookupResults::default() }
    }

    fn codes(&self, read: &ReadCodes) -> Vec<CodeEntry> {
        let last = (read.after.0 + read.count as i64).min(self.stock.top);
        let entry = |n| CodeEntry { number: CodeNumber(n), code: format!("C{n}").into() };
        (read.after.0 + 1..=last).map(entry).collect()
    }

    fn claims(&mut self, offsets: impl IntoIterator<Item = i64>) {
        let records = offsets.into_iter().map(|offset| claim(offset, offset)).collect();
        self.apply(Input::Records(records));
    }

    fn written(&self) -> Arc<Batch> {
        let batches = self.effects.iter().rev().filter_map(|effect| match effect {
            Effect::Write { batch, .. } => Some(Arc::clone(batch)),
            _ => None,
        });
        batches.into_iter().next().expect("a write")
    }

    fn respond(&mut self, batch: &Batch, result: WriteResult) {
        let Fence { write_no, attempt, .. } = batch.fence;
        self.apply(Input::Written { write_no, attempt, result });
    }
}

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
fn claims_get_codes_in_order_until_none_is_free() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..5);
    let batch = scenario.written();
    assert_eq!(verdicts(&batch), [None, None, None, Some(Reason::SoldOut), Some(Reason::SoldOut)]);
    assert_eq!(batch.position.next_offset, Offset(5));
    assert_eq!(batch.stock[0].after, StockRow { top: 3, cursor: 3, claimed: 3, ..StockRow::default() });
    scenario.respond(&batch, WriteResult::Written);
    assert!(scenario.effects.iter().any(|effect| matches!(effect, Effect::Publish(_))));
}

#[test]
fn nothing_is_published_before_it_is_written() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..2);
    assert!(
        !scenario
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish(_) | Effect::CommitOffset { .. }))
    );
}

#[test]
fn a_write_whose_result_is_lost_is_settled_when_the_row_shows_it() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    let batch = scenario.written();
    scenario.respond(&batch, WriteResult::Unknown);
    assert!(matches!(scenario.effects.last(), Some(Effect::ReadBack)));
    scenario.apply(Input::ReadBack(row(batch.fence.nonce, 1, Some(batch.fence.attempt))));
    assert!(
        scenario
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish(published) if *published == batch))
    );
}

#[test]
fn a_write_that_did_not_happen_is_sent_again_unchanged() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    let batch = scenario.written();
    scenario.respond(&batch, WriteResult::Unknown);
    scenario.effects.clear();
    scenario.apply(Input::ReadBack(row(batch.fence.nonce, 0, None)));
    assert!(matches!(&scenario.effects[..], [Effect::Write { batch: again, backoff: 1 }] if *again == batch));
}

#[test]
fn an_owner_that_reads_another_epoch_releases_the_partition() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    let batch = scenario.written();
    scenario.respond(&batch, WriteResult::Fenced);
    scenario.apply(Input::ReadBack(PartitionRow { epoch: Epoch(2), ..row(Nonce(9), 4, None) }));
    assert!(matches!(scenario.effects.last(), Some(Effect::Released(Release::Fenced))));
}

#[test]
fn when_a_batch_is_undone_the_next_one_is_undone_too() {
    let mut scenario = Scenario::begin(Config { batch_records: 2, ..Config::default() });
    scenario.claims(0..4);
    let first = scenario.written();
    scenario.stock = StockRow { top: 3, cursor: 2, claimed: 2, ..StockRow::default() };
    scenario.respond(&first, WriteResult::Mismatch("another owner was faster".into()));
    let again = scenario.written();
    assert_eq!(again.fence.write_no, first.fence.write_no);
    assert_ne!(again.fence.attempt, first.fence.attempt);
    assert_eq!(verdicts(&again), [None, Some(Reason::SoldOut)], "executed from the state of Postgres");
    scenario.respond(&again, WriteResult::Written);
    assert_eq!(verdicts(&scenario.written()), [Some(Reason::SoldOut); 2]);
}

#[test]
fn a_mismatch_twice_in_a_row_stops_the_partition_with_a_reason() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    for _ in 0..2 {
        let batch = scenario.written();
        scenario.respond(&batch, WriteResult::Mismatch("a row is gone".into()));
    }
    assert_eq!(scenario.effects.last(), Some(&Effect::ReadBack), "the row may show another owner");
    let nonce = scenario.nonce;
    scenario.apply(Input::ReadBack(row(nonce, 0, None)));
    let Some(Effect::Released(Release::Stopped(text))) = scenario.effects.last() else { unreachable!() };
    assert!(text.contains("a row is gone"), "{text}");
}

#[test]
fn a_record_that_postgres_rejects_as_data_is_isolated_and_unprocessable() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..4);
    let mut settled = Vec::new();
    for _ in 0..20 {
        let batch = scenario.written();
        let poison = batch.decisions.iter().any(|decision| {
            decision.offset == Offset(2) && decision.verdict != Verdict::Rejected(Reason::Unprocessable)
        });
        if poison {
            scenario.respond(&batch, WriteResult::DataRejected("invalid byte sequence".into()));
            continue;
        }
        settled.extend(
            batch.decisions.iter().map(|decision| (decision.offset.0, decision.request.user.clone())),
        );
        scenario.stock = batch.stock.last().map_or(scenario.stock, |change| change.after);
        scenario.respond(&batch, WriteResult::Written);
        if batch.position.next_offset == Offset(4) {
            break;
        }
    }
    let expected: Vec<(i64, Box<str>)> = (0..4).map(|n| (n, format!("user-{n}").into())).collect();
    assert_eq!(settled, expected, "each once, in order, with its user");
}

#[test]
fn a_copy_in_the_same_batch_gets_no_second_outcome() {
    let mut scenario = Scenario::begin(Config::default());
    let copy = Record { offset: Offset(1), ..claim(0, 0) };
    scenario.apply(Input::Records(vec![claim(0, 0), copy]));
    let batch = scenario.written();
    assert_eq!(batch.decisions.len(), 1);
    assert_eq!(batch.position.next_offset, Offset(2));
}

#[test]
fn a_record_far_ahead_of_the_clock_waits_until_the_clock_has_caught_up() {
    let mut scenario = Scenario::begin(Config::default());
    let bound = Config::default().max_time_ahead;
    let far_ahead = Record { appended: Millis(NOW + bound + 60_000), ..claim(1, 1) };
    scenario.apply(Input::Records(vec![claim(0, 0), far_ahead, claim(2, 2)]));
    let first = scenario.written();
    assert_eq!(first.position.next_offset, Offset(1), "what was appended before it is decided");
    scenario.respond(&first, WriteResult::Written);
    let ahead = scenario.machine.status().ahead.expect("it waits");
    assert_eq!((ahead.offset, ahead.by), (Offset(1), bound + 60_000));
    scenario.effects.clear();
    scenario.apply(Input::ClockRead { now: Millis(NOW + 59_999), rejected_through: None });
    assert!(scenario.effects.is_empty(), "the driver reads the clock once more, and nothing is written");
    scenario.apply(Input::ClockRead { now: Millis(NOW + 60_000), rejected_through: None });
    let rest = scenario.written();
    assert_eq!(rest.position.next_offset, Offset(3));
    assert_eq!(rest.position.time, Millis(NOW + bound + 60_000));
    assert_eq!(scenario.machine.status().ahead, None);
}

#[test]
fn a_record_far_ahead_that_an_operator_has_rejected_is_unprocessable_and_moves_no_time() {
    let mut scenario = Scenario::begin(Config::default());
    let far_ahead = Record { appended: Millis(NOW + 86_400_000), ..claim(0, 0) };
    scenario.apply(Input::Records(vec![far_ahead, claim(1, 1)]));
    assert!(scenario.machine.status().ahead.is_some());
    scenario.apply(Input::ClockRead { now: Millis(NOW), rejected_through: Some(Offset(0)) });
    let batch = scenario.written();
    assert_eq!(verdicts(&batch), [Some(Reason::Unprocessable), None]);
    assert_eq!(batch.position.time, Millis(NOW + 1), "the time of the other record");
    let [(offset, letter)] = &batch.dead_letters[..] else { unreachable!("{batch:?}") };
    assert_eq!((*offset, letter.reason), (Offset(0), "append_time_ahead"));
}

#[test]
fn the_clock_is_read_only_for_append_times_beyond_the_last_reading_and_the_bound() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    let batch = scenario.written();
    scenario.respond(&batch, WriteResult::Written);
    let bound = Config::default().max_time_ahead;
    assert_eq!(scenario.clock_reads, 1, "none was read before");
    // The last record is not admitted, and the clock is read again.
    for (offset, appended, reads) in [(1, NOW + bound, 1), (2, NOW - 1, 1), (3, NOW + bound + 1, 2)] {
        let record = Record { appended: Millis(appended), ..claim(offset, offset) };
        scenario.apply(Input::Records(vec![record]));
        assert_eq!(scenario.clock_reads, reads, "{offset}");
        let batch = scenario.written();
        scenario.respond(&batch, WriteResult::Written);
    }
}

#[test]
fn the_watermark_is_written_alone_when_no_batch_carries_it() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    let batch = scenario.written();
    scenario.respond(&batch, WriteResult::Written);
    scenario.apply(Input::Published(EmitSeq(1)));
    scenario.effects.clear();
    scenario.apply(Input::Idle { since_last_record: Millis(0) });
    let idle = scenario.written();
    assert_eq!((idle.watermark, idle.emit_seq, idle.decisions.len()), (EmitSeq(1), None, 0));
    scenario.respond(&idle, WriteResult::Written);
    scenario.effects.clear();
    scenario.apply(Input::Idle { since_last_record: Millis(0) });
    assert!(scenario.effects.is_empty(), "once is enough");
}

#[test]
fn a_hand_over_waits_for_the_write_and_its_acknowledgement() {
    let mut scenario = Scenario::begin(Config::default());
    scenario.claims(0..1);
    let batch = scenario.written();
    scenario.apply(Input::HandOver);
    scenario.respond(&batch, WriteResult::Written);
    assert!(!scenario.effects.iter().any(|effect| matches!(effect, Effect::Released(_))));
    scenario.apply(Input::Published(EmitSeq(1)));
    let watermark = scenario.written();
    assert_eq!(watermark.watermark, EmitSeq(1));
    scenario.respond(&watermark, WriteResult::Written);
    assert_eq!(scenario.effects.last(), Some(&Effect::Released(Release::HandedOver)));
}

#[test]
fn a_backlog_above_its_bound_pauses_delivery_until_it_is_low() {
    let config = Config { backlog_high: 10, backlog_low: 2, batch_records: 4, ..Config::default() };
    let mut scenario = Scenario::begin(config);
    scenario.stock.top = 100;
    scenario.claims(0..30);
    assert!(scenario.effects.contains(&Effect::Pause));
    for _ in 0..20 {
        let batch = scenario.written();
        scenario.respond(&batch, WriteResult::Written);
        let seq = batch.emit_seq.expect("decisions are published");
        scenario.apply(Input::Published(seq));
        if scenario.effects.contains(&Effect::Resume) {
            return;
        }
    }
    unreachable!("never resumed");
}
