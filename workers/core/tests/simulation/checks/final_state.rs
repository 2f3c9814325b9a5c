//! What must be true once a run is quiescent: every request has exactly one published outcome, every announced load is
//! stock, and every code is accounted for.

use crate::environment::Environment;
use crate::environment::ledger::Ledger;
use crate::environment::ledger::tables::{Coupon, Load, LoadState};
use crate::reference::Reference;
use coupon_core::ids::RequestId;
use coupon_core::record::Payload;

const MIN_RECORDS: usize = 200;
const MIN_CRASHES: usize = 3;

pub(crate) fn check(environment: &Environment, reference: &Reference, crashes: usize) -> Result<(), String> {
    enough_happened(environment.log.records.len(), crashes)?;
    every_request_has_one_published_outcome(environment, reference)?;
    every_announced_load_is_stock(&environment.ledger)?;
    environment
        .ledger
        .coupons
        .iter()
        .try_for_each(|coupon| stock_is_complete(coupon, &environment.ledger))?;
    if let Some((seq, from)) = environment.broker.unpublished.first_key_value() {
        return Err(format!("I5: entry {seq}, from offset {from}, was never published"));
    }
    Ok(())
}

/// A run without enough records and crashes proves nothing.
fn enough_happened(records: usize, crashes: usize) -> Result<(), String> {
    if records < MIN_RECORDS || crashes < MIN_CRASHES {
        return Err(format!("only {records} records and {crashes} crashes"));
    }
    Ok(())
}

fn every_request_has_one_published_outcome(
    environment: &Environment,
    reference: &Reference,
) -> Result<(), String> {
    let log = &environment.log;
    for (record, appended_at) in log.records.iter().zip(&log.appended_at) {
        let id = match &record.payload {
            Payload::Request(request) => Some(request.id),
            Payload::Unreadable { request, .. } => {
                if !environment.broker.dead_letters.contains_key(&record.offset) {
                    return Err(format!("I5: the dead letter of {} was never published", record.offset));
                }
                request.as_ref().map(|request| request.id)
            }
            Payload::StockAdded { .. } | Payload::Tick => None,
        };
        if let Some(id) = id {
            has_one_published_outcome(environment, reference, id, *appended_at)?;
        }
    }
    Ok(())
}

/// One outcome, equal to the reference's, published at least once after each copy of the request was appended.
fn has_one_published_outcome(
    environment: &Environment,
    reference: &Reference,
    id: RequestId,
    appended_at: u64,
) -> Result<(), String> {
    let (stored, count) = environment.ledger.outcome(id);
    if count != 1 || stored != reference.outcome(id) {
        return Err(format!("I3/I8: {id} has {count} outcomes, the first is {stored:?}"));
    }
    match environment.broker.responses.get(&id) {
        Some(published) if *published >= appended_at => Ok(()),
        last => {
            Err(format!("I5: appended at step {appended_at}, last published at {last:?}: {id}, {stored:?}"))
        }
    }
}

fn every_announced_load_is_stock(ledger: &Ledger) -> Result<(), String> {
    let with_codes = |load: &&Load| load.count > 0 && load.state != LoadState::Applied;
    match ledger.loads.iter().find(with_codes) {
        Some(load) => Err(format!("I3: {load:?} was announced and is not stock")),
        None => Ok(()),
    }
}

/// I1: each number is either free or taken. It is taken if it is in a live claim, revoked, or used up.
fn stock_is_complete(coupon: &Coupon, ledger: &Ledger) -> Result<(), String> {
    let row = coupon.stock;
    let claims: u32 = coupon.claims_by_user.values().sum();
    let redemptions: u32 = coupon.redemptions_by_user.values().sum();
    let free = |number: &i64| {
        coupon.returned.contains(number) || *number > row.cursor && !coupon.ahead.contains(number)
    };
    let per_code = coupon.definition.redemptions_per_code.map_or(i64::MAX, i64::from);
    let taken = |number: i64| {
        let flags = coupon.flags.get(&number).copied().unwrap_or_default();
        let used_up = coupon.definition.is_shared() && flags.uses >= per_code;
        coupon.live_claims.contains_key(&number) || flags.revoked || used_up
    };
    let complete = (1..=row.top).all(|number| free(&number) != taken(number));
    let available = (1..=row.top).filter(free).count() as i64;
    let counted = coupon.counted_stock(&ledger.claims) == row
        && claims as usize == coupon.live_claims.len()
        && i64::from(redemptions) == row.redemptions;
    if !complete || available != row.available() || !counted {
        return Err(format!("I1: {coupon:?}"));
    }
    Ok(())
}
