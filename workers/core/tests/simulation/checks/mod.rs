//! What must be true at every step, besides the comparison with the reference: the bounds of an owner (I12), the order of
//! its writes (I5, I7), stock (I1, I2, I6) and deadlines (I11).
//!
//! [`final_state`]: what must be true once a run is quiescent.

pub(crate) mod final_state;

use crate::environment::broker::Broker;
use crate::environment::ledger::Ledger;
use crate::environment::log::Log;
use crate::owner::Owner;
use coupon_core::batch::{Batch, Event, EventKind, Verdict};
use coupon_core::interface::PartitionRow;
use coupon_core::machine::Config;
use coupon_core::words::{ClaimState, Kind};

/// Records in one delivery, at most.
pub(crate) const MAX_DELIVERY: usize = 5;
/// Lapses in a batch, at most, for each record that it may contain. A claim can lapse in two steps.
const MAX_LAPSES_PER_RECORD: usize = 4;
/// Records that are searched for the latest append time. The partition's time covers those before them.
const SEARCHED_RECORDS: usize = 50;

/// I12: the memory of an owner does not grow with the backlog or the log.
pub(crate) fn memory_is_bounded(owner: &Owner, config: &Config) -> Result<(), String> {
    let status = owner.machine.status();
    // Three batches pin what they need: the one being written, the next one, and the one being prefetched. Each record
    // pins up to three users: its own, the holder of its code, and the holder of a claim that lapses.
    let pinned = 3 * config.batch_records;
    let unacknowledged = config.unacknowledged.max(owner.inherited) + 1;
    let bounded = status.backlog <= config.backlog_high + MAX_DELIVERY + pinned
        && status.coupons <= config.max_cached_coupons + pinned
        && status.users <= config.max_cached_users + 3 * pinned
        && status.unacknowledged <= unacknowledged;
    if bounded { Ok(()) } else { Err(format!("I12: {status:?} exceeds {config:?}")) }
}

/// One write at a time, with an acknowledged watermark (I5) and a bounded batch (I12).
pub(crate) fn write_is_in_order(owner: &Owner, batch: &Batch, config: &Config) -> Result<(), String> {
    if owner.writing {
        return Err(format!("write {} is sent before the response to another one", batch.fence.write_no));
    }
    if batch.watermark > owner.acknowledged {
        let (watermark, acknowledged) = (batch.watermark, owner.acknowledged);
        return Err(format!("I5: watermark {watermark}, but only {acknowledged} is acknowledged"));
    }
    if batch.decisions.len() + batch.duplicates.len() > config.batch_records {
        return Err(format!("I12: a batch of {} decisions", batch.decisions.len()));
    }
    let (lapses, max) = (lapses(batch).count(), MAX_LAPSES_PER_RECORD * config.batch_records);
    if lapses > max {
        return Err(format!("I12: a batch of {lapses} lapses, at most {max} are allowed"));
    }
    Ok(())
}

/// I5, I7: the row advances by one write and at most one outbox entry, and no entry is deleted before it is published.
pub(crate) fn batch_extends_row(batch: &Batch, row: &PartitionRow, broker: &Broker) -> Result<(), String> {
    if let Some(entry) = broker.unpublished.keys().next().filter(|seq| **seq <= batch.watermark) {
        return Err(format!("I5: watermark {}, but entry {entry} is not published", batch.watermark));
    }
    let seq = batch.publishes().then_some(row.next_emit_seq);
    if batch.emit_seq != seq {
        return Err(format!(
            "the outbox entry is {:?} in the batch and {seq:?} in the ledger",
            batch.emit_seq
        ));
    }
    if batch.position.possible_duplicates_until < row.position.possible_duplicates_until {
        return Err("I7: the range of possible duplicates shrinks".into());
    }
    let offsets = batch.decisions.iter().map(|decision| decision.offset);
    if offsets.is_sorted() { Ok(()) } else { Err("decisions are not in the order of the log".into()) }
}

/// I1, I2, I6, from rows and counters: `available = top − cursor − |ahead| + |returned|`, and no code is given twice.
pub(crate) fn stock_adds_up(batch: &Batch, ledger: &Ledger) -> Result<(), String> {
    for change in &batch.stock {
        let coupon = ledger.coupon(change.coupon).ok_or("stock of an unknown coupon")?;
        let row = coupon.stock;
        let rows_fit = row == coupon.counted_stock(&ledger.claims)
            && coupon.ahead.iter().all(|number| (row.cursor + 1..=row.top).contains(number))
            && coupon.returned.iter().all(|number| (1..=row.cursor).contains(number))
            && row.available() >= 0
            && row.available() + row.claimed + row.locked + row.redeemed + row.revoked == row.top;
        if !rows_fit {
            return Err(format!("I1: {coupon:?}"));
        }
        let limit = coupon.definition.claims_per_user.unwrap_or(u32::MAX);
        if let Some((user, count)) = coupon.claims_by_user.iter().find(|(_, count)| **count > limit) {
            return Err(format!("I6: {user} has {count} claims of {}", coupon.id));
        }
    }
    Ok(())
}

/// A hand-over leaves no write without a response and no unpublished entry.
pub(crate) fn hand_over_is_complete(owner: &Owner) -> Result<(), String> {
    if owner.writing || owner.machine.status().unacknowledged > 0 {
        return Err(format!("{:?} handed over with {:?}", owner.id, owner.machine.status()));
    }
    Ok(())
}

/// The lapses among the events of a batch.
pub(crate) fn lapses(batch: &Batch) -> impl Iterator<Item = &Event> {
    let is_lapse = |kind| matches!(kind, EventKind::HoldLapsed | EventKind::LockLapsed);
    batch.events.iter().filter(move |event| is_lapse(event.kind))
}

/// I11: no claim lapses before a record has an append time beyond its deadline, and each claim lapses once.
pub(crate) fn nothing_lapses_early(batch: &Batch, log: &Log, ledger: &Ledger) -> Result<(), String> {
    let end = (log.index_of(batch.position.next_offset) + 1).min(log.records.len());
    let searched = log.records[..end].iter().rev().take(SEARCHED_RECORDS);
    let latest = searched.map(|record| record.appended).max().unwrap_or_default();
    let latest = latest.max(ledger.row.position.time);
    if let Some(early) = lapses(batch).find(|event| event.at > latest) {
        return Err(format!("I11: {early:?}, but the latest append time is {latest}"));
    }
    for change in &batch.claims {
        let status = &change.claim.status;
        if let Some(lapsed) = status.lapsed
            && (status.state != ClaimState::Returned || lapsed > latest)
        {
            return Err(format!("I11: {change:?} has not lapsed by {latest}"));
        }
    }
    Ok(())
}

/// I11: only a record whose append time is near Postgres' clock moves the partition's time.
pub(crate) fn time_is_not_far_ahead(
    batch: &Batch,
    log: &Log,
    ledger: &Ledger,
    config: &Config,
) -> Result<(), String> {
    let (before, after) = (ledger.row.position.time, batch.position.time);
    if after > before && after.0 > log.now().0 + config.max_time_ahead {
        return Err(format!("I11: the time moves from {before} to {after}, but it is {}", log.now()));
    }
    Ok(())
}

/// I2, I6: no code, no user and no coupon has more redemptions than allowed.
pub(crate) fn redemption_limits_hold(batch: &Batch, ledger: &Ledger) -> Result<(), String> {
    for decision in &batch.decisions {
        let (Verdict::Changed(changed), Some(no)) = (&decision.verdict, decision.coupon) else { continue };
        let Some(coupon) = ledger.coupon(no).filter(|_| decision.request.kind == Kind::Redeem) else {
            continue;
        };
        let definition = &coupon.definition;
        let of_code = coupon.redemptions_by_code.get(&changed.number.0).map_or(0, Vec::len);
        let per_code = definition.redemptions_per_code.map_or(usize::MAX, |limit| limit as usize);
        if of_code > per_code {
            return Err(format!("I2: {} of {} has {of_code} redemptions", changed.number, coupon.id));
        }
        let per_user = definition.redemptions_per_user.unwrap_or(u32::MAX);
        let of_user = coupon.redemptions_by_user.get(&decision.request.user).copied().unwrap_or(0);
        let total = coupon.stock.redemptions;
        if of_user > per_user || definition.redemptions_total.is_some_and(|limit| total > limit) {
            return Err(format!("I6: {decision:?} exceeds {definition:?}"));
        }
    }
    Ok(())
}

/// I11: where a coupon requires a lock, a redemption has a live one, written before this batch or accepted earlier in it.
/// `ledger` is the ledger before the batch is written.
pub(crate) fn required_locks_are_held(batch: &Batch, ledger: &Ledger) -> Result<(), String> {
    for (index, decision) in batch.decisions.iter().enumerate() {
        let (Verdict::Changed(changed), Some(no)) = (&decision.verdict, decision.coupon) else { continue };
        let Some(coupon) = ledger.coupon(no).filter(|_| decision.request.kind == Kind::Redeem) else {
            continue;
        };
        if !coupon.definition.requires_lock || coupon.definition.is_shared() {
            continue;
        }
        let stored = coupon.live_claims.get(&changed.number.0);
        let stored = stored.map(|identity| &ledger.claims[identity].claim.status);
        let stored = stored.filter(|status| status.state == ClaimState::Locked);
        let earlier = batch.decisions[..index].iter().rev().find_map(|earlier| match &earlier.verdict {
            Verdict::Changed(lock) if (earlier.coupon, lock.number) == (Some(no), changed.number) => {
                lock.lock_until
            }
            _ => None,
        });
        if earlier.or(stored.and_then(|status| status.lock_until)) <= Some(decision.decided) {
            return Err(format!("I11: {decision:?} without a live lock"));
        }
    }
    Ok(())
}
