//! What clients were told, held against Postgres: I3, I4 and I8 as they see them, and codes given twice.

use std::time::Duration;

use super::history::{Entry, Told};
use super::ledger::{Ledger, Map, RETURNED, Set};
use super::log::{Log, Says};
use super::report::{Invariant, Report};
use coupon_core::ids::RequestId;

/// Holds a history against the truth; answers how many codes were told to two requests.
///
/// What was heard up to `before` was heard before Postgres was read, and must be there: an outcome is told when it is
/// durable, a request is accepted when it is in the log. What was heard later must not contradict the rows that are
/// there, and need not have one yet.
pub(super) fn told(
    entries: &[Entry],
    before: Duration,
    ledger: &Ledger,
    log: &Log,
    settled: bool,
    report: &mut Report,
) -> u64 {
    let logged: Set<RequestId> = log
        .iter()
        .filter_map(|(_, record)| match record.says {
            Says::Request(id) | Says::Unreadable(Some(id)) => Some(id),
            _ => None,
        })
        .collect();
    let complete = log.spans.values().all(|span| span.from == 0);
    let mut holders: Map<&str, Holder> = Map::default();
    let mut first_told: Map<RequestId, u64> = Map::default();
    for entry in entries {
        one_request(entry, report);
        let accepted =
            entry.answers.iter().filter(|answer| answer.after <= before).find_map(|answer| answer.id);
        if let Some(id) = accepted {
            let decided = ledger.row(id).is_some();
            report.expect(Invariant::I3, decided || !settled, || {
                format!("request {id} of {} was accepted, and has no outcome", entry.user)
            });
            let is_lost = complete && !decided && !logged.contains(&id);
            report.expect(Invariant::I3, !is_lost, || {
                format!("request {id} of {} was accepted, and is not in the log", entry.user)
            });
            let resolved = decided && entry.outcome().is_some();
            report.unresolved += u64::from(!resolved && settled || is_lost);
        }
        for answer in entry.answers.iter().filter(|answer| answer.told.is_final()) {
            let Some(id) = answer.id else { continue };
            let row = ledger.row(id);
            let must_be_there = answer.after <= before;
            report.expect(Invariant::I4, row.map_or(!must_be_there, |row| row.shown == answer.shown), || {
                let row = if row.is_some() { "its row says otherwise" } else { "it has no row" };
                format!("{} was told of request {id}: {:?}; {row}", entry.user, answer.told)
            });
            report.expect(
                Invariant::I8,
                *first_told.entry(id).or_insert(answer.shown) == answer.shown,
                || {
                    format!(
                        "{} was told of request {id}: {:?}; before it was told otherwise",
                        entry.user, answer.told
                    )
                },
            );
            if must_be_there
                && let Told::Accepted { code } = &answer.told
                && answer.of_claim
            {
                // Whoever had it and has it no more, by a row that says the same, may see it go to somebody else.
                let is_over = row.is_some_and(|row| row.state == RETURNED && row.shown == answer.shown);
                holders.entry(code).or_default().add(id, is_over);
            }
        }
    }
    let twice = holders.iter().filter(|(_, holder)| holder.twice);
    for (code, _) in twice.clone() {
        report.broken(Invariant::I2, || format!("code {code} was told to two requests"));
    }
    twice.count() as u64
}

/// Who was told that a code is theirs.
#[derive(Default)]
struct Holder {
    lasting: Option<RequestId>,
    twice: bool,
}

impl Holder {
    fn add(&mut self, id: RequestId, is_over: bool) {
        if !is_over {
            self.twice |= *self.lasting.get_or_insert(id) != id;
        }
    }
}

/// However often it was sent, a request with a key has one id; and no answer is beyond the interface.
fn one_request(entry: &Entry, report: &mut Report) {
    for answer in &entry.answers {
        if let Told::Garbled { status, body } = &answer.told {
            report.broken(Invariant::I4, || {
                format!("{} got {status} with a body that says nothing: {body}", entry.user)
            });
        }
    }
    if entry.key.is_none() {
        return;
    }
    let mut ids = entry.answers.iter().filter_map(|answer| answer.id);
    let first = ids.next();
    report.expect(Invariant::I8, ids.all(|id| Some(id) == first), || {
        format!("{} sent one key to {}, and got several request ids", entry.user, entry.coupon)
    });
}
