//! I7, I10: every record of the log has become something, and positions are where they can be.

use schemas::topics::REQUESTS;
use std::collections::BTreeMap;

use super::aside::Aside;
use super::ledger::{Ledger, Map, Position, Said};
use super::log::{Log, Logged, Says};
use super::report::{Invariant, Report};
use super::topics::{Committed, Span};

/// Rows by their places in the log.
type Places = Map<(i32, i64), u32>;

/// I7: below `next_offset`, each record has a row, a dead letter, or is internal, or repeats an earlier one.
pub(super) fn none_skipped(ledger: &Ledger, log: &Log, aside: &Aside, settled: bool, report: &mut Report) {
    let places = places(ledger, report);
    let recorded = ledger.recorded.get(REQUESTS).copied().unwrap_or(0);
    report.expect(Invariant::I7, (0..recorded).all(|partition| log.spans.contains_key(&partition)), || {
        format!("{REQUESTS} had {recorded} partitions, and has {}", log.spans.len())
    });
    for (partition, span) in &log.spans {
        match ledger.partitions.get(partition) {
            Some(position) => position_fits(*partition, position, *span, report),
            None => report.expect(Invariant::I7, !settled || span.from == span.to, || {
                format!("partition {partition} has {} records and no owner ever", span.to - span.from)
            }),
        }
    }
    let mut unconsumed: BTreeMap<i32, usize> = BTreeMap::new();
    for (partition, record) in log.iter() {
        if record.offset < ledger.next_of(partition) {
            record_fits(ledger, &places, aside, partition, record, report);
        } else if record.says != Says::Tick {
            // A tick is nobody's request: it may come at any time, as long as anything can lapse.
            *unconsumed.entry(partition).or_default() += 1;
        }
    }
    for (partition, count) in unconsumed.into_iter().filter(|_| settled) {
        report.broken(Invariant::I7, || format!("partition {partition}: {count} records were not consumed"));
    }
    rows_fit(ledger, log, report);
    for (place, _) in aside.letters.iter().filter(|(_, is_durable)| **is_durable) {
        let next = ledger.next_of(place.0);
        report.expect(Invariant::I7, place.1 < next, || {
            format!("{}@{} is a dead letter, and was never consumed", place.0, place.1)
        });
    }
}

fn places(ledger: &Ledger, report: &mut Report) -> Places {
    let mut places = Places::default();
    places.reserve(ledger.rows.len());
    for (index, row) in ledger.rows.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if let Some(other) = places.insert((row.partition, row.offset), index) {
            let other = ledger.rows.get(other as usize).map(|other| other.id.to_string()).unwrap_or_default();
            report.broken(Invariant::I7, || {
                format!("{}@{} has two outcomes, of {} and of {other}", row.partition, row.offset, row.id)
            });
        }
    }
    places
}

fn position_fits(partition: i32, position: &Position, span: Span, report: &mut Report) {
    let Position { next_offset, last_offset, next_emit_seq, emitted_seq, .. } = *position;
    report.expect(Invariant::I7, next_offset <= span.to && last_offset < next_offset, || {
        format!(
            "partition {partition}: next is {next_offset} after {last_offset}, the log ends before {}",
            span.to
        )
    });
    report.expect(Invariant::I7, emitted_seq < next_emit_seq, || {
        format!(
            "partition {partition}: {emitted_seq} is acknowledged, and {next_emit_seq} is not written yet"
        )
    });
}

fn record_fits(
    ledger: &Ledger,
    places: &Places,
    aside: &Aside,
    partition: i32,
    record: &Logged,
    report: &mut Report,
) {
    let place = (partition, record.offset);
    let at = || format!("{partition}@{}", record.offset);
    let row = places.get(&place).and_then(|index| ledger.rows.get(*index as usize));
    let is_letter = aside.letters.contains_key(&place);
    match (record.says, row) {
        (Says::Request(id) | Says::Unreadable(Some(id)), Some(row)) => {
            report.expect(Invariant::I7, row.id == id, || {
                format!("{} asks for {id}, and its outcome is that of {}", at(), row.id)
            });
        }
        (Says::Internal | Says::Tick | Says::StockAdded(_) | Says::Unreadable(None), Some(row)) => {
            report.expect(Invariant::I7, false, || {
                format!("{} asks for nothing, and is the outcome of {}", at(), row.id)
            });
        }
        (Says::Internal | Says::Tick | Says::StockAdded(_), None) => report.checked(Invariant::I7, 1),
        (Says::Unreadable(_), None) => {
            report.expect(Invariant::I7, is_letter, || {
                format!("{} cannot be read, and is no dead letter", at())
            });
        }
        (Says::Request(id), None) => {
            let repeats =
                ledger.row(id).is_some_and(|row| row.partition == partition && row.offset < record.offset);
            report.expect(Invariant::I7, repeats || is_letter, || {
                format!("{} (request {id}) was skipped: no outcome, no dead letter, no earlier one", at())
            });
        }
    }
}

/// Every row belongs to a record that is there, and was consumed.
fn rows_fit(ledger: &Ledger, log: &Log, report: &mut Report) {
    for row in &ledger.rows {
        let next = ledger.next_of(row.partition);
        let span = log.spans.get(&row.partition).copied().unwrap_or(Span { from: 0, to: 0 });
        let has_a_record = || {
            row.offset < span.from
                || log.records.get(&row.partition).is_some_and(|records| {
                    records.binary_search_by_key(&row.offset, |record| record.offset).is_ok()
                })
        };
        report.expect(Invariant::I7, row.offset < next && has_a_record(), || {
            format!("request {} was decided at {}@{}, where nothing is", row.id, row.partition, row.offset)
        });
        if row.said == Said::Claimed && row.partition < 0 {
            report.broken(Invariant::I7, || {
                format!("request {} has a code of a coupon that is not there", row.id)
            });
        }
    }
}

/// I10: what the consumer group has committed is not ahead of what Postgres has. I7: nor is the write number that an
/// owner committed with it, which only a row that went back to an earlier one can be behind.
pub(super) fn group_behind(ledger: &Ledger, committed: &BTreeMap<i32, Committed>, report: &mut Report) {
    for (partition, Committed { offset, write_no }) in committed {
        let next = ledger.next_of(*partition);
        report.expect(Invariant::I10, *offset <= next, || {
            format!("partition {partition}: the group has committed {offset}, Postgres has {next}")
        });
        let Some(write_no) = write_no else { continue };
        let found = ledger.partitions.get(partition).map_or(0, |position| position.write_no);
        report.expect(Invariant::I7, *write_no <= found, || {
            format!(
                "partition {partition}: write {write_no} is committed by the group, and its row is at {found}"
            )
        });
    }
}
