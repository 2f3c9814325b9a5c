//! I3, I8, I9: every request has one outcome, keeps it, and it is the right one as far as the stock goes.

use super::ledger::{Ledger, Map, Row, Said, Set};
use super::log::{Aside, Log, Says};
use super::report::{Invariant, Report};
use coupon_core::ids::RequestId;

/// I3: every request in the log that has been consumed has an outcome.
pub(super) fn all_decided(ledger: &Ledger, log: &Log, aside: &Aside, settled: bool, report: &mut Report) {
    let mut seen: Set<RequestId> = Set::default();
    for (partition, record) in log.iter() {
        let Says::Request(id) = record.says else { continue };
        let next = ledger.partitions.get(&partition).map_or(0, |position| position.next_offset);
        if (record.offset >= next && !settled)
            || aside.letters.contains_key(&(partition, record.offset))
            || !seen.insert(id)
        {
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

/// What was stock of a coupon from which offset on.
#[derive(Default)]
struct Supply {
    /// (offset of the record, codes), in order; only what surely was stock from there on.
    sure: Vec<(i64, i64)>,
    /// The same, at the earliest possible offsets.
    at_most: Vec<(i64, i64)>,
}

impl Supply {
    fn before(steps: &[(i64, i64)], offset: i64) -> i64 {
        steps.iter().take_while(|(from, _)| *from < offset).map(|(_, codes)| codes).sum()
    }
}

/// I9: in the order of the log, sold out was said only when as many claims had been accepted as there was stock, and
/// no claim got a code before it was stock.
pub(super) fn sold_out_in_time(ledger: &Ledger, log: &Log, aside: &Aside, report: &mut Report) {
    let supplies = supplies(ledger, log, aside);
    let mut order: Vec<&Row> =
        ledger.rows.iter().filter(|row| matches!(row.said, Said::Claimed | Said::SoldOut)).collect();
    order.sort_unstable_by_key(|row| (row.coupon, row.offset));
    let nothing = Supply::default();
    let (mut coupon, mut accepted) = (0, 0);
    for row in order {
        if row.coupon != coupon {
            (coupon, accepted) = (row.coupon, 0);
        }
        let supply = supplies.get(&coupon).unwrap_or(&nothing);
        if row.said == Said::Claimed {
            accepted += 1;
            let stock = Supply::before(&supply.at_most, row.offset);
            report.expect(Invariant::I9, row.number <= stock, || {
                let name = ledger.name_of(coupon);
                format!("request {} got code {} of {name}, whose stock was {stock} then", row.id, row.number)
            });
        } else {
            let stock = Supply::before(&supply.sure, row.offset);
            report.expect(Invariant::I9, accepted >= stock, || {
                let name = ledger.name_of(coupon);
                format!(
                    "request {} was told sold out when {accepted} of {stock} codes of {name} were given",
                    row.id
                )
            });
        }
    }
}

/// The record at which a load became stock is the one that a `restocked` event names.
fn supplies(ledger: &Ledger, log: &Log, aside: &Aside) -> Map<i64, Supply> {
    let mut announced: Map<i64, Vec<(i32, i64)>> = Map::default();
    for (partition, record) in log.iter() {
        if let Says::StockAdded(load) = record.says {
            announced.entry(load).or_default().push((partition, record.offset));
        }
    }
    let mut supplies: Map<i64, Supply> = Map::default();
    for load in ledger.loads.iter().filter(|load| load.base.is_some()) {
        let supply = supplies.entry(load.coupon).or_default();
        let places = announced.get(&load.load).map_or(&[][..], Vec::as_slice);
        let applied = places.iter().find(|place| aside.restocked.contains(place));
        if let Some((_, offset)) = applied {
            supply.sure.push((*offset, load.count));
        }
        let earliest = applied.or_else(|| places.first()).map_or(-1, |(_, offset)| *offset);
        supply.at_most.push((earliest, load.count));
    }
    for supply in supplies.values_mut() {
        supply.sure.sort_unstable();
        supply.at_most.sort_unstable();
    }
    supplies
}
