//! I6, I9: the stock and the users of every coupon, record by record in the order of the log.
//!
//! Nobody was told sold out while a code was free, no code was given before it was stock, and no limit was exceeded
//! at any time: what a row shows in the end may hide what was possible on the way.

use super::aside::{Aside, digest_of};
use super::lapses::Lapses;
use super::ledger::{Coupon, Did, Ledger, Map, RETURNED, REVOKED, Row, Rules, Said};
use super::log::{Log, Says};
use super::report::{Invariant, Report};

/// What was stock of a coupon from which offset on.
#[derive(Debug, Default)]
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

/// Something that happened to the stock or to the users of a coupon.
#[derive(Clone, Copy, Debug)]
struct Move {
    coupon: i64,
    offset: i64,
    /// What lapses, lapses before the record is decided.
    is_decided: bool,
    what: Does,
    /// Who had, or has, the code.
    holder: u64,
    /// The row that tells of it; none of a lapse.
    row: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Takes a code from the stock.
    Claim,
    /// A code comes back.
    Free,
    /// A free code leaves the stock for good.
    Withdraw,
    Redeem,
    RollBack,
    SoldOut,
    /// Nothing: its user is told that it has enough.
    Refuse,
}

/// Goes through the log of every coupon.
pub(super) fn in_order(ledger: &Ledger, log: &Log, aside: &Aside, lapses: &Lapses, report: &mut Report) {
    let supplies = supplies(ledger, log, aside);
    let mut moves: Vec<Move> = ledger.rows.iter().zip(0..).filter_map(|(row, n)| move_of(row, n)).collect();
    moves.extend(ledger.changes.iter().filter_map(|change| {
        let row = ledger.rows.get(change.row as usize)?;
        let what = match change.did {
            Did::Return => Does::Free,
            Did::Revoke if change.state == REVOKED && change.claimed_ms.is_none() => Does::Withdraw,
            Did::Rollback => Does::RollBack,
            _ => return None,
        };
        // A redemption counts for the one who made it, whoever rolled it back.
        let whose = change.redemption.and_then(|id| ledger.row(id)).unwrap_or(row);
        let (coupon, offset, holder) = (row.coupon, row.offset, whose.holder);
        Some(Move { coupon, offset, is_decided: true, what, holder, row: Some(change.row) })
    }));
    moves.extend(lapses.all.iter().filter(|lapse| lapse.of_hold).map(|lapse| Move {
        coupon: lapse.place.0,
        offset: lapse.offset,
        is_decided: lapse.by_release,
        what: Does::Free,
        holder: lapse.holder,
        row: None,
    }));
    moves.sort_unstable_by_key(|step| (step.coupon, step.offset, step.is_decided));
    let unsure = lapses.unsure.iter().map(|(coupon, _)| *coupon).collect::<super::ledger::Set<i64>>();
    let nothing = Supply::default();
    for of_coupon in moves.chunk_by(|one, other| one.coupon == other.coupon) {
        let Some(no) = of_coupon.first().map(|step| step.coupon) else { continue };
        let Some(coupon) = ledger.coupons.get(&no).filter(|_| !unsure.contains(&no)) else { continue };
        let supply = supplies.get(&no).unwrap_or(&nothing);
        stock_in_order(ledger, coupon, supply, of_coupon, report);
        limits_in_order(ledger, coupon, of_coupon, report);
    }
}

fn move_of(row: &Row, index: u32) -> Option<Move> {
    let what = match row.said {
        Said::Claimed => Does::Claim,
        Said::SoldOut => Does::SoldOut,
        Said::Redeemed => Does::Redeem,
        Said::UserLimit => Does::Refuse,
        _ => return None,
    };
    let Row { coupon, offset, holder, .. } = *row;
    Some(Move { coupon, offset, is_decided: true, what, holder, row: Some(index) })
}

/// I9.
fn stock_in_order(ledger: &Ledger, coupon: &Coupon, supply: &Supply, moves: &[Move], report: &mut Report) {
    if coupon.rules.is_shared() {
        return;
    }
    let mut taken = 0;
    for step in moves {
        let row = step.row.and_then(|row| ledger.rows.get(row as usize));
        let id = || row.map(|row| row.id.to_string()).unwrap_or_default();
        match step.what {
            Does::Claim => {
                taken += 1;
                let (stock, number) =
                    (Supply::before(&supply.at_most, step.offset), row.map_or(0, |r| r.number));
                report.expect(Invariant::I9, number <= stock, || {
                    format!(
                        "request {} got code {number} of {}, whose stock was {stock} then",
                        id(),
                        coupon.id
                    )
                });
            }
            Does::Withdraw => taken += 1,
            Does::Free => taken -= 1,
            Does::SoldOut => {
                let stock = Supply::before(&supply.sure, step.offset);
                report.expect(Invariant::I9, taken >= stock, || {
                    let name = &coupon.id;
                    format!(
                        "request {} was told sold out when {taken} of {stock} codes of {name} were given",
                        id()
                    )
                });
            }
            Does::Redeem | Does::RollBack | Does::Refuse => {}
        }
    }
}

/// I6 at every moment: nobody had more than allowed, and who was told to have enough had as much as allowed. Where
/// nothing ever comes back and nobody was told so, the rows as they are in the end say as much.
fn limits_in_order(ledger: &Ledger, coupon: &Coupon, moves: &[Move], report: &mut Report) {
    let Rules { claims_per_user, redemptions_per_user, redemptions_total, .. } = coupon.rules;
    let is_counted = moves.iter().any(|step| matches!(step.what, Does::Free | Does::Refuse));
    let is_refused_without = claims_per_user.is_none();
    let claims_per_user = claims_per_user.filter(|_| is_counted);
    let mut claims: Map<u64, i64> = Map::default();
    let (mut redemptions, mut in_all): (Map<u64, i64>, i64) = (Map::default(), 0);
    for step in moves {
        let id = || {
            let row = step.row.and_then(|row| ledger.rows.get(row as usize));
            row.map(|row| row.id.to_string()).unwrap_or_default()
        };
        let mut within = |limit: Option<i64>, count: i64, what: &str| {
            let Some(limit) = limit else { return };
            report.expect(Invariant::I6, count <= limit, || {
                format!(
                    "with request {} there were {count} {what} of {}, which allows {limit}",
                    id(),
                    coupon.id
                )
            });
        };
        match step.what {
            Does::Claim if claims_per_user.is_some() => {
                let held = claims.entry(step.holder).or_default();
                *held += 1;
                within(claims_per_user, *held, "live claims by one user");
            }
            Does::Refuse => {
                let held = claims.get(&step.holder).copied().unwrap_or(0);
                let is_right = !is_refused_without && claims_per_user.is_none_or(|limit| held >= limit);
                report.expect(Invariant::I6, is_right, || {
                    let limit = claims_per_user.map_or("any number".to_owned(), |limit| limit.to_string());
                    format!(
                        "request {} was told user_limit_reached when its user had {held} live claims of {}, which allows \
                         {limit}",
                        id(),
                        coupon.id
                    )
                });
            }
            Does::Free if claims_per_user.is_some() => *claims.entry(step.holder).or_default() -= 1,
            Does::Redeem => {
                let by_user = redemptions.entry(step.holder).or_default();
                *by_user += 1;
                in_all += 1;
                within(redemptions_per_user, *by_user, "redemptions by one user");
                within(redemptions_total, in_all, "redemptions");
            }
            Does::RollBack => {
                *redemptions.entry(step.holder).or_default() -= 1;
                in_all -= 1;
            }
            _ => {}
        }
    }
}

/// Where loads were announced, by load.
pub(super) fn announcements(log: &Log) -> Map<i64, Vec<(i32, i64)>> {
    let mut announced: Map<i64, Vec<(i32, i64)>> = Map::default();
    for (partition, record) in log.iter() {
        if let Says::StockAdded(load) = record.says {
            announced.entry(load).or_default().push((partition, record.offset));
        }
    }
    announced
}

/// The record at which a load became stock is the one that a `restocked` event names.
fn supplies(ledger: &Ledger, log: &Log, aside: &Aside) -> Map<i64, Supply> {
    let announced = announcements(log);
    let mut supplies: Map<i64, Supply> = Map::default();
    for load in ledger.loads.iter().filter(|load| load.base.is_some()) {
        let supply = supplies.entry(load.coupon).or_default();
        let coupon = ledger.coupons.get(&load.coupon).map_or(0, |coupon| digest_of(&coupon.id));
        let places = announced.get(&load.load).map_or(&[][..], Vec::as_slice);
        let told =
            |(partition, offset): &&(i32, i64)| aside.restocked.contains(&(*partition, *offset, coupon));
        let applied = places.iter().find(told);
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

/// Records at which a code came back, for `restocked` events that no load explains.
pub(super) fn returns<'a>(
    ledger: &'a Ledger,
    aside: &'a Aside,
) -> impl Iterator<Item = super::aside::At> + 'a {
    let by_request = ledger
        .changes
        .iter()
        .filter(|change| change.state == RETURNED || matches!(change.did, Did::Rollback));
    let by_request = by_request.filter_map(|change| {
        let row = ledger.rows.get(change.row as usize)?;
        let coupon = ledger.coupons.get(&row.coupon)?;
        Some((row.partition, row.offset, digest_of(&coupon.id)))
    });
    let lapsed = aside.lapses.iter().map(|told| &told.lapse).filter(|lapse| lapse.of_hold);
    by_request.chain(lapsed.map(|lapse| (lapse.partition, lapse.offset, digest_of(&lapse.coupon))))
}
