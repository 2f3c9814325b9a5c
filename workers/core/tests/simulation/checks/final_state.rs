//! What must have come about once everything is at rest: every request has one outcome, and everybody was told.

use crate::ledger::LoadState;
use crate::world::World;
use coupon_core::ids::RequestId;
use coupon_core::record::Payload;

pub(crate) fn everything_promised_has_happened(world: &World) -> Result<(), String> {
    enough_happened(world)?;
    every_request_has_one_outcome_and_was_told(world)?;
    stock_is_whole(world)?;
    if let Some((seq, from)) = world.broker.untold.first_key_value() {
        return Err(format!("I5: entry {seq}, from offset {from}, was never told"));
    }
    Ok(())
}

/// A seed that plays nothing proves nothing.
fn enough_happened(world: &World) -> Result<(), String> {
    if world.log.records.len() < 200 || world.crashes < 3 {
        return Err(format!("only {} records and {} crashes", world.log.records.len(), world.crashes));
    }
    Ok(())
}

fn every_request_has_one_outcome_and_was_told(world: &World) -> Result<(), String> {
    for (record, appended) in world.log.records.iter().zip(&world.appended_at) {
        match &record.payload {
            Payload::Request(request) => was_told(world, request.id, *appended)?,
            Payload::Unreadable { request, .. } => {
                if let Some(answer) = request {
                    was_told(world, answer.id, *appended)?;
                }
                if !world.broker.dead_letters.contains_key(&record.offset) {
                    return Err(format!("I5: the dead letter of {} was never told", record.offset));
                }
            }
            Payload::StockAdded { .. } | Payload::Tick => {}
        }
    }
    Ok(())
}

/// One outcome, the reference's, told at least once after the request was sent: also to those who sent it again.
fn was_told(world: &World, id: RequestId, sent: u64) -> Result<(), String> {
    let (stored, count) = world.ledger.outcome(id);
    if count != 1 || stored != world.reference.outcome(id) {
        return Err(format!("I3/I8: {id} has {count} outcomes, the first {stored:?}"));
    }
    match world.broker.responses.get(&id) {
        Some(told) if *told >= sent => Ok(()),
        told => Err(format!("I5: sent at step {sent} and told at {told:?}: {id}, {stored:?}")),
    }
}

/// I1: numbers are free, or in one live claim, or withdrawn, or used up; every sealed load that was announced is stock, once.
fn stock_is_whole(world: &World) -> Result<(), String> {
    let ledger = &world.ledger;
    if let Some(load) = ledger.loads.iter().find(|load| load.state != LoadState::Applied) {
        return Err(format!("I3: {load:?} was announced and is not stock"));
    }
    for coupon in &ledger.coupons {
        let row = coupon.stock;
        let claims: u32 = coupon.users.values().sum();
        let uses: u32 = coupon.redeemers.values().sum();
        let free = |number: &i64| {
            coupon.returned.contains(number) || *number > row.cursor && !coupon.ahead.contains(number)
        };
        let per_code = coupon.definition.redemptions_per_code.map_or(i64::MAX, i64::from);
        let taken = |number: i64| {
            let mark = coupon.code_flags.get(&number).copied().unwrap_or_default();
            let exhausted = coupon.definition.is_shared() && mark.uses >= per_code;
            coupon.live.contains_key(&number) || mark.revoked || exhausted
        };
        let once = (1..=row.top).all(|number| free(&number) != taken(number));
        let available = (1..=row.top).filter(free).count() as i64;
        let counted = coupon.counted(&ledger.claims) == row
            && claims as usize == coupon.live.len()
            && i64::from(uses) == row.redemptions;
        if !once || available != row.available() || !counted {
            return Err(format!("I1: {coupon:?}"));
        }
    }
    Ok(())
}
