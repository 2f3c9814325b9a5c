//! The figures of a sale. A response to a user counts only where Postgres has exactly the same outcome.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use coupon_core::ids::RequestId;
use schemas::kinds;
use serde::Serialize;

use super::ownership::OwnershipHistory;
use super::snapshot::{ClaimState, Snapshot, StoredOutcome};
use crate::users::Records;
use crate::users::request_flow::{Step, StepResult};
use crate::users::user::UserRecord;

/// What `--json` prints; the keys are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Users who claimed.
    pub attempts: u64,
    /// Users who have a code at the end, by the response to them and by Postgres.
    pub won: u64,
    /// Users whose last claim found no code left.
    pub sold_out: u64,
    /// Of the winners, users with a redemption that is the same in Postgres, to the cent.
    pub redeemed: u64,
    /// Claims whose hold ended before they were redeemed.
    pub lapsed: u64,
    /// Codes that lapsed and went to another user.
    pub handed_on: u64,
    /// Users without an outcome, or with one that Postgres does not have.
    pub unresolved: u64,
    /// Codes that two claims held at the same time, or that were redeemed twice.
    pub given_twice: u64,
    /// From a user's first attempt to the result of the first claim: median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The same for redemptions: median.
    pub redeem_p50_ms: f64,
    /// 99th percentile.
    pub redeem_p99_ms: f64,
    /// From the first claim until every user had the result of the first claim.
    pub rush_seconds: f64,
    /// From the first claim to the last result.
    pub seconds: f64,
    /// How many users had the result of their first claim when `--kill` struck.
    pub killed_at: Option<u64>,
}

/// What the table shows besides the figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Users whose last claim was rejected for another reason than `sold_out`, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Winners without a redemption, by the last rejection.
    pub not_redeemed: BTreeMap<String, u64>,
    /// Of the sold-out responses, those of the sold-out gate.
    pub gate: u64,
    /// Users who let a code lapse on purpose.
    pub let_lapse: u64,
    /// Users who waited for a code that returns to stock.
    pub waited: u64,
    /// Of these, winners.
    pub waited_and_won: u64,
    /// Attempts that were repeated.
    pub retries: u64,
    /// Users with a request that was not accepted by the deadline.
    pub never_accepted: u64,
    /// Users with a response that Postgres contradicts; counted as unresolved.
    pub contradicted: u64,
}

/// What a user counts as.
enum Category {
    Won,
    SoldOut,
    Rejected(String),
    Unresolved,
}

/// Counts.
#[must_use]
pub fn count(records: &Records, snapshot: &Snapshot) -> (Figures, Details) {
    let claims = snapshot.claims.iter().map(|claim| (claim.request, claim.state)).collect();
    let (mut won, mut sold_out, mut redeemed, mut unresolved) = (0, 0, 0, 0);
    let mut details = Details::default();
    for user in &records.users {
        details.retries += user.steps.iter().map(|step| step.retries).sum::<u64>();
        details.let_lapse += u64::from(user.let_lapse);
        details.waited += u64::from(user.waited);
        match categorise(user, snapshot, &claims, &mut details) {
            Category::Won => {
                won += 1;
                redeemed += u64::from(user.has_redeemed());
                details.waited_and_won += u64::from(user.waited);
                if !user.has_redeemed() {
                    *details.not_redeemed.entry(last_rejection(user)).or_default() += 1;
                }
            }
            Category::SoldOut => sold_out += 1,
            Category::Unresolved => unresolved += 1,
            Category::Rejected(reason) => *details.rejected.entry(reason).or_default() += 1,
        }
    }
    let all_steps = || records.users.iter().flat_map(|user| &user.steps);
    let claim_times = sorted_times(records.users.iter().filter_map(|user| user.steps.first()));
    let redeem_times = sorted_times(all_steps().filter(|step| step.kind == kinds::REDEEM));
    let ownership = OwnershipHistory::new(&records.users, snapshot);
    let lapsed = snapshot.claims.iter().filter(|claim| matches!(claim.state, ClaimState::Lapsed(_)));
    let seconds = |time: Duration| millis(time).round() / 1000.0;
    let figures = Figures {
        attempts: records.users.len() as u64,
        won,
        sold_out,
        redeemed,
        lapsed: lapsed.count() as u64,
        handed_on: ownership.handed_on(),
        unresolved,
        given_twice: ownership.given_twice(),
        p50_ms: millis(quantile(&claim_times, 50)),
        p95_ms: millis(quantile(&claim_times, 95)),
        p99_ms: millis(quantile(&claim_times, 99)),
        redeem_p50_ms: millis(quantile(&redeem_times, 50)),
        redeem_p99_ms: millis(quantile(&redeem_times, 99)),
        rush_seconds: seconds(records.rush),
        seconds: seconds(records.total),
        killed_at: records.killed_at,
    };
    (figures, details)
}

/// By the last claim, if every request of the user has an outcome that Postgres confirms.
fn categorise(
    user: &UserRecord,
    snapshot: &Snapshot,
    claims: &HashMap<RequestId, ClaimState>,
    details: &mut Details,
) -> Category {
    let unresolved = user.steps.iter().find_map(|step| match step.result {
        StepResult::Unresolved { accepted } => Some(accepted),
        _ => None,
    });
    if let Some(accepted) = unresolved {
        details.never_accepted += u64::from(!accepted);
        return Category::Unresolved;
    }
    if !user.steps.iter().all(|step| is_confirmed(step, &user.user, snapshot)) {
        details.contradicted += 1;
        return Category::Unresolved;
    }
    match user.last_claim() {
        Some(StepResult::Accepted { request, .. }) => match claims.get(request) {
            Some(ClaimState::Held | ClaimState::Redeemed) => Category::Won,
            Some(ClaimState::Lapsed(_) | ClaimState::Ended) | None => Category::Rejected("lapsed".to_owned()),
        },
        Some(result) if result.is_sold_out() => {
            details.gate += u64::from(*result == StepResult::SoldOutGate);
            Category::SoldOut
        }
        Some(_) | None => Category::Rejected(last_rejection(user)),
    }
}

/// Whether Postgres has the same outcome, to the cent. Responses without a decided request need no confirmation.
fn is_confirmed(step: &Step, user: &str, snapshot: &Snapshot) -> bool {
    match &step.result {
        StepResult::Accepted { request, code, payment } => {
            let stored = StoredOutcome::Accepted { code: code.clone(), payment: payment.clone() };
            snapshot.confirms(*request, user, step.kind, &stored)
        }
        StepResult::Rejected { request, reason } => {
            snapshot.confirms(*request, user, step.kind, &StoredOutcome::Rejected(reason.clone()))
        }
        StepResult::SoldOutGate | StepResult::HttpError { .. } | StepResult::Unresolved { .. } => true,
    }
}

fn last_rejection(user: &UserRecord) -> String {
    match user.steps.last().map(|step| &step.result) {
        Some(StepResult::Rejected { reason, .. }) => reason.clone(),
        Some(StepResult::HttpError { status }) => format!("HTTP {status}"),
        _ => "none".to_owned(),
    }
}

/// The times of all steps that have a result.
fn sorted_times<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Duration> {
    let resolved = steps.filter(|step| !matches!(step.result, StepResult::Unresolved { .. }));
    let mut times: Vec<Duration> = resolved.map(|step| step.took).collect();
    times.sort_unstable();
    times
}

/// Nearest rank: the smallest value that `percent` of the values do not exceed; zero if there are no values.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Milliseconds with three decimal places.
fn millis(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a sale are far below 2^52")]
    let micros = duration.as_micros() as f64;
    micros / 1000.0
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
