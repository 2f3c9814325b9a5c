//! I2, I3, I4, I8 as clients see them: every response that a client received is compared with Postgres.

use std::time::Duration;

use coupon_core::ids::RequestId;

use crate::collections::{Map, Set};
use crate::history::{ApiResponse, ClientRequest, ReceivedResponse};
use crate::kafka::{Log, RecordKind};
use crate::postgres::{Ledger, RETURNED};
use crate::report::{Invariant, Report};

/// Compares a history with Postgres and the log, and returns the number of codes that two requests received.
///
/// What was received until `durable_until` was received before Postgres was read, so Postgres and the log must contain
/// it: the API returns an outcome when it is durable, and accepts a request when it is in the log. What was received
/// later must not contradict an existing row, but may have none.
pub(crate) fn check_history(
    requests: &[ClientRequest],
    durable_until: Duration,
    ledger: &Ledger,
    log: &Log,
    settled: bool,
    report: &mut Report,
) -> u64 {
    let mut check = HistoryCheck {
        ledger,
        durable_until,
        settled,
        logged: if log.ranges.values().all(|range| range.start == 0) { Some(logged_ids(log)) } else { None },
        owners: Map::default(),
        first_received: Map::default(),
    };
    for request in requests {
        check_request(request, report);
        check.check_accepted(request, report);
        for received in request.responses.iter().filter(|received| received.response.is_final()) {
            check.check_outcome(&request.user, received, report);
        }
    }
    let twice = check.owners.iter().filter(|(_, owner)| owner.is_second);
    for (code, _) in twice.clone() {
        report.violated(Invariant::I2, || format!("code {code} was received by two requests"));
    }
    twice.count() as u64
}

/// The request ids of all records.
fn logged_ids(log: &Log) -> Set<RequestId> {
    let ids = log.iter().filter_map(|(_, record)| match record.kind {
        RecordKind::Request(id) | RecordKind::Unreadable(Some(id)) => Some(id),
        _ => None,
    });
    ids.collect()
}

struct HistoryCheck<'a> {
    ledger: &'a Ledger,
    durable_until: Duration,
    settled: bool,
    /// `None`: retention has deleted records.
    logged: Option<Set<RequestId>>,
    /// By code.
    owners: Map<&'a str, Owner>,
    /// The digest of the first outcome that was received, by request.
    first_received: Map<RequestId, u64>,
}

/// The requests that received a code.
#[derive(Default)]
struct Owner {
    /// The request that still has the code.
    current: Option<RequestId>,
    /// Whether another request has it as well.
    is_second: bool,
}

impl<'a> HistoryCheck<'a> {
    /// I3: an accepted request is in the log, and has an outcome once the stack is settled.
    fn check_accepted(&self, request: &ClientRequest, report: &mut Report) {
        let mut durable = request.responses.iter().filter(|received| received.after <= self.durable_until);
        let Some(id) = durable.find_map(|received| received.id) else { return };
        let is_decided = self.ledger.row(id).is_some();
        report.expect(Invariant::I3, is_decided || !self.settled, || {
            format!("request {id} of {} was accepted but has no outcome", request.user)
        });
        let is_lost = !is_decided && self.logged.as_ref().is_some_and(|logged| !logged.contains(&id));
        report.expect(Invariant::I3, !is_lost, || {
            format!("request {id} of {} was accepted but is not in the log", request.user)
        });
        let is_resolved = is_decided && request.outcome().is_some();
        report.unresolved += u64::from(!is_resolved && self.settled || is_lost);
    }

    /// I4: a final outcome equals its row. I8: it equals the first one that was received for the request.
    fn check_outcome(&mut self, user: &str, received: &'a ReceivedResponse, report: &mut Report) {
        let ReceivedResponse { response, user_digest, .. } = received;
        let Some(id) = received.id else { return };
        let row = self.ledger.row(id);
        let is_durable = received.after <= self.durable_until;
        let equals_row = row.map_or(!is_durable, |row| row.user_digest == *user_digest);
        report.expect(Invariant::I4, equals_row, || {
            let row = if row.is_some() { "its row differs" } else { "it has no row" };
            format!("{user} received {response:?} for request {id}; {row}")
        });
        let first = *self.first_received.entry(id).or_insert(*user_digest);
        report.expect(Invariant::I8, first == *user_digest, || {
            format!("{user} received {response:?} for request {id}; an earlier response was different")
        });
        if let ApiResponse::Accepted { code } = response
            && is_durable
            && received.is_claim
        {
            // A code that has returned to stock may go to another request.
            let is_over = row.is_some_and(|row| row.state == RETURNED && row.user_digest == *user_digest);
            let owner = self.owners.entry(code).or_default();
            if !is_over {
                owner.is_second |= *owner.current.get_or_insert(id) != id;
            }
        }
    }
}

/// I4: every response is one that the API defines. I8: all responses to one Idempotency-Key have one request id.
fn check_request(request: &ClientRequest, report: &mut Report) {
    for received in &request.responses {
        if let ApiResponse::Invalid { status, body } = &received.response {
            report.violated(Invariant::I4, || {
                format!("{} received {status} with an invalid body: {body}", request.user)
            });
        }
    }
    if request.key.is_none() {
        return;
    }
    let mut ids = request.responses.iter().filter_map(|received| received.id);
    let first = ids.next();
    report.expect(Invariant::I8, ids.all(|id| Some(id) == first), || {
        let ClientRequest { user, coupon, .. } = request;
        format!("{user} sent one key to {coupon}, and received several request ids")
    });
}
