//! The figures of a sale: counted from what every user was told, and believed only where Postgres says the same.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use coupon_core::ids::RequestId;
use schemas::kinds;
use serde::Serialize;

use super::crowd::Outcome;
use super::errand::{Answer, Step};
use super::holders::Holders;
use super::truth::{Said, Standing, Truth};
use super::user::Told;

/// What `--json` prints; the keys are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Users who claimed.
    pub attempts: u64,
    /// Users who have a code in the end, and were told so.
    pub won: u64,
    /// Users whose last word was that nothing is left.
    pub sold_out: u64,
    /// Users who were told what their order comes to, to the cent as Postgres has it.
    pub redeemed: u64,
    /// Claims whose hold ended before they were redeemed.
    pub lapsed: u64,
    /// Codes that went on to somebody else.
    pub handed_on: u64,
    /// Users without a final outcome, at the client or in Postgres.
    pub unresolved: u64,
    /// Codes that two had at the same time, or that were redeemed twice.
    pub given_twice: u64,
    /// Half of the users had the answer to their first claim within this.
    pub p50_ms: f64,
    /// 95 % had.
    pub p95_ms: f64,
    /// 99 % had.
    pub p99_ms: f64,
    /// Half of the redemptions were told within this.
    pub redeem_p50_ms: f64,
    /// 99 % were.
    pub redeem_p99_ms: f64,
    /// From the first claim until everybody had an answer to their first claim.
    pub rush_seconds: f64,
    /// From the first claim to the last answer.
    pub seconds: f64,
    /// How many users had their answer when `--kill` struck.
    pub killed_at: Option<u64>,
}

/// What people want to know besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Rejected claims that are not for lack of codes, and answers that no repetition changes, by their word.
    pub others: BTreeMap<String, u64>,
    /// Users who have a code and could not redeem it, by the last word they heard.
    pub not_redeemed: BTreeMap<String, u64>,
    /// Of the sold-out answers, those of the gate.
    pub gate: u64,
    /// Users who let a code lapse on purpose.
    pub let_lapse: u64,
    /// Users who were told sold out and waited for a code to come back.
    pub waited: u64,
    /// Of these, users who have one.
    pub waited_and_won: u64,
    /// Tries that had to be repeated.
    pub retries: u64,
    /// Users whose patience ended before any acceptance or answer.
    pub never_accepted: u64,
    /// Users who were told what Postgres does not say; counted as unresolved.
    pub contradicted: u64,
}

impl Told {
    /// Whether the user was told a redemption.
    #[must_use]
    pub fn has_redeemed(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.answer, Answer::Accepted { paid: Some(_), .. }))
    }

    fn last_claim(&self) -> Option<&Answer> {
        self.steps.iter().rev().find(|step| step.kind == kinds::CLAIM).map(|step| &step.answer)
    }
}

/// How one user counts: by the last claim.
enum Verdict {
    Won,
    SoldOut,
    Other(String),
    Unresolved,
}

/// Counts.
#[must_use]
pub fn count(outcome: &Outcome, truth: &Truth) -> (Figures, Details) {
    let standings = truth.claims.iter().map(|claim| (claim.request, claim.standing)).collect();
    let (mut won, mut sold_out, mut redeemed, mut unresolved) = (0, 0, 0, 0);
    let mut details = Details::default();
    for told in &outcome.told {
        details.retries += told.steps.iter().map(|step| step.retries).sum::<u64>();
        details.let_lapse += u64::from(told.let_lapse);
        details.waited += u64::from(told.waited);
        match verdict(told, truth, &standings, &mut details) {
            Verdict::Won => {
                won += 1;
                redeemed += u64::from(told.has_redeemed());
                details.waited_and_won += u64::from(told.waited);
                if !told.has_redeemed() {
                    *details.not_redeemed.entry(last_word(told)).or_default() += 1;
                }
            }
            Verdict::SoldOut => sold_out += 1,
            Verdict::Unresolved => unresolved += 1,
            Verdict::Other(word) => *details.others.entry(word).or_default() += 1,
        }
    }
    let claims = times(outcome.told.iter().filter_map(|told| told.steps.first()));
    let redeems =
        times(outcome.told.iter().flat_map(|told| &told.steps).filter(|step| step.kind == kinds::REDEEM));
    let holders = Holders::of(&outcome.told, truth);
    let lapsed = truth.claims.iter().filter(|claim| matches!(claim.standing, Standing::Lapsed(_)));
    let seconds = |time: Duration| millis(time).round() / 1000.0;
    let figures = Figures {
        attempts: outcome.told.len() as u64,
        won,
        sold_out,
        redeemed,
        lapsed: lapsed.count() as u64,
        handed_on: holders.handed_on(),
        unresolved,
        given_twice: holders.given_twice(),
        p50_ms: millis(quantile(&claims, 50)),
        p95_ms: millis(quantile(&claims, 95)),
        p99_ms: millis(quantile(&claims, 99)),
        redeem_p50_ms: millis(quantile(&redeems, 50)),
        redeem_p99_ms: millis(quantile(&redeems, 99)),
        rush_seconds: seconds(outcome.rush),
        seconds: seconds(outcome.took),
        killed_at: outcome.killed_at,
    };
    (figures, details)
}

fn verdict(
    told: &Told,
    truth: &Truth,
    standings: &HashMap<RequestId, Standing>,
    details: &mut Details,
) -> Verdict {
    if let Some(Answer::None { accepted }) =
        told.steps.iter().map(|step| &step.answer).find(|answer| matches!(answer, Answer::None { .. }))
    {
        details.never_accepted += u64::from(!accepted);
        return Verdict::Unresolved;
    }
    if !told.steps.iter().all(|step| is_true(step, &told.user, truth)) {
        details.contradicted += 1;
        return Verdict::Unresolved;
    }
    match told.last_claim() {
        Some(Answer::Accepted { request, .. }) => match standings.get(request) {
            Some(Standing::Held | Standing::Redeemed) => Verdict::Won,
            Some(Standing::Lapsed(_) | Standing::Gone) | None => Verdict::Other("lapsed".to_owned()),
        },
        Some(answer) if answer.is_sold_out() => {
            details.gate += u64::from(*answer == Answer::Gate);
            Verdict::SoldOut
        }
        Some(_) | None => Verdict::Other(last_word(told)),
    }
}

/// Whether Postgres says the same, to the cent. The gate's answer and a refused request are nobody's outcome.
fn is_true(step: &Step, user: &str, truth: &Truth) -> bool {
    match &step.answer {
        Answer::Accepted { request, code, paid } => {
            let said = Said::Accepted { code: code.clone(), paid: paid.clone() };
            truth.says(*request, user, step.kind, &said)
        }
        Answer::Rejected { request, reason } => {
            truth.says(*request, user, step.kind, &Said::Rejected(reason.clone()))
        }
        Answer::Gate | Answer::Refused { .. } | Answer::None { .. } => true,
    }
}

fn last_word(told: &Told) -> String {
    match told.steps.last().map(|step| &step.answer) {
        Some(Answer::Rejected { reason, .. }) => reason.clone(),
        Some(Answer::Refused { status }) => format!("HTTP {status}"),
        _ => "nothing".to_owned(),
    }
}

/// Sorted times of those that were answered.
fn times<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Duration> {
    let answered = steps.filter(|step| !matches!(step.answer, Answer::None { .. }));
    let mut times: Vec<Duration> = answered.map(|step| step.took).collect();
    times.sort_unstable();
    times
}

/// Nearest rank: the smallest value that so many per cent do not exceed. Zero of nothing.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Milliseconds with three digits behind the point.
fn millis(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a sale are far below 2^52")]
    let micros = duration.as_micros() as f64;
    micros / 1000.0
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
