//! I5, I11: what lapsed and what was told of it. A hold that lapsed stands in its claim's row and in exactly one
//! event; a lock that lapsed in an event alone, which the walk through its code's life holds against the lock.

use xxhash_rust::xxh3::xxh3_64;

use super::aside::{Aside, Lapse, ToldLapse};
use super::ledger::{Ledger, Map, Place, RETURNED, Set, holder};
use super::log::Log;
use super::report::{Invariant, Report};

/// A lapse at its place in the order of things.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lapsed {
    pub(super) place: Place,
    pub(super) holder: u64,
    /// It happened before this record was decided; with `by_release` it is what became of that record.
    pub(super) offset: i64,
    pub(super) at: i64,
    pub(super) of_hold: bool,
    /// Whether the hold was over when its lock was released.
    pub(super) by_release: bool,
    /// Whether it may have happened after the snapshot.
    pub(super) may_be_later: bool,
}

/// All lapses, and codes of which it is not known what lapsed.
#[derive(Debug, Default)]
pub(super) struct Lapses {
    pub(super) all: Vec<Lapsed>,
    /// Something is wrong with what was told of them, and reported: what follows from it is not.
    pub(super) unsure: Set<Place>,
}

/// Holds the events against the rows and against the clock.
pub(super) fn lapses(ledger: &Ledger, log: &Log, aside: &Aside, report: &mut Report) -> Lapses {
    for contradiction in &aside.contradictions {
        report.broken(Invariant::I4, || contradiction.clone());
    }
    let mut lapses = Lapses::default();
    let mut numbers: Map<i64, Map<u64, i64>> = Map::default();
    let mut rows = lapsed_rows(ledger, &mut lapses, report);
    let releases = releases(ledger);
    for ToldLapse { lapse, is_durable } in &aside.lapses {
        // A slice of lapses moves no offset: at the first record that is not decided, it may be on either side.
        let next = ledger.next_of(lapse.partition);
        let may_be_later = !is_durable && lapse.offset >= next;
        let Some(coupon) = ledger.coupon_nos.get(&lapse.coupon).copied() else {
            if may_be_later {
                continue;
            }
            report.broken(Invariant::I5, || format!("{}: there is no such coupon", name(lapse)));
            continue;
        };
        let numbers = numbers.entry(coupon).or_insert_with(|| ledger.codes.numbers_of(coupon));
        let Some(number) = numbers.get(&xxh3_64(lapse.code.as_bytes())) else {
            if may_be_later {
                continue;
            }
            report.broken(Invariant::I5, || format!("{}: there is no such code", name(lapse)));
            continue;
        };
        let place = (coupon, *number);
        in_time(ledger, log, lapse, report);
        let mut lapsed = Lapsed {
            place,
            holder: holder(&lapse.user, coupon),
            offset: lapse.offset,
            at: lapse.at,
            of_hold: lapse.of_hold,
            by_release: false,
            may_be_later,
        };
        if lapse.of_hold {
            match rows.get_mut(&(place, lapse.at)) {
                Some((_, told @ false)) => {
                    *told = true;
                    report.checked(Invariant::I5, 1);
                }
                Some((_, true)) => {
                    lapses.unsure.insert(place);
                    report.broken(Invariant::I11, || format!("{} for the second time", name(lapse)));
                }
                None if may_be_later => continue,
                None => {
                    lapses.unsure.insert(place);
                    report.broken(Invariant::I5, || format!("{}, and no row says so", name(lapse)));
                }
            }
            let released = |offset| releases.contains(&(place, offset));
            if let Some(offset) = [lapse.offset, lapse.offset - 1].into_iter().find(|o| released(*o)) {
                (lapsed.offset, lapsed.by_release) = (offset, true);
            }
        }
        // What happened to the code before this may be unknown, too.
        if !lapse.of_hold && may_be_later && lapse.offset > next {
            continue;
        }
        lapses.all.push(lapsed);
    }
    for ((place, at), (row, _)) in rows.iter().filter(|(_, (_, told))| !told && !aside.incomplete) {
        lapses.unsure.insert(*place);
        report.broken(Invariant::I5, || {
            let id = ledger.rows.get(*row as usize).map(|row| row.id.to_string()).unwrap_or_default();
            format!(
                "the hold of {} (request {id}) lapsed at {at}, and nobody was told",
                ledger.code_name(*place)
            )
        });
    }
    lapses
}

/// Claims whose holds lapsed, by code and time; and whether it was told.
fn lapsed_rows(ledger: &Ledger, lapses: &mut Lapses, report: &mut Report) -> Map<(Place, i64), (u32, bool)> {
    let mut rows = Map::default();
    for (index, terms) in &ledger.terms {
        let (Some(at), Some(row)) = (terms.lapsed_ms, ledger.rows.get(*index as usize)) else { continue };
        report.expect(Invariant::I11, row.state == RETURNED, || {
            format!("request {}: its hold lapsed at {at}, and it is not back in stock", row.id)
        });
        if rows.insert((row.place(), at), (*index, false)).is_some() {
            lapses.unsure.insert(row.place());
            report.broken(Invariant::I11, || {
                format!("{} lapsed for two claims at {at}", ledger.code_name(row.place()))
            });
        }
    }
    rows
}

/// Where a release found the hold over.
fn releases(ledger: &Ledger) -> Set<(Place, i64)> {
    let returned = ledger.changes.iter().filter(|change| change.state == RETURNED);
    let rows = returned.filter_map(|change| ledger.rows.get(change.row as usize));
    rows.map(|row| (row.place(), row.offset)).collect()
}

/// Nothing lapses before the partition's time has come to it, whatever the clock of a worker says.
fn in_time(ledger: &Ledger, log: &Log, lapse: &Lapse, report: &mut Report) {
    let time = log.time_at(lapse.partition, lapse.offset);
    report.expect(Invariant::I11, time.is_none_or(|time| lapse.at <= time), || {
        format!("{} when the partition's time was {}", name(lapse), time.unwrap_or(0))
    });
    let partition = ledger.coupon_nos.get(&lapse.coupon).and_then(|no| ledger.coupons.get(no));
    report.expect(Invariant::I5, partition.is_none_or(|coupon| coupon.partition == lapse.partition), || {
        format!("{}, which is not its coupon's partition", name(lapse))
    });
}

fn name(lapse: &Lapse) -> String {
    let Lapse { coupon, code, user, partition, offset, at, .. } = lapse;
    let what = if lapse.of_hold { "hold" } else { "lock" };
    format!("{partition}@{offset}: the {what} of code {code} of {coupon} by {user} lapsed at {at}")
}
