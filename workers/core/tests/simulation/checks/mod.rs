//! What must be true at every step, beyond what the comparison with the reference says.

use crate::broker::Broker;
use crate::ledger::Ledger;
use crate::log::Log;
use crate::owner::Owner;
use coupon_core::batch::{Batch, Event, EventKind, Verdict};
use coupon_core::interface::PartitionRow;
use coupon_core::machine::Config;
use coupon_core::words::{ClaimState, Kind};

/// Records that one delivery brings at most.
pub(crate) const DELIVERY: usize = 5;
/// Lapses in a batch at most, for each record that it may have: a claim can lapse in two steps.
const LAPSES: usize = 4;
/// Records among which the latest is looked for; the time of those before is the partition's.
const SEEN: usize = 50;

/// I12: nothing that an owner keeps grows with the backlog or the log.
pub(crate) fn memory_is_bounded(owner: &Owner, config: &Config) -> Result<(), String> {
    let status = owner.machine.status();
    // Three batches hold on to what they need: the one being written, the next, and the one being gathered. Each may
    // have a record's user, the user who has its code, and one whose claim lapses.
    let held = 3 * config.batch_records;
    let unacknowledged = config.unacknowledged.max(owner.inherited) + 1;
    let bounded = status.backlog <= config.backlog_high + DELIVERY + held
        && status.coupons <= config.max_cached_coupons + held
        && status.users <= config.max_cached_users + 3 * held
        && status.unacknowledged <= unacknowledged;
    if bounded { Ok(()) } else { Err(format!("I12: {status:?} is beyond {config:?}")) }
}

/// One write at a time, with a watermark that was acknowledged to this owner (I5), and within its bounds (I12).
pub(crate) fn a_write_is_in_order(owner: &Owner, batch: &Batch, config: &Config) -> Result<(), String> {
    if owner.writing {
        return Err(format!("write {} is sent before the answer to another", batch.fence.write_no));
    }
    if batch.watermark > owner.acknowledged {
        let (watermark, known) = (batch.watermark, owner.acknowledged);
        return Err(format!("I5: watermark {watermark}, but only {known} is acknowledged"));
    }
    if batch.decisions.len() + batch.duplicates.len() > config.batch_records {
        return Err(format!("I12: a batch of {} decisions", batch.decisions.len()));
    }
    let (lapses, most) = (lapses(batch).count(), LAPSES * config.batch_records);
    if lapses > most {
        return Err(format!("I12: a batch of {lapses} lapses, {most} at most"));
    }
    Ok(())
}

/// I5, I7: the row only grows, by one write and by one outbox entry at most, and no entry is dropped untold.
pub(crate) fn a_batch_fits_its_row(batch: &Batch, row: &PartitionRow, broker: &Broker) -> Result<(), String> {
    if let Some(untold) = broker.untold.keys().next().filter(|seq| **seq <= batch.watermark) {
        return Err(format!("I5: watermark {}, but entry {untold} is not told", batch.watermark));
    }
    let seq = batch.publishes().then_some(row.next_emit_seq);
    if batch.emit_seq != seq {
        return Err(format!("the batch calls its outbox entry {:?}, the ledger {seq:?}", batch.emit_seq));
    }
    if batch.position.possible_duplicates_until < row.position.possible_duplicates_until {
        return Err("I7: what may be a repetition shrinks".into());
    }
    let offsets = batch.decisions.iter().map(|decision| decision.offset);
    if offsets.is_sorted() { Ok(()) } else { Err("decisions are not in the order of the log".into()) }
}

/// I1, I2, I6 from rows and counters: `available = top − cursor − |ahead| + |returned|`, nothing given twice.
pub(crate) fn stock_adds_up(batch: &Batch, ledger: &Ledger) -> Result<(), String> {
    for change in &batch.stock {
        let coupon = ledger.coupon(change.coupon).ok_or("stock of no coupon")?;
        let row = coupon.stock;
        let rows_fit = row == coupon.counted(&ledger.claims)
            && coupon.ahead.iter().all(|number| (row.cursor + 1..=row.top).contains(number))
            && coupon.returned.iter().all(|number| (1..=row.cursor).contains(number))
            && row.available() >= 0
            && row.available() + row.claimed + row.locked + row.redeemed + row.revoked == row.top;
        if !rows_fit {
            return Err(format!("I1: {coupon:?}"));
        }
        let limit = coupon.definition.claims_per_user.unwrap_or(u32::MAX);
        if let Some((user, count)) = coupon.users.iter().find(|(_, count)| **count > limit) {
            return Err(format!("I6: {user} has {count} claims of {}", coupon.id));
        }
    }
    Ok(())
}

/// An orderly hand-over leaves no write without an answer and nothing untold.
pub(crate) fn a_hand_over_leaves_nothing(owner: &Owner) -> Result<(), String> {
    if owner.writing || owner.machine.status().unacknowledged > 0 {
        return Err(format!("{:?} handed over with {:?}", owner.id, owner.machine.status()));
    }
    Ok(())
}

/// The lapses that a batch tells.
pub(crate) fn lapses(batch: &Batch) -> impl Iterator<Item = &Event> {
    let is_lapse = |kind| matches!(kind, EventKind::HoldLapsed | EventKind::LockLapsed);
    batch.events.iter().filter(move |event| is_lapse(event.kind))
}

/// I11: no claim lapses before its deadline has passed by the time of records, and each lapses once, at its deadline.
pub(crate) fn nothing_lapses_early(batch: &Batch, log: &Log, ledger: &Ledger) -> Result<(), String> {
    let seen = &log.records[..(log.index_of(batch.position.next_offset) + 1).min(log.records.len())];
    let latest = seen.iter().rev().take(SEEN).map(|record| record.appended).max();
    let latest = latest.unwrap_or_default().max(ledger.row.position.time);
    if let Some(early) = lapses(batch).find(|event| event.at > latest) {
        return Err(format!("I11: {early:?}, and the latest record is of {latest}"));
    }
    for change in &batch.claims {
        let terms = &change.claim.status;
        if let Some(lapsed) = terms.lapsed
            && (terms.state != ClaimState::Returned || lapsed > latest)
        {
            return Err(format!("I11: {change:?} has not lapsed by {latest}"));
        }
    }
    Ok(())
}

/// I2, I6: a code is redeemed as often as its coupon allows.
pub(crate) fn redeemed_as_allowed(batch: &Batch, ledger: &Ledger) -> Result<(), String> {
    for decision in &batch.decisions {
        let (Verdict::Changed(changed), Some(no)) = (&decision.verdict, decision.coupon) else { continue };
        let Some(coupon) = ledger.coupon(no).filter(|_| decision.kind == Kind::Redeem) else { continue };
        let definition = &coupon.definition;
        let uses = coupon.paid.get(&changed.number.0).map_or(0, Vec::len);
        let allowed = definition.redemptions_per_code.map_or(usize::MAX, |limit| limit as usize);
        if uses > allowed {
            return Err(format!("I2: {} of {} is redeemed {uses} times", changed.number, coupon.id));
        }
        let per_user = definition.redemptions_per_user.unwrap_or(u32::MAX);
        let of_user = coupon.redeemers.get(&decision.user).copied().unwrap_or(0);
        if of_user > per_user
            || definition.redemptions_total.is_some_and(|total| coupon.stock.redemptions > total)
        {
            return Err(format!("I6: {decision:?} is beyond {definition:?}"));
        }
    }
    Ok(())
}

/// I11: where a coupon requires a lock, nothing is redeemed without a live one: one that was written before this batch,
/// or one that the batch accepts first. The ledger is as it is before the batch is written.
pub(crate) fn locked_where_required(batch: &Batch, ledger: &Ledger) -> Result<(), String> {
    for (index, decision) in batch.decisions.iter().enumerate() {
        let (Verdict::Changed(changed), Some(no)) = (&decision.verdict, decision.coupon) else { continue };
        let Some(coupon) = ledger.coupon(no).filter(|_| decision.kind == Kind::Redeem) else { continue };
        if !coupon.definition.requires_lock || coupon.definition.is_shared() {
            continue;
        }
        let before = coupon.live.get(&changed.number.0).map(|identity| &ledger.claims[identity].claim.status);
        let before =
            before.filter(|terms| terms.state == ClaimState::Locked).and_then(|terms| terms.lock_until);
        let here = batch.decisions[..index].iter().rev().find_map(|earlier| match &earlier.verdict {
            Verdict::Changed(lock) if (earlier.coupon, lock.number) == (Some(no), changed.number) => {
                lock.lock_until
            }
            _ => None,
        });
        if here.or(before) <= Some(decision.decided) {
            return Err(format!("I11: {decision:?} without a live lock"));
        }
    }
    Ok(())
}
