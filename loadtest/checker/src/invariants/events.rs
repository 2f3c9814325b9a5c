//! I4, I5: what is published is durable and equal to its row, and what is durable is published.

use schemas::topics::RESPONSES;
use schemas::{CouponResponse, Decoder};

use crate::collections::Set;
use crate::kafka::{
    CouponAt, EventsAndDeadLetters, Kafka, Log, OffsetRanges, ResponseEvent, TopicReadError, coupon_digest,
    is_before_end, read_responses,
};
use crate::postgres::{Ledger, Load, Operation, RETURNED};
use crate::report::{Invariant, Report};

/// Compares every response event with its row, and returns their number. The ranges are those of the topic after the
/// snapshot and before it.
pub(crate) fn check_responses(
    ledger: &Ledger,
    kafka: &Kafka,
    [ranges, before]: [&OffsetRanges; 2],
    decoder: &Decoder<CouponResponse>,
    report: &mut Report,
) -> Result<u64, TopicReadError> {
    let mut published = vec![false; ledger.rows.len()];
    let mut count = 0;
    read_responses(kafka, ranges, decoder, |event| {
        count += 1;
        check_response(ledger, before, &event, &mut published, report);
    })?;
    if ranges.values().any(|range| range.start > 0) {
        report.note(format!(
            "retention has deleted records of {RESPONSES}: whether every response was published is not checked"
        ));
        return Ok(count);
    }
    let mut in_outbox = 0;
    for (row, published) in ledger.rows.iter().zip(published) {
        let is_in_outbox = !published && ledger.unpublished_responses.contains(&row.id);
        in_outbox += u64::from(is_in_outbox);
        report.expect(Invariant::I5, published || is_in_outbox, || {
            let (id, partition, offset) = (row.id, row.partition, row.offset);
            format!("request {id} at {partition}@{offset} was decided, but no response was published")
        });
    }
    if in_outbox > 0 {
        report.note(format!("{in_outbox} responses are in the outbox, not published yet"));
    }
    Ok(count)
}

fn check_response(
    ledger: &Ledger,
    before: &OffsetRanges,
    event: &ResponseEvent<'_>,
    published: &mut [bool],
    report: &mut Report,
) {
    let name = || format!("{RESPONSES} {}@{}", event.partition, event.offset);
    let Some(id) = event.id else {
        return report.violated(Invariant::I5, || format!("{} cannot be read: {}", name(), event.text));
    };
    // An id that was decided anew after the deduplication window has several rows.
    let mut rows = ledger.indices_of(id);
    let first = rows.next();
    let is_same = |index: &u32| ledger.row_at(*index).is_some_and(|row| row.digest == event.digest);
    let same = first.filter(is_same).or_else(|| rows.find(is_same)).or(first);
    match same.map(|index| index as usize) {
        Some(index) => {
            published[index] = true;
            report.expect(Invariant::I4, ledger.rows[index].digest == event.digest, || {
                format!("{} differs from the row of request {id}: {}", name(), event.text)
            });
            report.expect(Invariant::I5, event.keyed_by_user, || {
                format!("{} is not keyed by its user", name())
            });
        }
        // A response that was published after the snapshot may have become durable after it.
        None if !is_before_end(before, event.partition, event.offset) => {}
        None => {
            report.violated(Invariant::I5, || format!("{} has no row in Postgres: {}", name(), event.text))
        }
    }
}

/// I5 for events that no request causes: every load that became stock has a `restocked` event, and every coupon that is
/// sold out has a `sold_out` event.
pub(super) fn check_events(ledger: &Ledger, log: &Log, events: &EventsAndDeadLetters, report: &mut Report) {
    for unreadable in &events.unreadable {
        report.violated(Invariant::I5, || unreadable.clone());
    }
    check_restocked(ledger, log, events, report);
    for coupon in
        ledger.coupons.values().filter(|coupon| !may_be_unpublished(ledger, events, coupon.partition))
    {
        let Some(stock) = coupon.stock.filter(|stock| stock.top > 0) else { continue };
        if stock.available() == 0 && !coupon.rules.is_shared() {
            report.expect(Invariant::I5, events.sold_out.contains(&coupon.id), || {
                format!("{} is sold out, but no sold_out event was published", coupon.id)
            });
        }
    }
}

/// Whether an event of a partition may be absent from the topic: it is in the outbox, or was deleted.
fn may_be_unpublished(ledger: &Ledger, events: &EventsAndDeadLetters, partition: i32) -> bool {
    ledger.partitions_with_unpublished_events.contains(&partition) || events.incomplete
}

/// I5 for stock: every load that became stock has exactly one `restocked` event, at one of its announcements. Any other
/// `restocked` event is explained by a code that was returned.
fn check_restocked(ledger: &Ledger, log: &Log, events: &EventsAndDeadLetters, report: &mut Report) {
    let returns: Set<CouponAt> = returns(ledger, events).collect();
    let announcements = log.announcements();
    let mut explained: Set<CouponAt> = Set::default();
    for load in &ledger.loads {
        let Some(coupon) = ledger.coupons.get(&load.coupon) else { continue };
        let digest = coupon_digest(&coupon.id);
        let records = announcements.get(&load.id).map_or(&[][..], Vec::as_slice);
        let records: Vec<CouponAt> =
            records.iter().map(|(partition, offset)| (*partition, *offset, digest)).collect();
        explained.extend(&records);
        let may_be_unpublished =
            may_be_unpublished(ledger, events, coupon.partition) || log.is_truncated(coupon.partition);
        check_load(load, &coupon.id, (&records, &returns), may_be_unpublished, events, report);
    }
    for at in &events.restocked {
        let (partition, offset, _) = at;
        let is_in_the_log = log.ranges.get(partition).is_none_or(|range| *offset >= range.start);
        let is_explained = explained.contains(at)
            || returns.contains(at)
            || *offset >= ledger.next_offset(*partition)
            || !is_in_the_log;
        report.expect(Invariant::I5, is_explained, || {
            format!("{partition}@{offset}: a restocked event was published, but no code came back")
        });
    }
}

fn check_load(
    load: &Load,
    coupon: &str,
    (records, returns): (&[CouponAt], &Set<CouponAt>),
    may_be_unpublished: bool,
    events: &EventsAndDeadLetters,
    report: &mut Report,
) {
    let published = records.iter().filter(|at| events.restocked.contains(at));
    let (by_return, by_load): (Vec<&CouponAt>, Vec<&CouponAt>) =
        published.partition(|at| returns.contains(at));
    let is_published =
        by_load.len() == 1 || by_load.is_empty() && (!by_return.is_empty() || may_be_unpublished);
    report.expect(Invariant::I5, load.base.is_none() || records.is_empty() || is_published, || {
        format!("{coupon}: load {} became stock, but has {} restocked events", load.id, by_load.len())
    });
}

/// The records at which a code was returned to stock.
fn returns<'a>(ledger: &'a Ledger, events: &'a EventsAndDeadLetters) -> impl Iterator<Item = CouponAt> + 'a {
    let by_request = ledger
        .changes
        .iter()
        .filter(|change| change.state == RETURNED || change.operation == Operation::Rollback);
    let by_request = by_request.filter_map(|change| {
        let row = ledger.row_at(change.row)?;
        let coupon = ledger.coupons.get(&row.coupon)?;
        Some((row.partition, row.offset, coupon_digest(&coupon.id)))
    });
    let lapsed = events.lapses.iter().map(|lapse| &lapse.event).filter(|event| event.of_hold);
    by_request.chain(lapsed.map(|event| (event.partition, event.offset, coupon_digest(&event.coupon))))
}
