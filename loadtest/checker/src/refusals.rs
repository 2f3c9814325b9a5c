//! I11: who was told that a hold or a lock is over had one, and it was over by then. Nobody loses a code early.

use xxhash_rust::xxh3::xxh3_64;

use super::aside::Aside;
use super::lapses::Lapses;
use super::ledger::{Ledger, Map, Place, Row, Said};
use super::log::Log;
use super::report::{Invariant, Report};

/// A code, and who had it.
type Had = (Place, u64);

/// Holds every `hold_lapsed` and `lock_lapsed` against what lapsed.
pub(super) fn in_time(ledger: &Ledger, log: &Log, aside: &Aside, lapses: &Lapses, report: &mut Report) {
    let refused = |said: Said| ledger.rows.iter().filter(move |row| row.said == said);
    let mut named = Named { ledger, log, numbers: Map::default() };
    let holds = holds(ledger);
    for row in refused(Said::HoldLapsed) {
        let Some(place) = named.place_of(row) else { continue };
        let over = holds.get(&(place, row.holder)).copied();
        report.expect(Invariant::I11, over.is_some_and(|over| over <= row.decided_ms), || {
            let (name, at) = (ledger.code_name(place), row.decided_ms);
            format!("request {} was told hold_lapsed of {name} at {at}, and the first hold of its user lapsed at {over:?}", row.id)
        });
    }
    // A lock that lapsed stands in an event alone.
    if aside.incomplete {
        return;
    }
    let locks = locks(lapses);
    for row in refused(Said::LockLapsed) {
        let Some(place) = named.place_of(row).filter(|place| !lapses.unsure.contains(place)) else {
            continue;
        };
        let over = locks.get(&(place, row.holder)).copied();
        report.expect(Invariant::I11, over.is_some_and(|offset| offset <= row.offset), || {
            let name = ledger.code_name(place);
            format!("request {} was told lock_lapsed of {name}, and no lock of its user had lapsed", row.id)
        });
    }
}

/// When the first hold of each lapsed.
fn holds(ledger: &Ledger) -> Map<Had, i64> {
    let mut holds: Map<Had, i64> = Map::default();
    for (index, terms) in &ledger.terms {
        if let (Some(at), Some(row)) = (terms.lapsed_ms, ledger.rows.get(*index as usize)) {
            let first = holds.entry((row.place(), row.holder)).or_insert(at);
            *first = at.min(*first);
        }
    }
    holds
}

/// The first record that was decided after the first lock of each had lapsed.
fn locks(lapses: &Lapses) -> Map<Had, i64> {
    let mut locks: Map<Had, i64> = Map::default();
    for lapse in lapses.all.iter().filter(|lapse| !lapse.of_hold) {
        let first = locks.entry((lapse.place, lapse.holder)).or_insert(lapse.offset);
        *first = lapse.offset.min(*first);
    }
    locks
}

/// Which code a refused request named: its row does not say.
struct Named<'a> {
    ledger: &'a Ledger,
    log: &'a Log,
    numbers: Map<i64, Map<u64, i64>>,
}

impl Named<'_> {
    /// `None`: its record is gone by age, or is another one, which is reported elsewhere.
    fn place_of(&mut self, row: &Row) -> Option<Place> {
        let key = self.log.wishes.get(&(row.partition, row.offset))?.code.as_ref()?;
        let numbers = || self.ledger.codes.numbers_by_key(row.coupon);
        let numbers = self.numbers.entry(row.coupon).or_insert_with(numbers);
        Some((row.coupon, *numbers.get(&xxh3_64(key.as_bytes()))?))
    }
}
