//! What must be true at every step, beyond what the comparison with the reference says.

use crate::broker::Broker;
use crate::ledger::Ledger;
use crate::owner::Owner;
use coupon_core::batch::Batch;
use coupon_core::effect::PartitionRow;
use coupon_core::machine::Config;

/// Records that one delivery brings at most.
pub(crate) const DELIVERY: usize = 5;

/// I12: nothing that an owner keeps grows with the backlog or the log.
pub(crate) fn memory_is_bounded(owner: &Owner, config: &Config) -> Result<(), String> {
    let status = owner.machine.status();
    // Three batches hold on to what they need: the one being written, the next, and the one being gathered.
    let held = 3 * config.batch_records;
    let unacknowledged = config.unacknowledged.max(owner.inherited) + 1;
    let bounded = status.backlog <= config.backlog_high + DELIVERY + held
        && status.coupons <= config.coupons_remembered + held
        && status.users <= config.users_remembered + held
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
    if batch.decisions.len() + batch.repetitions.len() > config.batch_records {
        return Err(format!("I12: a batch of {} decisions", batch.decisions.len()));
    }
    Ok(())
}

/// I5, I7: the row only grows, by one write and by one outbox entry at most, and no entry is dropped untold.
pub(crate) fn a_batch_fits_its_row(batch: &Batch, row: &PartitionRow, broker: &Broker) -> Result<(), String> {
    if let Some(untold) = broker.untold.keys().next().filter(|seq| **seq <= batch.watermark) {
        return Err(format!("I5: watermark {}, but entry {untold} is not told", batch.watermark));
    }
    let seq = batch.emits().then_some(row.next_emit_seq);
    if batch.emit_seq != seq {
        return Err(format!("the batch calls its outbox entry {:?}, the ledger {seq:?}", batch.emit_seq));
    }
    if batch.position.suspect_until < row.position.suspect_until {
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
        let rows_fit = row.ahead == coupon.ahead.len() as i64
            && row.returned == coupon.returned.len() as i64
            && row.claimed == coupon.live.len() as i64
            && coupon.ahead.iter().all(|number| (row.cursor + 1..=row.top).contains(number))
            && coupon.returned.iter().all(|number| (1..=row.cursor).contains(number))
            && row.available() >= 0
            && row.available() + row.claimed == row.top;
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
