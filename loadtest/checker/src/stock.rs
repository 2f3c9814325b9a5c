//! I1, I2, I6: what the rows of a coupon say of its stock, of its codes, and of its users.

use super::ledger::{
    CLAIMED, Coupon, LOCKED, Ledger, Load, Map, Mark, Place, REDEEMED, Rules, Set, Stock, counts,
};
use super::report::{Invariant, Report};

/// The counters of codes that are not in stock, in the order of [`Stock`].
const LIVE: [&str; 4] = ["claimed", "locked", "redeemed", "revoked"];

/// I1: what the counters of every coupon are, counted from its rows.
pub(super) fn counters(ledger: &Ledger, report: &mut Report) {
    let live = counts(ledger.rows.iter().filter(|row| row.is_live()).map(|row| (row.coupon, row.state)));
    let withdrawn =
        counts(ledger.marks.iter().filter(|(_, mark)| mark.revoked).map(|((coupon, _), _)| *coupon));
    let exhausted = counts(exhausted(ledger).map(|(coupon, _)| coupon));
    let redemptions = ledger.redemptions.iter().filter(|redemption| redemption.rolled_back_ms.is_none());
    let redemptions = counts(
        redemptions.filter_map(|redemption| ledger.rows.get(redemption.row as usize).map(|row| row.coupon)),
    );
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
        let counted = |map: &Map<i64, i64>| map.get(no).copied().unwrap_or(0);
        let claims = |state| live.get(&(*no, state)).copied().unwrap_or(0);
        let redeemed = claims(REDEEMED) + counted(&exhausted);
        let rows = [claims(CLAIMED), claims(LOCKED), redeemed, counted(&withdrawn)];
        for ((name, rows), counter) in LIVE.into_iter().zip(rows).zip(stock.live) {
            report.expect(Invariant::I1, rows == counter, || {
                format!("{}: {name} is {counter}, and {rows} rows are {name}", coupon.id)
            });
        }
        let made = counted(&redemptions);
        report.expect(Invariant::I1, made == stock.redemptions, || {
            format!(
                "{}: redemptions is {}, and {made} rows are none that was rolled back",
                coupon.id, stock.redemptions
            )
        });
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
    let available = stock.available();
    let sum = available + stock.live.iter().sum::<i64>();
    report.expect(Invariant::I1, sum == stock.top && available >= 0, || {
        format!(
            "{}: available {available} and the live claims make {sum}, generated are {}",
            coupon.id, stock.top
        )
    });
}

/// Codes that are shared, and were used as often as allowed.
fn exhausted(ledger: &Ledger) -> impl Iterator<Item = Place> {
    let most = |coupon: &i64| {
        let rules: &Rules = &ledger.coupons.get(coupon)?.rules;
        rules.redemptions_per_code.filter(|_| rules.is_shared())
    };
    let exhausted = move |((coupon, _), mark): &(&Place, &Mark)| {
        !mark.revoked && most(coupon).is_some_and(|most| mark.uses >= most)
    };
    ledger.marks.iter().filter(exhausted).map(|(place, _)| *place)
}

/// I1: a claim lapses next when its state says, and is found there.
pub(super) fn deadlines(ledger: &Ledger, settled: bool, report: &mut Report) {
    for (index, terms) in &ledger.terms {
        let Some(row) = ledger.rows.get(*index as usize) else { continue };
        let deadline = match row.state {
            CLAIMED => terms.hold_until_ms,
            LOCKED => terms.lock_until_ms,
            _ => None,
        };
        report.expect(Invariant::I1, terms.deadline_ms == deadline, || {
            let found = terms.deadline_ms;
            format!("request {}: its deadline is {found:?}, and its terms say {deadline:?}", row.id)
        });
        let is_found = deadline.is_none() || terms.partition == Some(row.partition);
        report.expect(Invariant::I1, is_found, || {
            format!(
                "request {}: its deadline is in partition {:?}, not {}",
                row.id, terms.partition, row.partition
            )
        });
        let now = ledger.partitions.get(&row.partition).map_or(i64::MIN, |position| position.time_ms);
        report.expect(Invariant::I11, !settled || deadline.is_none_or(|deadline| deadline > now), || {
            let deadline = deadline.unwrap_or(0);
            format!("request {}: its deadline was {deadline}, it is {now}, and nothing has lapsed", row.id)
        });
    }
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
    let taken = Taken::of(ledger);
    report.checked(Invariant::I2, ledger.returned.len() + ledger.ahead.len());
    for place in &taken.misplaced {
        report.broken(Invariant::I2, || {
            format!(
                "{} is on the wrong side of the cursor to be ahead of it, or returned",
                ledger.code_name(*place)
            )
        });
    }
    let withdrawn = ledger.marks.iter().filter(|(_, mark)| mark.revoked).map(|(place, _)| *place);
    for place in withdrawn.chain(exhausted(ledger)) {
        report.expect(Invariant::I2, taken.has(ledger, place) == Some(true), || {
            format!("{} is withdrawn or used up, and free", ledger.code_name(place))
        });
    }
    let mut holders: Map<i64, Vec<u32>> = Map::default();
    let mut twice = 0;
    for (index, row) in ledger.rows.iter().enumerate().filter(|(_, row)| row.is_live()) {
        report.checked(Invariant::I2, 1);
        let what = || format!("code {} of {} (request {})", row.number, ledger.name_of(row.coupon), row.id);
        match taken.has(ledger, row.place()) {
            Some(true) => {}
            Some(false) => report.broken(Invariant::I2, || format!("{} is held, and free", what())),
            None => {
                report.broken(Invariant::I2, || format!("{} is no stock", what()));
                continue;
            }
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

/// Numbers that nobody else can have.
struct Taken {
    ahead: Set<Place>,
    returned: Set<Place>,
    misplaced: Vec<Place>,
}

impl Taken {
    fn of(ledger: &Ledger) -> Self {
        let stock = |coupon: &i64| ledger.coupons.get(coupon).and_then(|coupon| coupon.stock);
        let is_ahead = |(coupon, number): &&Place| {
            stock(coupon).is_some_and(|stock| stock.cursor < *number && *number <= stock.top)
        };
        let is_behind = |(coupon, number): &&Place| {
            stock(coupon).is_some_and(|stock| 1 <= *number && *number <= stock.cursor)
        };
        let ahead = ledger.ahead.iter().filter(|place| !is_ahead(place));
        let returned = ledger.returned.iter().filter(|place| !is_behind(place));
        Self {
            misplaced: ahead.chain(returned).copied().collect(),
            ahead: ledger.ahead.iter().copied().collect(),
            returned: ledger.returned.iter().copied().collect(),
        }
    }

    /// `None`: it is no stock at all.
    fn has(&self, ledger: &Ledger, place: Place) -> Option<bool> {
        let stock = ledger.coupons.get(&place.0)?.stock.filter(|stock| (1..=stock.top).contains(&place.1))?;
        let is_taken = (place.1 <= stock.cursor) != self.ahead.contains(&place);
        Some(is_taken && !self.returned.contains(&place))
    }
}

/// I6: no user has more live claims of a coupon than it allows.
pub(super) fn limits(ledger: &Ledger, report: &mut Report) {
    let mut held: Map<u64, i64> = Map::default();
    for row in ledger.rows.iter().filter(|row| row.is_live()) {
        let limit = ledger.coupons.get(&row.coupon).and_then(|coupon| coupon.rules.claims_per_user);
        let Some(limit) = limit else { continue };
        let held = held.entry(row.holder).or_default();
        *held += 1;
        report.expect(Invariant::I6, *held <= limit, || {
            let name = ledger.name_of(row.coupon);
            format!("the user of request {} has {held} live claims of {name}, which allows {limit}", row.id)
        });
    }
}
