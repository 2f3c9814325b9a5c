//! I4, I5: what was told is what is durable, and what is durable was told.

use schemas::CouponResponse;
use std::collections::BTreeMap;

use super::ledger::{Ledger, Map, Set};
use super::log::{Aside, Told, responses};
use super::report::{Invariant, Report};
use super::topics::{Kafka, Spans, TopicsUnread};

/// Reads every response event and holds it against its row. Answers how many there are.
pub(super) fn told(
    ledger: &Ledger,
    kafka: &Kafka,
    spans: &Spans,
    covered: &Spans,
    decoder: &schemas::Decoder<CouponResponse>,
    report: &mut Report,
) -> Result<u64, TopicsUnread> {
    let mut told = vec![false; ledger.rows.len()];
    let mut count = 0;
    responses(kafka, spans, decoder, |event| {
        count += 1;
        one(ledger, covered, &event, &mut told, report);
    })?;
    let mut owed = 0;
    for (row, told) in ledger.rows.iter().zip(told) {
        let is_owed = !told && ledger.owed.contains(&row.id);
        owed += u64::from(is_owed);
        report.expect(Invariant::I5, told || is_owed, || {
            format!("request {} at {}@{} was decided, and never told", row.id, row.partition, row.offset)
        });
    }
    if owed > 0 {
        report.note(format!("{owed} outcomes lie in the outbox, to be told"));
    }
    Ok(count)
}

fn one(ledger: &Ledger, covered: &Spans, event: &Told<'_>, told: &mut [bool], report: &mut Report) {
    let at = || format!("coupon.responses {}@{}", event.partition, event.offset);
    let Some(id) = event.id else {
        return report.broken(Invariant::I5, || format!("{} cannot be read: {}", at(), event.text));
    };
    match ledger.index_of(id) {
        Some(index) => {
            told[index] = true;
            report.expect(Invariant::I4, ledger.rows[index].digest == event.digest, || {
                format!("{} tells request {id} otherwise than its row: {}", at(), event.text)
            });
            report
                .expect(Invariant::I5, event.keyed_by_user, || format!("{} is not keyed by its user", at()));
        }
        // What was told after the snapshot may have become durable after it.
        None if covered.get(&event.partition).is_some_and(|span| event.offset >= span.to) => {}
        None => report.broken(Invariant::I5, || format!("{} tells what no row holds: {}", at(), event.text)),
    }
}

/// I5 for what no request asked for: every load that became stock was told, and so was every coupon sold out.
pub(super) fn aside(ledger: &Ledger, aside: &Aside, report: &mut Report) {
    for unreadable in &aside.unreadable {
        report.broken(Invariant::I5, || unreadable.clone());
    }
    let mut restocked: Map<i32, i64> = Map::default();
    for (partition, _) in &aside.restocked {
        *restocked.entry(*partition).or_default() += 1;
    }
    let mut applied: BTreeMap<i32, i64> = BTreeMap::new();
    for load in ledger.loads.iter().filter(|load| load.base.is_some()) {
        let partition = ledger.coupons.get(&load.coupon).map_or(-1, |coupon| coupon.partition);
        *applied.entry(partition).or_default() += 1;
    }
    let untold = |partition: &i32| ledger.owes_messages.contains(partition);
    for (partition, applied) in applied.into_iter().filter(|(partition, _)| !untold(partition)) {
        let told = restocked.get(&partition).copied().unwrap_or(0);
        report.expect(Invariant::I5, told == applied, || {
            format!("partition {partition}: {applied} loads became stock, and {told} were told")
        });
    }
    let sold_out: Set<&str> = aside.sold_out.iter().map(|id| &**id).collect();
    for coupon in ledger.coupons.values().filter(|coupon| !untold(&coupon.partition)) {
        let Some(stock) = coupon.stock.filter(|stock| stock.top > 0) else { continue };
        if stock.top - stock.cursor - stock.ahead + stock.returned == 0 {
            report.expect(Invariant::I5, sold_out.contains(&*coupon.id), || {
                format!("{} is sold out, and nobody was told", coupon.id)
            });
        }
    }
}
