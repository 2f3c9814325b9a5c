//! I6, I9: the stock and the users of every coupon, record by record in the order of the log.
//!
//! No request is rejected as sold out while a code is free, no code is claimed before it is stock, and no limit is exceeded
//! at any offset. The final rows alone do not show this: codes return to stock, and claims end.

use super::lapses::Lapses;
use crate::collections::{Map, Set};
use crate::kafka::{EventsAndDeadLetters, Log, coupon_digest};
use crate::postgres::{Coupon, Ledger, Operation, OutcomeKind, REVOKED, Row, Rules};
use crate::report::{Invariant, Report};

/// When the loads of a coupon became stock: (offset of the record, codes), in order.
#[derive(Debug, Default)]
struct Supply {
    /// Loads whose offset is known.
    certain: Vec<(i64, i64)>,
    /// All loads, each at its earliest possible offset.
    possible: Vec<(i64, i64)>,
}

/// The codes that became stock before an offset.
fn codes_before(loads: &[(i64, i64)], offset: i64) -> i64 {
    loads.iter().take_while(|(from, _)| *from < offset).map(|(_, codes)| codes).sum()
}

/// One entry of the timeline of a coupon.
#[derive(Clone, Copy, Debug)]
struct Entry {
    coupon: i64,
    offset: i64,
    /// Whether it is the outcome of the record at this offset. A lapse happens before that record is decided.
    is_decided: bool,
    action: Action,
    /// The user who has, or had, the code.
    user: u64,
    /// The row of the request; a lapse has none.
    row: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Takes a code from stock.
    Claim,
    /// Returns a code to stock.
    Return,
    /// Removes a free code from stock for ever.
    RevokeFree,
    Redeem,
    RollBack,
    /// Is rejected as `sold_out`.
    SoldOut,
    /// Is rejected as `user_limit_reached`.
    UserLimit,
}

/// Replays the timeline of every coupon.
pub(super) fn check_timeline(
    ledger: &Ledger,
    log: &Log,
    events: &EventsAndDeadLetters,
    lapses: &Lapses,
    report: &mut Report,
) {
    let supplies = supplies(ledger, log, events);
    let entries = entries(ledger, lapses);
    let uncertain: Set<i64> = lapses.uncertain.iter().map(|(coupon, _)| *coupon).collect();
    let no_supply = Supply::default();
    for entries in entries.chunk_by(|one, other| one.coupon == other.coupon) {
        let Some(no) = entries.first().map(|entry| entry.coupon) else { continue };
        let Some(coupon) = ledger.coupons.get(&no).filter(|_| !uncertain.contains(&no)) else { continue };
        check_stock(ledger, coupon, supplies.get(&no).unwrap_or(&no_supply), entries, report);
        check_limits(ledger, coupon, entries, report);
    }
}

/// The entries of all coupons: those of one coupon together, in order.
fn entries(ledger: &Ledger, lapses: &Lapses) -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        ledger.rows.iter().zip(0..).filter_map(|(row, n)| entry_of(row, n)).collect();
    entries.extend(ledger.changes.iter().filter_map(|change| {
        let row = ledger.row_at(change.row)?;
        let action = match change.operation {
            Operation::Return => Action::Return,
            Operation::Revoke if change.state == REVOKED && change.claimed_ms.is_none() => Action::RevokeFree,
            Operation::Rollback => Action::RollBack,
            _ => return None,
        };
        // A redemption counts for the user who made it, no matter which caller rolled it back.
        let user = change.redemption.and_then(|id| ledger.row(id)).unwrap_or(row).user;
        let Row { coupon, offset, .. } = *row;
        Some(Entry { coupon, offset, is_decided: true, action, user, row: Some(change.row) })
    }));
    entries.extend(lapses.all.iter().filter(|lapse| lapse.of_hold).map(|lapse| Entry {
        coupon: lapse.code.0,
        offset: lapse.offset,
        is_decided: lapse.by_release,
        action: Action::Return,
        user: lapse.user,
        row: None,
    }));
    entries.sort_unstable_by_key(|entry| (entry.coupon, entry.offset, entry.is_decided));
    entries
}

fn entry_of(row: &Row, index: u32) -> Option<Entry> {
    let action = match row.kind {
        OutcomeKind::Claimed => Action::Claim,
        OutcomeKind::SoldOut => Action::SoldOut,
        OutcomeKind::Redeemed => Action::Redeem,
        OutcomeKind::UserLimit => Action::UserLimit,
        _ => return None,
    };
    let Row { coupon, offset, user, .. } = *row;
    Some(Entry { coupon, offset, is_decided: true, action, user, row: Some(index) })
}

/// I9.
fn check_stock(ledger: &Ledger, coupon: &Coupon, supply: &Supply, entries: &[Entry], report: &mut Report) {
    if coupon.rules.is_shared() {
        return;
    }
    let name = &coupon.id;
    let mut taken = 0;
    for entry in entries {
        let id = || entry.row.map(|row| ledger.request_name(row)).unwrap_or_default();
        match entry.action {
            Action::Claim => {
                taken += 1;
                let stock = codes_before(&supply.possible, entry.offset);
                let number = entry.row.and_then(|row| ledger.row_at(row)).map_or(0, |row| row.number);
                report.expect(Invariant::I9, number <= stock, || {
                    format!("request {} got code {number} of {name}, which had {stock} codes then", id())
                });
            }
            Action::RevokeFree => taken += 1,
            Action::Return => taken -= 1,
            Action::SoldOut => {
                let stock = codes_before(&supply.certain, entry.offset);
                report.expect(Invariant::I9, taken >= stock, || {
                    format!(
                        "request {} was rejected as sold_out when {taken} of {stock} codes of {name} were claimed",
                        id()
                    )
                });
            }
            Action::Redeem | Action::RollBack | Action::UserLimit => {}
        }
    }
}

/// Claims and redemptions so far.
#[derive(Default)]
struct Usage {
    claims: Map<u64, i64>,
    redemptions: Map<u64, i64>,
    redemptions_total: i64,
}

/// I6 at every offset: no user exceeds a limit, and no user below the limit is rejected as `user_limit_reached`. Without
/// returned codes and without such rejections the claims in the final rows show the same, so they are not counted here.
fn check_limits(ledger: &Ledger, coupon: &Coupon, entries: &[Entry], report: &mut Report) {
    let Rules { claims_per_user, redemptions_per_user, redemptions_total, .. } = coupon.rules;
    let needs_count = |entry: &Entry| matches!(entry.action, Action::Return | Action::UserLimit);
    let counted_limit = claims_per_user.filter(|_| entries.iter().any(needs_count));
    let mut usage = Usage::default();
    for entry in entries {
        let id = || entry.row.map(|row| ledger.request_name(row)).unwrap_or_default();
        let mut within = |limit: Option<i64>, count: i64, what: &str| {
            let Some(limit) = limit else { return };
            report.expect(Invariant::I6, count <= limit, || {
                let name = &coupon.id;
                format!("after request {} there are {count} {what} of {name}, which allows {limit}", id())
            });
        };
        match entry.action {
            Action::Claim if counted_limit.is_some() => {
                let count = usage.claims.entry(entry.user).or_default();
                *count += 1;
                within(counted_limit, *count, "live claims by one user");
            }
            Action::UserLimit => {
                let count = usage.claims.get(&entry.user).copied().unwrap_or(0);
                check_user_limit(coupon, count, id, report);
            }
            Action::Return if counted_limit.is_some() => *usage.claims.entry(entry.user).or_default() -= 1,
            Action::Redeem => {
                let by_user = usage.redemptions.entry(entry.user).or_default();
                *by_user += 1;
                usage.redemptions_total += 1;
                within(redemptions_per_user, *by_user, "redemptions by one user");
                within(redemptions_total, usage.redemptions_total, "redemptions");
            }
            Action::RollBack => {
                *usage.redemptions.entry(entry.user).or_default() -= 1;
                usage.redemptions_total -= 1;
            }
            _ => {}
        }
    }
}

/// I6: a user who is rejected as `user_limit_reached` has as many claims as the coupon allows.
fn check_user_limit(coupon: &Coupon, count: i64, id: impl FnOnce() -> String, report: &mut Report) {
    let limit = coupon.rules.claims_per_user;
    report.expect(Invariant::I6, limit.is_some_and(|limit| count >= limit), || {
        let limit = limit.map_or("any number".to_owned(), |limit| limit.to_string());
        format!(
            "request {} was rejected as user_limit_reached when its user had {count} live claims of {}, which allows {limit}",
            id(),
            coupon.id
        )
    });
}

/// A load became stock at the announcement for which a `restocked` event was published.
fn supplies(ledger: &Ledger, log: &Log, events: &EventsAndDeadLetters) -> Map<i64, Supply> {
    let announcements = log.announcements();
    let mut supplies: Map<i64, Supply> = Map::default();
    for load in ledger.loads.iter().filter(|load| load.base.is_some()) {
        let supply = supplies.entry(load.coupon).or_default();
        let digest = ledger.coupons.get(&load.coupon).map_or(0, |coupon| coupon_digest(&coupon.id));
        let records = announcements.get(&load.id).map_or(&[][..], Vec::as_slice);
        let is_applied =
            |(partition, offset): &&(i32, i64)| events.restocked.contains(&(*partition, *offset, digest));
        let applied = records.iter().find(is_applied);
        if let Some((_, offset)) = applied {
            supply.certain.push((*offset, load.count));
        }
        let earliest = applied.or_else(|| records.first()).map_or(-1, |(_, offset)| *offset);
        supply.possible.push((earliest, load.count));
    }
    for supply in supplies.values_mut() {
        supply.certain.sort_unstable();
        supply.possible.sort_unstable();
    }
    supplies
}
