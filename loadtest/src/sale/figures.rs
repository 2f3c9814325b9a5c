//! The figures of a sale: counted from what every user was told, and believed only where Postgres says the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use coupon_core::ids::RequestId;
use serde::Serialize;

use super::crowd::Outcome;
use super::truth::{Held, Truth};
use super::user::{Answer, Told};

/// What `--json` prints; the keys are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Users who claimed.
    pub attempts: u64,
    /// Users who were told a code that is theirs.
    pub won: u64,
    /// Users who were told that nothing is left.
    pub sold_out: u64,
    /// Codes redeemed.
    pub redeemed: u64,
    /// Users without a final outcome, at the client or in Postgres.
    pub unresolved: u64,
    /// Codes given to two users.
    pub given_twice: u64,
    /// Half of the users had their answer within this.
    pub p50_ms: f64,
    /// 95 % had.
    pub p95_ms: f64,
    /// 99 % had.
    pub p99_ms: f64,
    /// From the first claim to the last answer.
    pub seconds: f64,
    /// How many users had their answer when `--kill` struck.
    pub killed_at: Option<u64>,
}

/// What people want to know besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Rejections that are not for lack of codes, and answers that no repetition changes, by their word.
    pub others: BTreeMap<String, u64>,
    /// Of the sold-out answers, those of the gate.
    pub gate: u64,
    /// Tries that had to be repeated.
    pub retries: u64,
    /// Users whose patience ended before any acceptance or answer.
    pub never_accepted: u64,
    /// Users who were told what Postgres does not say; counted as unresolved.
    pub contradicted: u64,
}

/// How one user counts.
enum Verdict {
    Won,
    SoldOut,
    Other(String),
    Unresolved,
}

/// Counts.
#[must_use]
pub fn count(outcome: &Outcome, truth: &Truth) -> (Figures, Details) {
    let (mut won, mut sold_out, mut unresolved) = (0, 0, 0);
    let mut details = Details::default();
    for told in &outcome.told {
        details.retries += told.retries;
        match verdict(told, truth, &mut details) {
            Verdict::Won => won += 1,
            Verdict::SoldOut => sold_out += 1,
            Verdict::Unresolved => unresolved += 1,
            Verdict::Other(word) => *details.others.entry(word).or_default() += 1,
        }
    }
    let mut took: Vec<Duration> = outcome
        .told
        .iter()
        .filter(|told| !matches!(told.answer, Answer::None { .. }))
        .map(|told| told.took)
        .collect();
    took.sort_unstable();
    let figures = Figures {
        attempts: outcome.told.len() as u64,
        won,
        sold_out,
        redeemed: truth.redeemed,
        unresolved,
        given_twice: given_twice(&outcome.told, truth),
        p50_ms: millis(quantile(&took, 50)),
        p95_ms: millis(quantile(&took, 95)),
        p99_ms: millis(quantile(&took, 99)),
        seconds: millis(outcome.took).round() / 1000.0,
        killed_at: outcome.killed_at,
    };
    (figures, details)
}

fn verdict(told: &Told, truth: &Truth, details: &mut Details) -> Verdict {
    let contradicted = |details: &mut Details| {
        details.contradicted += 1;
        Verdict::Unresolved
    };
    match &told.answer {
        Answer::Won { request, code } => {
            let held = Held::Code(code.clone());
            if truth.says(*request, &told.user, &held) { Verdict::Won } else { contradicted(details) }
        }
        Answer::Rejected { request, reason } => {
            let held = Held::Rejected(reason.clone());
            if !truth.says(*request, &told.user, &held) {
                return contradicted(details);
            }
            if told.answer.is_sold_out() { Verdict::SoldOut } else { Verdict::Other(reason.clone()) }
        }
        Answer::Gate => {
            details.gate += 1;
            Verdict::SoldOut
        }
        Answer::Refused { status } => Verdict::Other(format!("HTTP {status}")),
        Answer::None { accepted } => {
            details.never_accepted += u64::from(!accepted);
            Verdict::Unresolved
        }
    }
}

/// Codes that two users hold by Postgres' rows, or that two users were told, or one was told and another holds.
fn given_twice(told: &[Told], truth: &Truth) -> u64 {
    let mut users: HashMap<&str, HashSet<&str>> = HashMap::new();
    let mut requests: HashMap<&str, HashSet<RequestId>> = HashMap::new();
    for (request, user, held) in truth.all() {
        if let Held::Code(code) = held {
            users.entry(code).or_default().insert(user);
            requests.entry(code).or_default().insert(request);
        }
    }
    for told in told {
        if let Answer::Won { request, code } = &told.answer {
            users.entry(code).or_default().insert(&told.user);
            requests.entry(code).or_default().insert(*request);
        }
    }
    let twice = |code: &&str| users[*code].len() > 1 || requests[*code].len() > 1;
    users.keys().filter(|code| twice(code)).count() as u64
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
mod tests {
    use super::*;

    fn id(identity: u128) -> RequestId {
        RequestId { identity, body: 1 }
    }

    fn told(user: &str, answer: Answer) -> Told {
        Told { user: user.to_owned(), answer, took: Duration::from_millis(4), retries: 1 }
    }

    fn won(user: &str, identity: u128, code: &str) -> Told {
        told(user, Answer::Won { request: id(identity), code: code.to_owned() })
    }

    fn rejected(user: &str, identity: u128, reason: &str) -> Told {
        told(user, Answer::Rejected { request: id(identity), reason: reason.to_owned() })
    }

    fn counted(told: Vec<Told>, rows: &[(u128, &str, Held)]) -> (Figures, Details) {
        let mut truth = Truth::default();
        for (identity, user, held) in rows {
            truth.add(id(*identity), user, held.clone());
        }
        let outcome = Outcome { told, took: Duration::from_millis(1500), killed_at: Some(2) };
        count(&outcome, &truth)
    }

    #[test]
    fn every_user_counts_once_and_the_sum_is_the_attempts() {
        let rows = [
            (1, "ann", Held::Code("A".to_owned())),
            (2, "bob", Held::Rejected("sold_out".to_owned())),
            (3, "cid", Held::Rejected("user_limit_reached".to_owned())),
        ];
        let users = vec![
            won("ann", 1, "A"),
            rejected("bob", 2, "sold_out"),
            rejected("cid", 3, "user_limit_reached"),
            told("dan", Answer::Gate),
            told("eve", Answer::None { accepted: true }),
            told("fay", Answer::Refused { status: 401 }),
        ];
        let (figures, details) = counted(users, &rows);
        let Figures { attempts, won, sold_out, unresolved, given_twice, .. } = figures;
        assert_eq!((attempts, won, sold_out, unresolved, given_twice), (6, 1, 2, 1, 0));
        assert_eq!(details.others.values().sum::<u64>(), attempts - won - sold_out - unresolved);
        assert_eq!((details.gate, details.retries, figures.killed_at), (1, 6, Some(2)));
        assert!((figures.p50_ms - 4.0).abs() < 1e-9 && (figures.seconds - 1.5).abs() < 1e-9);
    }

    #[test]
    fn what_a_user_was_told_and_postgres_does_not_say_is_unresolved() {
        let rows = [(2, "bob", Held::Code("B".to_owned()))];
        let users = vec![won("ann", 1, "A"), won("bob", 2, "C"), rejected("cid", 3, "sold_out")];
        let (figures, details) = counted(users, &rows);
        assert_eq!((figures.won, figures.sold_out, figures.unresolved), (0, 0, 3));
        assert_eq!(details.contradicted, 3);
    }

    #[test]
    fn a_code_told_to_one_user_and_held_by_another_is_given_twice() {
        let held = |code: &str| Held::Code(code.to_owned());
        let twice = |told, rows: &[_]| counted(told, rows).0.given_twice;
        assert_eq!(twice(vec![won("ann", 1, "A"), won("bob", 2, "A")], &[]), 1);
        assert_eq!(twice(vec![won("ann", 1, "A")], &[(2, "bob", held("A"))]), 1);
        assert_eq!(twice(Vec::new(), &[(1, "ann", held("A")), (2, "ann", held("A"))]), 1);
        assert_eq!(twice(vec![won("ann", 1, "A")], &[(1, "ann", held("A"))]), 0);
    }

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let values: Vec<_> = (1..=10).map(Duration::from_millis).collect();
        let of = |percent| quantile(&values, percent).as_millis();
        assert_eq!((of(50), of(95), of(99)), (5, 10, 10));
        assert_eq!(quantile(&[], 50), Duration::ZERO);
    }
}
