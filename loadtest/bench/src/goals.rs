//! What is held against what, and what is to be reached.

use serde::Serialize;

use super::figures::{Figures, Spread};
use super::{MARK_COMMITS, MARK_FENCE_TO_OUTCOME};

/// What two arms are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Requests per second.
    Rate,
    /// CPU for each request.
    Cpu,
    /// The time within which 99 % came.
    P99,
    /// From the fence of a takeover to the first outcome.
    Fence,
}

/// One arm held against another, in the same round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(pub &'static str, pub &'static str, pub By);

impl Ratio {
    /// As it stands in the JSON.
    #[must_use]
    pub fn key(&self) -> String {
        let suffix = match self.2 {
            By::Rate => "",
            By::Cpu => " cpu",
            By::P99 => " p99",
            By::Fence => " fence-to-outcome",
        };
        format!("{}/{}{suffix}", self.0, self.1)
    }
}

use By::{Cpu, Fence, P99, Rate};

/// Which arms are held against which.
pub const RATIOS: &[Ratio] = &[
    Ratio("hot-drain", "row-lock", Rate),
    Ratio("hot-drain", "conditional-update", Rate),
    Ratio("hot-drain", "skip-locked", Rate),
    Ratio("hot-drain", "redis-lua", Rate),
    Ratio("hot-drain", "pg-ceiling", Rate),
    Ratio("hot-drain", "echo", Rate),
    Ratio("sold-out-drain", "hot-drain", Rate),
    Ratio("hot-drain", "uniform-drain", Rate),
    Ratio("hot-drain-8", "hot-drain", Rate),
    Ratio("hot-drain-8", "hot-drain", Cpu),
    Ratio("redeem-drain", "pg-ceiling", Rate),
    Ratio("redeem-drain", "hot-drain", Rate),
    Ratio("accept", "http-ceiling", Rate),
    Ratio("gate", "http-ceiling", Rate),
    Ratio("overload", "claim-to-outcome", P99),
    Ratio("takeover-million", "takeover", Fence),
    Ratio("scaling-2", "scaling-1", Rate),
    Ratio("scaling-2", "scaling-1", Cpu),
    Ratio("scaling-4", "scaling-1", Rate),
    Ratio("scaling-4", "scaling-1", Cpu),
    Ratio("coupons-100", "coupons-10", Cpu),
    Ratio("coupons-1000", "coupons-10", Cpu),
    Ratio("stock-10000", "stock-1000", Cpu),
    Ratio("stock-100000", "stock-1000", Cpu),
    Ratio("stock-1000000", "stock-1000", Cpu),
    Ratio("conditional-update", "row-lock", Rate),
    Ratio("skip-locked", "row-lock", Rate),
    Ratio("redis-lua", "skip-locked", Rate),
    Ratio("pg-ceiling", "skip-locked", Rate),
];

/// Where a figure is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Ratio(Ratio),
    P50(&'static str),
    P99(&'static str),
    Mark(&'static str, &'static str),
}

/// What is asked of it.
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
    goal("commits per 1,000 claims", Figure::Mark("hot-drain", MARK_COMMITS), AtMost(2.0), ""),
    goal("accepting against the bare front door", rate("accept", "http-ceiling"), AtLeast(0.7), "×"),
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

/// How a goal stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
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
pub fn standings(figures: &Figures) -> Vec<Standing> {
    GOALS.iter().filter_map(|goal| Some(standing(goal, value(goal.figure, figures)?))).collect()
}

fn value(figure: Figure, figures: &Figures) -> Option<f64> {
    let arm = |name| figures.arm(name);
    let spread = match figure {
        Figure::Ratio(ratio) => figures.ratio(&ratio.key()),
        Figure::P50(name) => arm(name)?.p50_ms,
        Figure::P99(name) => arm(name)?.p99_ms,
        Figure::Mark(name, mark) => {
            arm(name)?.marks.iter().find(|(known, _)| *known == mark).map(|(_, s)| *s)
        }
    };
    spread.map(|Spread { median, .. }| median)
}

fn standing(goal: &Goal, value: f64) -> Standing {
    let (wanted, missed_by) = match goal.bound {
        AtLeast(bound) => (format!("≥ {bound}"), (bound - value) / bound),
        AtMost(bound) => (format!("≤ {bound}"), (value - bound) / bound),
        Near(bound, share) => {
            let away = (value - bound).abs() / bound;
            (format!("{bound} ± {:.0} %", share * 100.0), if away > share { away } else { 0.0 })
        }
    };
    let missed_by = missed_by.max(0.0);
    Standing { goal: goal.what, wanted, value, unit: goal.unit, reached: missed_by == 0.0, missed_by }
}

/// The mark that [`By::Fence`] compares.
pub(super) const FENCE: &str = MARK_FENCE_TO_OUTCOME;

#[cfg(test)]
mod tests {
    use super::super::arm::ALL;
    use super::*;

    #[test]
    fn a_goal_is_reached_or_missed_by_a_share_of_it() {
        let at_least = goal("", rate("a", "b"), AtLeast(50.0), "×");
        assert_eq!(standing(&at_least, 60.0).missed_by, 0.0);
        assert!((standing(&at_least, 40.0).missed_by - 0.2).abs() < 1e-9);
        let at_most = goal("", rate("a", "b"), AtMost(2.0), "");
        assert!(standing(&at_most, 2.0).reached);
        assert!((standing(&at_most, 3.0).missed_by - 0.5).abs() < 1e-9);
        let near = goal("", rate("a", "b"), Near(10.0, 0.2), "×");
        assert!(standing(&near, 12.0).reached && standing(&near, 8.0).reached);
        assert!(!standing(&near, 12.1).reached && !standing(&near, 7.9).reached);
    }

    #[test]
    fn every_goal_speaks_of_a_ratio_that_is_taken_and_of_arms_that_there_are() {
        let known = |name: &str| ALL.iter().any(|arm| arm.name() == name);
        for ratio in RATIOS {
            assert!(known(ratio.0) && known(ratio.1), "{}", ratio.key());
        }
        for goal in GOALS {
            match goal.figure {
                Figure::Ratio(ratio) => assert!(RATIOS.contains(&ratio), "{}", ratio.key()),
                Figure::P50(name) | Figure::P99(name) | Figure::Mark(name, _) => {
                    assert!(known(name), "{name}")
                }
            }
        }
    }
}
