//! I3, I8: every request has one outcome, and keeps it.

use coupon_core::ids::RequestId;

use crate::collections::Set;
use crate::kafka::{EventsAndDeadLetters, Log, RecordKind};
use crate::postgres::{Ledger, OutcomeKind, Row};
use crate::report::{Invariant, Report};

/// I3: every consumed request of the log has an outcome, or its record is a dead letter.
pub(super) fn check_decided(
    ledger: &Ledger,
    log: &Log,
    events: &EventsAndDeadLetters,
    settled: bool,
    report: &mut Report,
) {
    let mut seen: Set<RequestId> = Set::default();
    for (partition, record) in log.iter() {
        let RecordKind::Request(id) = record.kind else { continue };
        let is_in_flight = record.offset >= ledger.next_offset(partition);
        if is_in_flight && !settled {
            report.in_flight += u64::from(ledger.row(id).is_none() && seen.insert(id));
            continue;
        }
        if events.dead_letters.contains_key(&(partition, record.offset)) || !seen.insert(id) {
            continue;
        }
        report.expect(Invariant::I3, ledger.row(id).is_some(), || {
            format!("request {id} at {partition}@{} has no outcome", record.offset)
        });
    }
}

/// The deduplication window of the workers, by default.
const WINDOW_MS: i64 = 48 * 60 * 60 * 1000;

/// I8: within the deduplication window an id has one row, and of the rows of one identity only those of the first body are
/// not `idempotency_key_reused`.
pub(super) fn check_unique(ledger: &Ledger, report: &mut Report) {
    report.checked(Invariant::I8, ledger.rows.len());
    for identity in ledger.shared_identities() {
        let mut rows: Vec<&Row> = ledger.of_identity(identity).collect();
        rows.sort_unstable_by_key(|row| row.offset);
        for (n, row) in rows.iter().enumerate() {
            let Row { id, partition, offset, .. } = row;
            let mut earlier = rows[..n].iter().filter(|earlier| is_found_for(earlier, row)).peekable();
            let Some(first) = earlier.peek().map(|first| first.id.body) else { continue };
            if earlier.any(|earlier| earlier.id.body == id.body) {
                report.violated(Invariant::I8, || {
                    format!("request {id} was decided more than once, again at {partition}@{offset}")
                });
            }
            if id.body != first && row.kind != OutcomeKind::KeyReused {
                report.violated(Invariant::I8, || {
                    format!(
                        "request {id} at {partition}@{offset} was decided with the key of another request"
                    )
                });
            }
        }
    }
    for row in ledger.rows.iter().filter(|row| row.kind == OutcomeKind::KeyReused) {
        let has_earlier = ledger.of_identity(row.id.identity).any(|other| other.offset < row.offset);
        report.expect(Invariant::I8, has_earlier, || {
            format!(
                "request {} was rejected as idempotency_key_reused, but no earlier request has its key",
                row.id
            )
        });
    }
}

/// Whether a stored outcome is found for a later request of its identity: claims and redemptions always, others within
/// the window.
fn is_found_for(earlier: &Row, row: &Row) -> bool {
    let always = matches!(earlier.kind, OutcomeKind::Claimed | OutcomeKind::Redeemed);
    always || row.decided_ms - earlier.decided_ms <= WINDOW_MS
}
