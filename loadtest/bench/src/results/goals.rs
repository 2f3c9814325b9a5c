//! The targets, and whether the figures reach them.

use serde::Serialize;

use crate::METRIC_COMMITS;
use crate::results::figures::{Figures, Spread};
use crate::results::ratios::By::{Cpu, Fence, P99, Rate};
use crate::results::ratios::Ratio;

/// Where a figure is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Ratio(Ratio),
    P50(&'static str),
    P99(&'static str),
    Metric(&'static str, &'static str),
}

/// The bound on a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Not further away than this share of it.
    Near(f64, f64),
}

struct Goal {
    what: &'static str,
    figure: Figure,
    bound: Bound,
    unit: &'static str,
}

const fn goal(what: &'static str, figure: Figure, bound: Bound, unit: &'static str) -> Goal {
    Goal { what, figure, bound, unit }
}

const fn rate(one: &'static str, other: &'static str) -> Figure {
    Figure::Ratio(Ratio(one, other, Rate))
}

const fn cpu(one: &'static str, other: &'static str) -> Figure {
    Figure::Ratio(Ratio(one, other, Cpu))
}

use Bound::{AtLeast, AtMost, Near};

/// The goals. Those of the baselines hold them to what the bare pieces reached on two cores: 2,500, 3,100, 9,000 and
/// 113,000 claims/s, and 196,000 in calls of 1,000. A slow baseline wins no goal.
const GOALS: &[Goal] = &[
    goal("one hot coupon against a locked row", rate("hot-drain", "row-lock"), AtLeast(45.0), "×"),
    goal(
        "one hot coupon against rows that are skipped",
        rate("hot-drain", "skip-locked"),
        AtLeast(12.0),
        "×",
    ),
    goal("durable as fast as not durable", rate("hot-drain", "redis-lua"), AtLeast(1.0), "×"),
    goal("share of what Postgres can take", rate("hot-drain", "pg-ceiling"), AtLeast(0.65), "×"),
    goal("sold out against having a code for all", rate("sold-out-drain", "hot-drain"), AtLeast(1.5), "×"),
    goal("one hot coupon against 10,000 coupons", rate("hot-drain", "uniform-drain"), AtLeast(1.0), "×"),
    goal("commits per 1,000 claims", Figure::Metric("hot-drain", METRIC_COMMITS), AtMost(2.0), ""),
    goal("accepting against the HTTP server alone", rate("accept", "http-ceiling"), AtLeast(0.7), "×"),
    goal("the sold-out gate against the same", rate("gate", "http-ceiling"), AtLeast(0.9), "×"),
    goal("claim to outcome, half of them", Figure::P50("claim-to-outcome"), AtMost(5.0), "ms"),
    goal("claim to outcome, 99 %", Figure::P99("claim-to-outcome"), AtMost(20.0), "ms"),
    goal("a claim alone to its outcome, half of them", Figure::P50("claim-alone"), AtMost(2.0), "ms"),
    goal(
        "ten times too many: those accepted, against half of the highest load, 99 %",
        Figure::Ratio(Ratio("overload", "claim-to-outcome", P99)),
        AtMost(2.0),
        "×",
    ),
    goal("takeover beyond the session timeout", Figure::P50("takeover"), AtMost(500.0), "ms"),
    goal("orderly hand-over", Figure::P50("hand-over"), AtMost(250.0), "ms"),
    goal(
        "takeover of 1,000,000 codes against 1,000",
        Figure::Ratio(Ratio("takeover-million", "takeover", Fence)),
        AtMost(1.2),
        "×",
    ),
    goal("CPU per claim with 2 workers against 1", cpu("scaling-2", "scaling-1"), Near(1.0, 0.1), "×"),
    goal("CPU per claim with 4 workers against 1", cpu("scaling-4", "scaling-1"), Near(1.0, 0.1), "×"),
    goal(
        "CPU per claim with 1,000,000 codes against 1,000",
        cpu("stock-1000000", "stock-1000"),
        AtMost(1.1),
        "×",
    ),
    goal("keyed claims with 30 days kept against 1", rate("history-30", "history-1"), Near(1.0, 0.1), "×"),
    goal("keyed claims with 365 days kept against 1", rate("history-365", "history-1"), Near(1.0, 0.1), "×"),
    goal(
        "baseline: conditional update against a locked row",
        rate("conditional-update", "row-lock"),
        Near(1.24, 0.2),
        "×",
    ),
    goal("baseline: skipped rows against a locked row", rate("skip-locked", "row-lock"), Near(3.6, 0.2), "×"),
    goal("baseline: Redis against skipped rows", rate("redis-lua", "skip-locked"), Near(12.6, 0.2), "×"),
    goal(
        "baseline: Postgres' ceiling against skipped rows",
        rate("pg-ceiling", "skip-locked"),
        Near(21.8, 0.2),
        "×",
    ),
];

/// The state of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GoalStatus {
    /// What was to be reached.
    pub goal: &'static str,
    /// The bound, in words.
    pub wanted: String,
    /// What was measured.
    pub value: f64,
    /// `×`, `ms`, or nothing.
    pub unit: &'static str,
    /// Whether it was.
    pub reached: bool,
    /// How far away, as a share of the bound; 0 where it was reached.
    pub missed_by: f64,
}

/// Every goal whose figures are there.
#[must_use]
pub fn statuses(figures: &Figures) -> Vec<GoalStatus> {
    GOALS.iter().filter_map(|goal| Some(status(goal, value(goal.figure, figures)?))).collect()
}

fn value(figure: Figure, figures: &Figures) -> Option<f64> {
    let arm = |name| figures.arm(name);
    let spread = match figure {
        Figure::Ratio(ratio) => figures.ratio(&ratio.key()),
        Figure::P50(name) => arm(name)?.p50_ms,
        Figure::P99(name) => arm(name)?.p99_ms,
        Figure::Metric(name, mark) => {
            arm(name)?.metrics.iter().find(|(known, _)| *known == mark).map(|(_, s)| *s)
        }
    };
    spread.map(|Spread { median, .. }| median)
}

fn status(goal: &Goal, value: f64) -> GoalStatus {
    let (wanted, missed_by) = match goal.bound {
        AtLeast(bound) => (format!("≥ {bound}"), (bound - value) / bound),
        AtMost(bound) => (format!("≤ {bound}"), (value - bound) / bound),
        Near(bound, share) => {
            let away = (value - bound).abs() / bound;
            (format!("{bound} ± {:.0} %", share * 100.0), if away > share { away } else { 0.0 })
        }
    };
    let missed_by = missed_by.max(0.0);
    GoalStatus { goal: goal.what, wanted, value, unit: goal.unit, reached: missed_by == 0.0, missed_by }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arms::ALL;
    use crate::results::ratios::RATIOS;

    #[test]
    fn a_goal_is_reached_or_missed_by_a_share_of_it() {
        let at_least = goal("", rate("a", "b"), AtLeast(50.0), "×");
        assert_eq!(status(&at_least, 60.0).missed_by, 0.0);
        assert!((status(&at_least, 40.0).missed_by - 0.2).abs() < 1e-9);
        let at_most = goal("", rate("a", "b"), AtMost(2.0), "");
        assert!(status(&at_most, 2.0).reached);
        assert!((status(&at_most, 3.0).missed_by - 0.5).abs() < 1e-9);
        let near = goal("", rate("a", "b"), Near(10.0, 0.2), "×");
        assert!(status(&near, 12.0).reached && status(&near, 8.0).reached);
        assert!(!status(&near, 12.1).reached && !status(&near, 7.9).reached);
    }

    #[test]
    fn every_target_names_a_measured_ratio_and_existing_arms() {
        let known = |name: &str| ALL.iter().any(|arm| arm.name() == name);
        for ratio in RATIOS {
            assert!(known(ratio.0) && known(ratio.1), "{}", ratio.key());
        }
        for goal in GOALS {
            match goal.figure {
                Figure::Ratio(ratio) => assert!(RATIOS.contains(&ratio), "{}", ratio.key()),
                Figure::P50(name) | Figure::P99(name) | Figure::Metric(name, _) => {
                    assert!(known(name), "{name}")
                }
            }
        }
    }
}
