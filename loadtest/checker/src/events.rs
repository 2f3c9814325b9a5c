//! I4, I5: what was told is what is durable, and what is durable was told.

use schemas::CouponResponse;
use schemas::topics::RESPONSES;

use super::aside::{Aside, At, digest_of};
use super::ledger::{Ledger, Set};
use super::log::{Log, Told, responses};
use super::report::{Invariant, Report};
use super::timeline::{announcements, returns};
use super::topics::{Kafka, Spans, TopicsUnread, covers};

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
    if spans.values().any(|span| span.from > 0) {
        report.note(format!(
            "{RESPONSES} no longer begins with its beginning: whether all was told is unchecked"
        ));
        return Ok(count);
    }
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
        None if !covers(covered, event.partition, event.offset) => {}
        None => report.broken(Invariant::I5, || format!("{} tells what no row holds: {}", at(), event.text)),
    }
}

/// I5 for what no request asked for: every load that became stock was told, and so was every coupon sold out.
pub(super) fn aside(ledger: &Ledger, log: &Log, aside: &Aside, report: &mut Report) {
    for unreadable in &aside.unreadable {
        report.broken(Invariant::I5, || unreadable.clone());
    }
    restocked(ledger, log, aside, report);
    let untold = |partition: &i32| ledger.owes_events.contains(partition) || aside.incomplete;
    let sold_out: Set<&str> = aside.sold_out.iter().map(|id| &**id).collect();
    for coupon in ledger.coupons.values().filter(|coupon| !untold(&coupon.partition)) {
        let Some(stock) = coupon.stock.filter(|stock| stock.top > 0) else { continue };
        if stock.available() == 0 && !coupon.rules.is_shared() {
            report.expect(Invariant::I5, sold_out.contains(&*coupon.id), || {
                format!("{} is sold out, and nobody was told", coupon.id)
            });
        }
    }
}

/// I5 for stock: every load that became stock was told at one of its announcements, and of nothing else was it told
/// that there are codes again but of what came back.
fn restocked(ledger: &Ledger, log: &Log, aside: &Aside, report: &mut Report) {
    let returns: Set<At> = returns(ledger, aside).collect();
    let announced = announcements(log);
    let mut explained: Set<At> = Set::default();
    for load in &ledger.loads {
        let Some(coupon) = ledger.coupons.get(&load.coupon) else { continue };
        let at = |(partition, offset): &(i32, i64)| (*partition, *offset, digest_of(&coupon.id));
        let places = announced.get(&load.load).map_or(&[][..], Vec::as_slice);
        explained.extend(places.iter().map(at));
        let told = places.iter().map(at).filter(|at| aside.restocked.contains(at));
        let (by_return, by_load): (Vec<At>, Vec<At>) = told.partition(|at| returns.contains(at));
        // Announced several times, and the one that counted may be gone.
        let is_cut = log.spans.get(&coupon.partition).is_some_and(|span| span.from > 0);
        let may_be_untold = ledger.owes_events.contains(&coupon.partition) || aside.incomplete || is_cut;
        let is_told = by_load.len() == 1 || by_load.is_empty() && (!by_return.is_empty() || may_be_untold);
        report.expect(Invariant::I5, load.base.is_none() || places.is_empty() || is_told, || {
            format!(
                "{}: load {} became stock, and that was told {} times",
                coupon.id,
                load.load,
                by_load.len()
            )
        });
    }
    for at in &aside.restocked {
        let (partition, offset, _) = at;
        let is_in_the_log = log.spans.get(partition).is_none_or(|span| *offset >= span.from);
        let is_known = explained.contains(at)
            || returns.contains(at)
            || *offset >= ledger.next_of(*partition)
            || !is_in_the_log;
        report.expect(Invariant::I5, is_known, || {
            format!("{partition}@{offset}: a coupon was said to have codes again, and none came back")
        });
    }
}
