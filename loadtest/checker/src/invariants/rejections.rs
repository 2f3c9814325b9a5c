//! I11: a request is rejected as `hold_lapsed` or `lock_lapsed` only if its user had a hold or a lock on the code, and it
//! had ended by then. No user loses a code early.

use xxhash_rust::xxh3::xxh3_64;

use super::lapses::Lapses;
use crate::collections::Map;
use crate::kafka::Log;
use crate::postgres::{CodeId, Ledger, OutcomeKind, Row};
use crate::report::{Invariant, Report};

/// A code, and the key of a user who held it.
type CodeOfUser = (CodeId, u64);

/// Compares every `hold_lapsed` and `lock_lapsed` with the lapses. Lapsed locks are in events only, so the events must
/// be complete.
pub(super) fn check_lapsed(ledger: &Ledger, log: &Log, lapses: &Lapses, report: &mut Report) {
    let rejected = |kind: OutcomeKind| ledger.rows.iter().filter(move |row| row.kind == kind);
    let mut codes = RequestedCodes { ledger, log, numbers: Map::default() };
    let holds = first_lapsed_holds(ledger);
    for row in rejected(OutcomeKind::HoldLapsed) {
        let Some(code) = codes.code_of(row) else { continue };
        let lapsed = holds.get(&(code, row.user)).copied();
        report.expect(Invariant::I11, lapsed.is_some_and(|lapsed| lapsed <= row.decided_ms), || {
            let (name, at) = (ledger.code_name(code), row.decided_ms);
            format!(
                "request {} was rejected as hold_lapsed for {name} at {at}, but the first hold of its user lapsed at {lapsed:?}",
                row.id
            )
        });
    }
    let locks = first_lapsed_locks(lapses);
    for row in rejected(OutcomeKind::LockLapsed) {
        let Some(code) = codes.code_of(row).filter(|code| !lapses.uncertain.contains(code)) else { continue };
        let lapsed = locks.get(&(code, row.user)).copied();
        report.expect(Invariant::I11, lapsed.is_some_and(|offset| offset <= row.offset), || {
            let name = ledger.code_name(code);
            format!(
                "request {} was rejected as lock_lapsed for {name}, but no lock of its user had lapsed",
                row.id
            )
        });
    }
}

/// The time of the first lapse of a hold.
fn first_lapsed_holds(ledger: &Ledger) -> Map<CodeOfUser, i64> {
    let mut holds: Map<CodeOfUser, i64> = Map::default();
    for (index, status) in &ledger.claim_status {
        if let (Some(at), Some(row)) = (status.lapsed_ms, ledger.row_at(*index)) {
            let first = holds.entry((row.code(), row.user)).or_insert(at);
            *first = at.min(*first);
        }
    }
    holds
}

/// The first record that was decided after the first lapse of a lock.
fn first_lapsed_locks(lapses: &Lapses) -> Map<CodeOfUser, i64> {
    let mut locks: Map<CodeOfUser, i64> = Map::default();
    for lapse in lapses.all.iter().filter(|lapse| !lapse.of_hold) {
        let first = locks.entry((lapse.code, lapse.user)).or_insert(lapse.offset);
        *first = lapse.offset.min(*first);
    }
    locks
}

/// The codes that rejected requests named. The row of a rejection does not contain the code.
struct RequestedCodes<'a> {
    ledger: &'a Ledger,
    log: &'a Log,
    /// By coupon: the numbers of its codes, by the digests of their normalised texts.
    numbers: Map<i64, Map<u64, i64>>,
}

impl RequestedCodes<'_> {
    /// `None`: retention has deleted the record, or it is another record, which `offsets.rs` reports.
    fn code_of(&mut self, row: &Row) -> Option<CodeId> {
        let key = self.log.fields.get(&(row.partition, row.offset))?.code.as_ref()?;
        let numbers = || self.ledger.codes.numbers_by_key(row.coupon);
        let numbers = self.numbers.entry(row.coupon).or_insert_with(numbers);
        Some((row.coupon, *numbers.get(&xxh3_64(key.as_bytes()))?))
    }
}
