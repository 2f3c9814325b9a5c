//! I5, I11: lapses, by rows and by events. A lapsed hold is in the row of its claim and in exactly one event. A lapsed
//! lock is in an event only; `transitions/` compares it with the lock.

use xxhash_rust::xxh3::xxh3_64;

use crate::collections::{Map, Set};
use crate::kafka::{EventsAndDeadLetters, LapseEvent, Log, PublishedLapse};
use crate::postgres::{CodeId, Ledger, RETURNED, user_key};
use crate::report::{Invariant, Report};

/// A lapse, with its position among the transitions of its code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lapse {
    pub(super) code: CodeId,
    pub(super) user: u64,
    /// The lapse happened before this record was decided; with `by_release`, as a part of its outcome.
    pub(super) offset: i64,
    pub(super) at: i64,
    pub(super) of_hold: bool,
    /// Whether the hold had ended when its lock was released.
    pub(super) by_release: bool,
    /// Whether it may have happened after the snapshot.
    pub(super) may_be_later: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lapses {
    pub(super) all: Vec<Lapse>,
    /// Codes with a contradiction about their lapses, which is reported. What would follow from it is not.
    pub(super) uncertain: Set<CodeId>,
}

/// Compares the events with the rows and with the partition's time.
pub(super) fn check_lapses(
    ledger: &Ledger,
    log: &Log,
    events: &EventsAndDeadLetters,
    report: &mut Report,
) -> Lapses {
    for contradiction in &events.contradictions {
        report.violated(Invariant::I4, || contradiction.clone());
    }
    let mut lapses = Lapses::default();
    let rows = lapsed_rows(ledger, &mut lapses, report);
    let releases = releases(ledger);
    let mut check = EventCheck { ledger, log, rows, releases, numbers: Map::default() };
    for published in &events.lapses {
        let lapse = check.check_event(published, &mut lapses.uncertain, report);
        lapses.all.extend(lapse);
    }
    for ((code, at), row) in check.rows.iter().filter(|(_, row)| !row.is_published && !events.incomplete) {
        lapses.uncertain.insert(*code);
        report.violated(Invariant::I5, || {
            let (name, id) = (ledger.code_name(*code), ledger.request_name(row.index));
            format!("the hold of {name} (request {id}) lapsed at {at}, but no event was published")
        });
    }
    lapses
}

/// A claim whose hold lapsed.
struct LapsedRow {
    index: u32,
    is_published: bool,
}

/// Claims whose holds lapsed, by code and time.
fn lapsed_rows(ledger: &Ledger, lapses: &mut Lapses, report: &mut Report) -> Map<(CodeId, i64), LapsedRow> {
    let mut rows = Map::default();
    for (index, status) in &ledger.claim_status {
        let (Some(at), Some(row)) = (status.lapsed_ms, ledger.row_at(*index)) else { continue };
        report.expect(Invariant::I11, row.state == RETURNED, || {
            format!("request {}: its hold lapsed at {at}, but its code is not back in stock", row.id)
        });
        let lapsed = LapsedRow { index: *index, is_published: false };
        if rows.insert((row.code(), at), lapsed).is_some() {
            lapses.uncertain.insert(row.code());
            report.violated(Invariant::I11, || {
                format!("{} lapsed for two claims at {at}", ledger.code_name(row.code()))
            });
        }
    }
    rows
}

/// Codes and offsets at which a release returned the code to stock, because its hold had ended.
fn releases(ledger: &Ledger) -> Set<(CodeId, i64)> {
    let returned = ledger.changes.iter().filter(|change| change.state == RETURNED);
    let rows = returned.filter_map(|change| ledger.row_at(change.row));
    rows.map(|row| (row.code(), row.offset)).collect()
}

struct EventCheck<'a> {
    ledger: &'a Ledger,
    log: &'a Log,
    rows: Map<(CodeId, i64), LapsedRow>,
    releases: Set<(CodeId, i64)>,
    /// By coupon: the numbers of its codes, by the digests of their texts.
    numbers: Map<i64, Map<u64, i64>>,
}

impl EventCheck<'_> {
    /// Returns the lapse, unless the snapshot does not contain it or nothing is known about it.
    fn check_event(
        &mut self,
        published: &PublishedLapse,
        uncertain: &mut Set<CodeId>,
        report: &mut Report,
    ) -> Option<Lapse> {
        let PublishedLapse { event, is_durable } = published;
        // Lapses do not advance the next offset: a lapse at that offset may be before or after the snapshot.
        let next = self.ledger.next_offset(event.partition);
        let may_be_later = !is_durable && event.offset >= next;
        let code = match self.code_of(event) {
            Ok(code) => code,
            Err(_) if may_be_later => return None,
            Err(missing) => {
                report.violated(Invariant::I5, || format!("{}: {missing}", describe(event)));
                return None;
            }
        };
        self.check_time(event, report);
        let mut lapse = Lapse {
            code,
            user: user_key(&event.user, code.0),
            offset: event.offset,
            at: event.at,
            of_hold: event.of_hold,
            by_release: false,
            may_be_later,
        };
        if event.of_hold {
            match self.take_row(code, event.at) {
                Ok(()) => report.checked(Invariant::I5, 1),
                Err(Invariant::I5) if may_be_later => return None,
                Err(invariant) => {
                    uncertain.insert(code);
                    let problem = if invariant == Invariant::I5 {
                        ", but no row shows it"
                    } else {
                        " for the second time"
                    };
                    report.violated(invariant, || format!("{}{problem}", describe(event)));
                }
            }
            let is_release = |offset: &i64| self.releases.contains(&(code, *offset));
            if let Some(offset) = [event.offset, event.offset - 1].into_iter().find(is_release) {
                (lapse.offset, lapse.by_release) = (offset, true);
            }
        }
        // For a lock beyond the next offset, earlier transitions of its code may be missing as well.
        let is_beyond = !event.of_hold && may_be_later && event.offset > next;
        (!is_beyond).then_some(lapse)
    }

    /// Finds the row of a lapsed hold, once: I5 without such a row, I11 for a second event of the same row.
    fn take_row(&mut self, code: CodeId, at: i64) -> Result<(), Invariant> {
        let row = self.rows.get_mut(&(code, at)).ok_or(Invariant::I5)?;
        if std::mem::replace(&mut row.is_published, true) { Err(Invariant::I11) } else { Ok(()) }
    }

    fn code_of(&mut self, event: &LapseEvent) -> Result<CodeId, &'static str> {
        let coupon = self.ledger.coupon_numbers.get(&event.coupon).copied();
        let coupon = coupon.ok_or("there is no such coupon")?;
        let numbers = self.numbers.entry(coupon).or_insert_with(|| self.ledger.codes.numbers_of(coupon));
        let number = numbers.get(&xxh3_64(event.code.as_bytes())).ok_or("there is no such code")?;
        Ok((coupon, *number))
    }

    /// I11: nothing lapses before the partition's time has reached it, whatever the clock of a worker shows.
    fn check_time(&self, event: &LapseEvent, report: &mut Report) {
        let time = self.log.time_at(event.partition, event.offset);
        report.expect(Invariant::I11, time.is_none_or(|time| event.at <= time), || {
            format!("{} when the partition's time was {}", describe(event), time.unwrap_or(0))
        });
        let coupon = self.ledger.coupon_numbers.get(&event.coupon);
        let coupon = coupon.and_then(|number| self.ledger.coupons.get(number));
        let is_its_partition = coupon.is_none_or(|coupon| coupon.partition == event.partition);
        report.expect(Invariant::I5, is_its_partition, || {
            format!("{}, which is not its coupon's partition", describe(event))
        });
    }
}

fn describe(event: &LapseEvent) -> String {
    let LapseEvent { coupon, code, user, partition, offset, at, .. } = event;
    let what = if event.of_hold { "hold" } else { "lock" };
    format!("{partition}@{offset}: the {what} of code {code} of {coupon} by {user} lapsed at {at}")
}
