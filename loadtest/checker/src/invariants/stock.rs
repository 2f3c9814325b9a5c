//! I1, I2, I6: the stock, the codes and the users of every coupon, by its rows. I1, I11: the deadlines of claims.

use crate::collections::{Map, Set, counts};
use crate::postgres::{CLAIMED, CodeFlags, CodeId, Coupon, LOCKED, Ledger, Load, REDEEMED, Rules, Stock};
use crate::report::{Invariant, Report};

/// The counters of codes that are not in stock, in the order of [`Stock::live`].
const LIVE: [&str; 4] = ["claimed", "locked", "redeemed", "revoked"];

/// I1: the counters of every coupon equal its rows, and add up.
pub(super) fn check_counters(ledger: &Ledger, report: &mut Report) {
    let counted = Counted::of(ledger);
    let mut loads: Map<i64, Vec<Load>> = Map::default();
    for load in &ledger.loads {
        loads.entry(load.coupon).or_default().push(*load);
    }
    for (no, coupon) in &ledger.coupons {
        let Some(stock) = coupon.stock else {
            report.violated(Invariant::I1, || format!("{}: it has no row in stock", coupon.id));
            continue;
        };
        counted.compare(*no, coupon, &stock, report);
        check_sum(coupon, &stock, report);
        check_loads(ledger, coupon, &stock, loads.get(no).map_or(&[], Vec::as_slice), report);
    }
}

/// What the rows of every coupon add up to.
struct Counted {
    /// By coupon and state.
    live: Map<(i64, i16), i64>,
    revoked: Map<i64, i64>,
    exhausted: Map<i64, i64>,
    redemptions: Map<i64, i64>,
    ahead: Map<i64, i64>,
    returned: Map<i64, i64>,
}

impl Counted {
    fn of(ledger: &Ledger) -> Self {
        let live = ledger.rows.iter().filter(|row| row.is_live());
        let revoked = ledger.code_flags.iter().filter(|(_, flags)| flags.revoked);
        let redemptions = ledger.redemptions.iter().filter(|redemption| redemption.rolled_back_ms.is_none());
        let redemptions = redemptions.filter_map(|redemption| ledger.row_at(redemption.row));
        Self {
            live: counts(live.map(|row| (row.coupon, row.state))),
            revoked: counts(revoked.map(|((coupon, _), _)| *coupon)),
            exhausted: counts(exhausted(ledger).map(|(coupon, _)| coupon)),
            redemptions: counts(redemptions.map(|row| row.coupon)),
            ahead: counts(ledger.ahead.iter().map(|(coupon, _)| *coupon)),
            returned: counts(ledger.returned.iter().map(|(coupon, _)| *coupon)),
        }
    }

    fn compare(&self, no: i64, coupon: &Coupon, stock: &Stock, report: &mut Report) {
        let of = |counts: &Map<i64, i64>| counts.get(&no).copied().unwrap_or(0);
        let claims = |state| self.live.get(&(no, state)).copied().unwrap_or(0);
        let redeemed = claims(REDEEMED) + of(&self.exhausted);
        let live = [claims(CLAIMED), claims(LOCKED), redeemed, of(&self.revoked)];
        for ((name, rows), counter) in LIVE.into_iter().zip(live).zip(stock.live) {
            report.expect(Invariant::I1, rows == counter, || {
                format!("{}: {name} is {counter}, but {rows} rows are {name}", coupon.id)
            });
        }
        let (redemptions, counter) = (of(&self.redemptions), stock.redemptions);
        report.expect(Invariant::I1, redemptions == counter, || {
            format!("{}: redemptions is {counter}, but {redemptions} rows are not rolled back", coupon.id)
        });
        for (name, numbers, counter) in
            [("ahead", of(&self.ahead), stock.ahead), ("returned", of(&self.returned), stock.returned)]
        {
            report.expect(Invariant::I1, numbers == counter, || {
                format!("{}: {name} is {counter}, but {numbers} numbers are {name}", coupon.id)
            });
        }
    }
}

fn check_sum(coupon: &Coupon, stock: &Stock, report: &mut Report) {
    let (available, top) = (stock.available(), stock.top);
    let sum = available + stock.live.iter().sum::<i64>();
    report.expect(Invariant::I1, sum == top && available >= 0, || {
        format!(
            "{}: {available} available and the live codes add up to {sum}, not to the {top} generated",
            coupon.id
        )
    });
}

/// The loads of a coupon that became stock cover the numbers from 1 to its top without gaps, and have all their codes.
fn check_loads(ledger: &Ledger, coupon: &Coupon, stock: &Stock, loads: &[Load], report: &mut Report) {
    let mut top = 0;
    for load in loads {
        if let Some(base) = load.base {
            report.expect(Invariant::I1, base == top, || {
                format!(
                    "{}: load {} begins after {base}, but the one before it ends at {top}",
                    coupon.id, load.id
                )
            });
            top = base + load.count;
        }
        report.expect(Invariant::I1, load.open || ledger.codes.is_complete(load), || {
            format!("{}: load {} does not have exactly the codes 1 to {}", coupon.id, load.id, load.count)
        });
    }
    report.expect(Invariant::I1, top == stock.top, || {
        format!("{}: top is {}, but its loads have {top} codes", coupon.id, stock.top)
    });
}

/// Shared codes that were redeemed as often as allowed.
fn exhausted(ledger: &Ledger) -> impl Iterator<Item = CodeId> {
    let limit = |coupon: &i64| {
        let rules: &Rules = &ledger.coupons.get(coupon)?.rules;
        rules.redemptions_per_code.filter(|_| rules.is_shared())
    };
    let is_exhausted = move |((coupon, _), flags): &(&CodeId, &CodeFlags)| {
        !flags.revoked && limit(coupon).is_some_and(|limit| flags.uses >= limit)
    };
    ledger.code_flags.iter().filter(is_exhausted).map(|(code, _)| *code)
}

/// I1: the deadline of a claim is the one of its state, in the partition of its coupon. I11: it has not passed, once the
/// stack is settled.
pub(super) fn check_deadlines(ledger: &Ledger, settled: bool, report: &mut Report) {
    for (index, status) in &ledger.claim_status {
        let Some(row) = ledger.row_at(*index) else { continue };
        let deadline = match row.state {
            CLAIMED => status.hold_until_ms,
            LOCKED => status.lock_until_ms,
            _ => None,
        };
        report.expect(Invariant::I1, status.deadline_ms == deadline, || {
            let found = status.deadline_ms;
            format!("request {}: deadline_ms is {found:?}, but its state gives {deadline:?}", row.id)
        });
        let is_found = deadline.is_none() || status.partition == Some(row.partition);
        report.expect(Invariant::I1, is_found, || {
            let (found, expected) = (status.partition, row.partition);
            format!("request {}: its deadline is in partition {found:?}, not {expected}", row.id)
        });
        let time = ledger.partitions.get(&row.partition).map_or(i64::MIN, |position| position.time_ms);
        report.expect(Invariant::I11, !settled || deadline.is_none_or(|deadline| deadline > time), || {
            let deadline = deadline.unwrap_or(0);
            format!(
                "request {}: its deadline was {deadline}, the time is {time}, but nothing has lapsed",
                row.id
            )
        });
    }
}

/// I2: no code has two live claims, and no code is claimed and in stock. Returns the number of codes with two live
/// claims.
pub(super) fn check_codes(ledger: &Ledger, report: &mut Report) -> u64 {
    report.checked(Invariant::I2, ledger.codes.count);
    for duplicate in &ledger.codes.duplicates {
        report.violated(Invariant::I2, || duplicate.clone());
    }
    let numbers = StockNumbers::of(ledger);
    report.checked(Invariant::I2, ledger.returned.len() + ledger.ahead.len());
    for code in &numbers.misplaced {
        report.violated(Invariant::I2, || {
            let name = ledger.code_name(*code);
            format!("{name} is on the wrong side of the cursor to be ahead of it, or returned")
        });
    }
    let revoked = ledger.code_flags.iter().filter(|(_, flags)| flags.revoked).map(|(code, _)| *code);
    for code in revoked.chain(exhausted(ledger)) {
        report.expect(Invariant::I2, numbers.is_taken(ledger, code) == Some(true), || {
            format!("{} is revoked or used up, but free", ledger.code_name(code))
        });
    }
    check_live_claims(ledger, &numbers, report)
}

fn check_live_claims(ledger: &Ledger, numbers: &StockNumbers, report: &mut Report) -> u64 {
    // By coupon: the index of the claim of each number, plus 1; 0 for none.
    let mut claims: Map<i64, Vec<u32>> = Map::default();
    let mut twice = 0;
    for (row, next) in ledger.rows.iter().zip(1..).filter(|(row, _)| row.is_live()) {
        report.checked(Invariant::I2, 1);
        let name =
            || format!("code {} of {} (request {})", row.number, ledger.coupon_name(row.coupon), row.id);
        match numbers.is_taken(ledger, row.code()) {
            Some(true) => {}
            Some(false) => report.violated(Invariant::I2, || format!("{} is claimed and free", name())),
            None => {
                report.violated(Invariant::I2, || format!("{} is not a number of the stock", name()));
                continue;
            }
        }
        let claims = claims.entry(row.coupon).or_default();
        let number = usize::try_from(row.number).unwrap_or(0);
        if claims.len() <= number {
            claims.resize(number + 1, 0);
        }
        match claims[number] {
            0 => claims[number] = next,
            other => {
                twice += 1;
                report.violated(Invariant::I2, || {
                    format!("{} is claimed by {} as well", name(), ledger.request_name(other - 1))
                });
            }
        }
    }
    twice
}

/// The numbers that deviate from the cursor: taken ahead of it, or returned behind it.
struct StockNumbers {
    ahead: Set<CodeId>,
    returned: Set<CodeId>,
    /// Numbers that can be neither.
    misplaced: Vec<CodeId>,
}

impl StockNumbers {
    fn of(ledger: &Ledger) -> Self {
        let stock = |coupon: &i64| ledger.coupons.get(coupon).and_then(|coupon| coupon.stock);
        let is_ahead = |(coupon, number): &&CodeId| {
            stock(coupon).is_some_and(|stock| stock.cursor < *number && *number <= stock.top)
        };
        let is_behind = |(coupon, number): &&CodeId| {
            stock(coupon).is_some_and(|stock| 1 <= *number && *number <= stock.cursor)
        };
        let ahead = ledger.ahead.iter().filter(|code| !is_ahead(code));
        let returned = ledger.returned.iter().filter(|code| !is_behind(code));
        Self {
            misplaced: ahead.chain(returned).copied().collect(),
            ahead: ledger.ahead.iter().copied().collect(),
            returned: ledger.returned.iter().copied().collect(),
        }
    }

    /// Whether a number cannot be claimed; `None` if it is not in the stock's range.
    fn is_taken(&self, ledger: &Ledger, code: CodeId) -> Option<bool> {
        let stock = ledger.coupons.get(&code.0)?.stock.filter(|stock| (1..=stock.top).contains(&code.1))?;
        let is_taken = (code.1 <= stock.cursor) != self.ahead.contains(&code);
        Some(is_taken && !self.returned.contains(&code))
    }
}

/// I6: no user has more live claims of a coupon than it allows.
pub(super) fn check_limits(ledger: &Ledger, report: &mut Report) {
    let mut claims: Map<u64, i64> = Map::default();
    for row in ledger.rows.iter().filter(|row| row.is_live()) {
        let limit = ledger.coupons.get(&row.coupon).and_then(|coupon| coupon.rules.claims_per_user);
        let Some(limit) = limit else { continue };
        let count = claims.entry(row.user).or_default();
        *count += 1;
        report.expect(Invariant::I6, *count <= limit, || {
            let name = ledger.coupon_name(row.coupon);
            format!("the user of request {} has {count} live claims of {name}, which allows {limit}", row.id)
        });
    }
}
