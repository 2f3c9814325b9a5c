//! I3, I8: every request has one outcome, and keeps it.

use super::aside::Aside;
use super::ledger::{Ledger, Row, Said, Set};
use super::log::{Log, Says};
use super::report::{Invariant, Report};
use coupon_core::ids::RequestId;

/// I3: every request in the log that has been consumed has an outcome.
pub(super) fn all_decided(ledger: &Ledger, log: &Log, aside: &Aside, settled: bool, report: &mut Report) {
    let mut seen: Set<RequestId> = Set::default();
    for (partition, record) in log.iter() {
        let Says::Request(id) = record.says else { continue };
        let is_in_flight = record.offset >= ledger.next_of(partition);
        if is_in_flight && !settled {
            report.in_flight += u64::from(ledger.row(id).is_none() && seen.insert(id));
            continue;
        }
        if aside.letters.contains_key(&(partition, record.offset)) || !seen.insert(id) {
            continue;
        }
        report.expect(Invariant::I3, ledger.row(id).is_some(), || {
            format!("request {id} at {partition}@{} has no outcome", record.offset)
        });
    }
}

/// I8: an id has one row; an identity has one outcome that is not `idempotency_key_reused`, and it came first.
pub(super) fn one_each(ledger: &Ledger, report: &mut Report) {
    report.checked(Invariant::I8, ledger.rows.len());
    for identity in ledger.shared_identities() {
        let mut rows: Vec<&Row> = ledger.of_identity(identity).collect();
        rows.sort_unstable_by_key(|row| row.offset);
        let mut bodies: Set<i64> = Set::default();
        for row in &rows {
            if !bodies.insert(row.id.body) {
                report.broken(Invariant::I8, || {
                    format!(
                        "request {} was decided more than once, again at {}@{}",
                        row.id, row.partition, row.offset
                    )
                });
            }
        }
        let first = rows.first().map_or(0, |row| row.id.body);
        for row in rows.iter().filter(|row| row.id.body != first && row.said != Said::KeyReused) {
            report.broken(Invariant::I8, || {
                format!(
                    "request {} at {}@{} has the key of another one, and was decided",
                    row.id, row.partition, row.offset
                )
            });
        }
    }
    for row in ledger.rows.iter().filter(|row| row.said == Said::KeyReused) {
        let first = ledger.of_identity(row.id.identity).any(|other| other.offset < row.offset);
        report.expect(Invariant::I8, first, || {
            format!("request {} was told idempotency_key_reused, and nobody had its key before", row.id)
        });
    }
}
