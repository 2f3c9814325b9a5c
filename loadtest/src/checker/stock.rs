//! I1, I2, I6: what the rows of a coupon say of its stock, of its codes, and of its users.

use super::ledger::{Coupon, Ledger, Load, Map, Stock, counts};
use super::report::{Invariant, Report};

/// States of live claims, in the order of the counters of [`Stock`].
const LIVE: [(i16, &str); 4] = [(1, "claimed"), (2, "locked"), (3, "redeemed"), (5, "revoked")];

/// I1: what the counters of every coupon are, counted from its rows.
pub(super) fn counters(ledger: &Ledger, report: &mut Report) {
    let live = counts(ledger.rows.iter().filter(|row| row.is_live()).map(|row| (row.coupon, row.state)));
    let ahead = counts(ledger.ahead.iter().map(|(coupon, _)| *coupon));
    let returned = counts(ledger.returned.iter().map(|(coupon, _)| *coupon));
    let mut loads: Map<i64, Vec<Load>> = Map::default();
    for load in &ledger.loads {
        loads.entry(load.coupon).or_default().push(*load);
    }
    for (no, coupon) in &ledger.coupons {
        let Some(stock) = coupon.stock else {
            report.broken(Invariant::I1, || format!("{}: no stock row", coupon.id));
            continue;
        };
        let rows = |state| live.get(&(*no, state)).copied().unwrap_or(0);
        for ((state, name), counter) in LIVE.into_iter().zip(stock.live) {
            report.expect(Invariant::I1, rows(state) == counter, || {
                format!("{}: {name} is {counter}, and {} rows are {name}", coupon.id, rows(state))
            });
        }
        let counted = |map: &Map<i64, i64>| map.get(no).copied().unwrap_or(0);
        for (name, rows, counter) in
            [("ahead", counted(&ahead), stock.ahead), ("returned", counted(&returned), stock.returned)]
        {
            report.expect(Invariant::I1, rows == counter, || {
                format!("{}: {name} is {counter}, and {rows} numbers are {name}", coupon.id)
            });
        }
        sums(coupon, &stock, report);
        tiles(ledger, coupon, &stock, loads.get(no).map_or(&[], Vec::as_slice), report);
    }
}

fn sums(coupon: &Coupon, stock: &Stock, report: &mut Report) {
    let available = stock.top - stock.cursor - stock.ahead + stock.returned;
    let sum = available + stock.live.iter().sum::<i64>();
    report.expect(Invariant::I1, sum == stock.top && available >= 0, || {
        format!(
            "{}: available {available} and the live claims make {sum}, generated are {}",
            coupon.id, stock.top
        )
    });
}

/// The applied loads of a coupon lie one after another from 0 to its top, and each is as long as its codes.
fn tiles(ledger: &Ledger, coupon: &Coupon, stock: &Stock, loads: &[Load], report: &mut Report) {
    let mut top = 0;
    for load in loads {
        if let Some(base) = load.base {
            report.expect(Invariant::I1, base == top, || {
                format!(
                    "{}: load {} begins above {base}, the one before it ends with {top}",
                    coupon.id, load.load
                )
            });
            top = base + load.count;
        }
        report.expect(Invariant::I1, load.open || ledger.codes.is_complete(load), || {
            format!("{}: load {} has not exactly the codes 1 to {}", coupon.id, load.load, load.count)
        });
    }
    report.expect(Invariant::I1, top == stock.top, || {
        format!("{}: top is {}, and its loads have {top} codes", coupon.id, stock.top)
    });
}

/// I2: no number is in two live claims, or free and in a live claim, or beyond the stock; no code is there twice.
/// Answers how many codes are held twice.
pub(super) fn codes(ledger: &Ledger, report: &mut Report) -> u64 {
    report.checked(Invariant::I2, ledger.codes.count);
    for double in &ledger.codes.doubles {
        report.broken(Invariant::I2, || double.clone());
    }
    let free: Map<(i64, i64), ()> = ledger.returned.iter().map(|place| (*place, ())).collect();
    let ahead: Map<(i64, i64), ()> = ledger.ahead.iter().map(|place| (*place, ())).collect();
    let mut holders: Map<i64, Vec<u32>> = Map::default();
    let mut twice = 0;
    for (index, row) in ledger.rows.iter().enumerate().filter(|(_, row)| row.is_live()) {
        report.checked(Invariant::I2, 1);
        let stock = ledger.coupons.get(&row.coupon).and_then(|coupon| coupon.stock);
        let what = || format!("code {} of {} (request {})", row.number, ledger.name_of(row.coupon), row.id);
        let Some(stock) = stock.filter(|stock| (1..=stock.top).contains(&row.number)) else {
            report.broken(Invariant::I2, || format!("{} is no stock", what()));
            continue;
        };
        let place = (row.coupon, row.number);
        let is_taken = (row.number <= stock.cursor) != ahead.contains_key(&place);
        if !is_taken || free.contains_key(&place) {
            report.broken(Invariant::I2, || format!("{} is held, and free", what()));
        }
        let holders = holders.entry(row.coupon).or_default();
        let number = usize::try_from(row.number).unwrap_or(0);
        if holders.len() <= number {
            holders.resize(number + 1, 0);
        }
        match holders[number] {
            0 => holders[number] = u32::try_from(index + 1).unwrap_or(u32::MAX),
            other => {
                twice += 1;
                let other = ledger.rows.get(other as usize - 1).map(|other| other.id.to_string());
                report.broken(Invariant::I2, || {
                    format!("{} is held by {} as well", what(), other.unwrap_or_default())
                });
            }
        }
    }
    twice
}

/// I6: no user has more live claims of a coupon than it allows.
pub(super) fn limits(ledger: &Ledger, report: &mut Report) {
    let mut held: Map<u64, i64> = Map::default();
    for row in ledger.rows.iter().filter(|row| row.is_live()) {
        let limit = ledger.coupons.get(&row.coupon).and_then(|coupon| coupon.claims_per_user);
        let Some(limit) = limit else { continue };
        let held = held.entry(row.holder).or_default();
        *held += 1;
        report.expect(Invariant::I6, *held <= limit, || {
            let name = ledger.name_of(row.coupon);
            format!("the user of request {} has {held} live claims of {name}, which allows {limit}", row.id)
        });
    }
}
