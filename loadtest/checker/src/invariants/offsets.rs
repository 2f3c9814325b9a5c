//! I7, I10: every record of the log has a result, and every position is possible.

use schemas::topics::REQUESTS;
use std::collections::BTreeMap;

use crate::collections::Map;
use crate::kafka::{Committed, EventsAndDeadLetters, Log, LogRecord, OffsetRange, RecordKind};
use crate::postgres::{Ledger, Position};
use crate::report::{Invariant, Report};

/// The index of a row, by partition and offset.
type RowsByOffset = Map<(i32, i64), u32>;

/// I7: below `next_offset`, each record has a row, a dead letter, or is internal, or is a duplicate of an earlier one.
pub(super) fn check_offsets(
    ledger: &Ledger,
    log: &Log,
    events: &EventsAndDeadLetters,
    settled: bool,
    report: &mut Report,
) {
    check_positions(ledger, log, settled, report);
    let rows = rows_by_offset(ledger, report);
    let mut unconsumed: BTreeMap<i32, usize> = BTreeMap::new();
    for (partition, record) in log.iter() {
        if record.offset < ledger.next_offset(partition) {
            let row = rows.get(&(partition, record.offset)).copied();
            check_record(ledger, events, row, (partition, record), report);
        } else if record.kind != RecordKind::Tick {
            // A tick is no request: one may arrive at any time while anything can lapse.
            *unconsumed.entry(partition).or_default() += 1;
        }
    }
    for (partition, count) in unconsumed.into_iter().filter(|_| settled) {
        report
            .violated(Invariant::I7, || format!("partition {partition}: {count} records were not consumed"));
    }
    check_rows(ledger, log, report);
    for ((partition, offset), _) in events.dead_letters.iter().filter(|(_, is_durable)| **is_durable) {
        report.expect(Invariant::I7, *offset < ledger.next_offset(*partition), || {
            format!("{partition}@{offset} is a dead letter, but was never consumed")
        });
    }
}

fn check_positions(ledger: &Ledger, log: &Log, settled: bool, report: &mut Report) {
    let expected = ledger.topic_partitions.get(REQUESTS).copied().unwrap_or(0);
    let has_all = (0..expected).all(|partition| log.ranges.contains_key(&partition));
    report.expect(Invariant::I7, has_all, || {
        format!("{REQUESTS} had {expected} partitions, but has {}", log.ranges.len())
    });
    for (partition, range) in &log.ranges {
        match ledger.partitions.get(partition) {
            Some(position) => check_position(*partition, position, *range, report),
            None => report.expect(Invariant::I7, !settled || range.start == range.end, || {
                let count = range.end - range.start;
                format!("partition {partition} has {count} records, but never had an owner")
            }),
        }
    }
}

fn check_position(partition: i32, position: &Position, range: OffsetRange, report: &mut Report) {
    let Position { next_offset, last_offset, next_emit_seq, emitted_seq, .. } = *position;
    report.expect(Invariant::I7, next_offset <= range.end && last_offset < next_offset, || {
        format!(
            "partition {partition}: next_offset is {next_offset} and last_offset {last_offset}, \
             but the log ends before offset {}",
            range.end
        )
    });
    report.expect(Invariant::I7, emitted_seq < next_emit_seq, || {
        format!("partition {partition}: emitted_seq is {emitted_seq}, but next_emit_seq is {next_emit_seq}")
    });
}

fn rows_by_offset(ledger: &Ledger, report: &mut Report) -> RowsByOffset {
    let mut rows = RowsByOffset::default();
    rows.reserve(ledger.rows.len());
    for (row, index) in ledger.rows.iter().zip(0..) {
        if let Some(other) = rows.insert((row.partition, row.offset), index) {
            report.violated(Invariant::I7, || {
                let other = ledger.request_name(other);
                format!("{}@{} has two outcomes, of {} and of {other}", row.partition, row.offset, row.id)
            });
        }
    }
    rows
}

fn check_record(
    ledger: &Ledger,
    events: &EventsAndDeadLetters,
    row: Option<u32>,
    (partition, record): (i32, &LogRecord),
    report: &mut Report,
) {
    let offset = record.offset;
    let row = row.and_then(|index| ledger.row_at(index));
    let is_dead_letter = events.dead_letters.contains_key(&(partition, offset));
    match (record.kind, row) {
        (RecordKind::Request(id) | RecordKind::Unreadable(Some(id)), Some(row)) => {
            report.expect(Invariant::I7, row.id == id, || {
                format!("{partition}@{offset} is request {id}, but its outcome belongs to {}", row.id)
            });
        }
        (_, Some(row)) => {
            report.expect(Invariant::I7, false, || {
                format!("{partition}@{offset} is no request, but has the outcome of {}", row.id)
            });
        }
        (RecordKind::Internal | RecordKind::Tick | RecordKind::StockAdded(_), None) => {
            report.checked(Invariant::I7, 1);
        }
        (RecordKind::Unreadable(_), None) => {
            report.expect(Invariant::I7, is_dead_letter, || {
                format!("{partition}@{offset} cannot be read, but is not a dead letter")
            });
        }
        (RecordKind::Request(id), None) => {
            let earlier = ledger.row(id);
            let is_duplicate = earlier.is_some_and(|row| row.partition == partition && row.offset < offset);
            report.expect(Invariant::I7, is_duplicate || is_dead_letter, || {
                format!(
                    "{partition}@{offset} (request {id}) was skipped: no outcome, no dead letter, no earlier record"
                )
            });
        }
    }
}

/// Every row belongs to a consumed record of the log.
fn check_rows(ledger: &Ledger, log: &Log, report: &mut Report) {
    for row in &ledger.rows {
        let next = ledger.next_offset(row.partition);
        let start = log.ranges.get(&row.partition).map_or(0, |range| range.start);
        let has_record = || row.offset < start || log.record_at(row.partition, row.offset).is_some();
        report.expect(Invariant::I7, row.offset < next && has_record(), || {
            format!(
                "request {} was decided at {}@{}, but the log has no consumed record there",
                row.id, row.partition, row.offset
            )
        });
        if row.is_claim() && row.partition < 0 {
            report.violated(Invariant::I7, || {
                format!("request {} has a code of a coupon that does not exist", row.id)
            });
        }
    }
}

/// I10: the offset that the consumer group has committed is not ahead of Postgres. I7: neither is the write number that
/// was committed with it. Only a row that was set back to an earlier state has a smaller one.
pub(crate) fn check_committed(ledger: &Ledger, committed: &BTreeMap<i32, Committed>, report: &mut Report) {
    for (partition, Committed { offset, write_no }) in committed {
        let next = ledger.next_offset(*partition);
        report.expect(Invariant::I10, *offset <= next, || {
            format!("partition {partition}: the group has committed {offset}, but Postgres is at {next}")
        });
        let Some(write_no) = write_no else { continue };
        let found = ledger.partitions.get(partition).map_or(0, |position| position.write_no);
        report.expect(Invariant::I7, *write_no <= found, || {
            format!(
                "partition {partition}: the group has committed write {write_no}, but the row is at write {found}"
            )
        });
    }
}
