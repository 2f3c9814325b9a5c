//! The invariants. Each file checks one group of them, and adds its result to the report:
//!
//! | file | invariants |
//! |---|---|
//! | `stock.rs` | I1, I2, I6: counters, codes and limits by the rows; I1, I11: deadlines |
//! | `outcomes.rs` | I3, I8: one outcome for each request |
//! | `offsets.rs` | I7, I10: every record has a result; positions |
//! | `requests.rs` | I7: what was granted is what was requested |
//! | `events.rs` | I4, I5: responses and events equal the rows |
//! | `clients.rs` | I2, I3, I4, I8: what clients received equals the rows |
//! | `lapses.rs` | I5, I11: lapses, by rows and by events |
//! | `transitions/` | I1, I2, I11: every step of every code |
//! | `rejections.rs` | I11: `hold_lapsed` and `lock_lapsed` are never returned early |
//! | `timeline.rs` | I6, I9: stock and limits at every offset |
//! | `prices.rs` | I6: discounts and prices |
//! | `memory.rs` | I12: gauges of the programs |

pub(crate) mod clients;
pub(crate) mod events;
mod lapses;
pub(crate) mod memory;
pub(crate) mod offsets;
mod outcomes;
mod prices;
mod rejections;
mod requests;
mod stock;
mod timeline;
mod transitions;

use crate::kafka::{EventsAndDeadLetters, Log};
use crate::postgres::{Ledger, REDEEMED};
use crate::report::{Invariant, Report};

/// Everything that needs no further reading: the rows, the log, and the events.
pub(crate) fn check_all(
    ledger: &Ledger,
    log: &Log,
    events: &EventsAndDeadLetters,
    settled: bool,
    report: &mut Report,
) {
    count(ledger, log, events, report);
    stock::check_counters(ledger, report);
    report.given_twice = stock::check_codes(ledger, report);
    stock::check_limits(ledger, report);
    outcomes::check_decided(ledger, log, events, settled, report);
    outcomes::check_unique(ledger, report);
    stock::check_deadlines(ledger, settled, report);
    let lapses = lapses::check_lapses(ledger, log, events, report);
    if events.incomplete {
        report.note("retention has deleted events: transitions of codes are not checked".to_owned());
    } else {
        transitions::check_transitions(ledger, log, &lapses, report);
        rejections::check_lapsed(ledger, log, &lapses, report);
        timeline::check_timeline(ledger, log, events, &lapses, report);
    }
    prices::check_prices(ledger, report);
    requests::check_granted(ledger, log, report);
    offsets::check_offsets(ledger, log, events, settled, report);
    events::check_events(ledger, log, events, report);
    check_outbox(ledger, settled, report);
    note_gaps(log, events, report);
}

fn count(ledger: &Ledger, log: &Log, events: &EventsAndDeadLetters, report: &mut Report) {
    let claims = ledger.rows.iter().filter(|row| row.is_claim());
    report.claims = claims.clone().count() as u64;
    report.redeemed = claims.filter(|row| row.state == REDEEMED).count() as u64;
    report.outcomes = ledger.rows.len() as u64 - report.claims;
    report.requests = log.count as u64;
    report.dead_letters = events.dead_letter_count;
}

fn check_outbox(ledger: &Ledger, settled: bool, report: &mut Report) {
    let entries = ledger.outbox_entries;
    if entries > 0 && settled {
        report.violated(Invariant::I5, || format!("{entries} outbox entries are not acknowledged"));
    } else if entries > 0 {
        report.note(format!("{entries} outbox entries are not acknowledged yet"));
    }
}

/// What the topics cannot show.
fn note_gaps(log: &Log, events: &EventsAndDeadLetters, report: &mut Report) {
    if events.without_origin > 0 {
        report.note(format!("{} dead letters have no origin in their headers", events.without_origin));
    }
    if let Some((partition, range)) = log.ranges.iter().find(|(_, range)| range.start > 0) {
        report.note(format!(
            "partition {partition} of the log begins at offset {}: earlier records are not checked",
            range.start
        ));
    }
}
