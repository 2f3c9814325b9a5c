//! From samples to figures: medians, ratios within a round, spread.

use std::time::Duration;

use crate::arm::{Arm, CurvePoint, Sample, millis};
use crate::results::ratios::{By, FENCE, RATIOS, Ratio};

/// A sample, or why it is missing.
pub type Outcome = Result<Sample, String>;

/// For each round, one outcome of each arm, in the order of the arms.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<Vec<Outcome>>);

impl Rounds {
    /// The samples of an arm, round by round; none at all where one of them is void: what is broken once in three times
    /// is broken.
    fn of(&self, arm: usize) -> Result<Vec<&Sample>, &str> {
        self.0
            .iter()
            .filter_map(|round| round.get(arm))
            .map(|outcome| outcome.as_ref().map_err(|why| &**why))
            .collect()
    }

    fn paired(&self, one: usize, other: usize, by: By) -> Option<Vec<f64>> {
        let (ones, others) = (self.of(one).ok()?, self.of(other).ok()?);
        ones.into_iter().zip(others).map(|(one, other)| Some(by.figure(one)? / by.figure(other)?)).collect()
    }
}

impl By {
    fn figure(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Rate => sample.per_second(),
            Self::Cpu => sample.cpu_us_per_request(),
            Self::P99 => sample.p99.map(millis),
            Self::Fence => sample.metric(FENCE),
        }
    }
}

/// The middle, and how far the ends are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the rounds are not above it.
    pub median: f64,
    /// The least of the rounds.
    pub least: f64,
    /// The most of the rounds.
    pub most: f64,
}

impl Spread {
    /// `None` for no values, and where one of them is no number.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, most })
    }
}

/// What one arm comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmFigures {
    /// Its name.
    pub name: &'static str,
    /// What it does and guarantees.
    pub about: &'static str,
    /// Requests of a round.
    pub requests: u64,
    /// Why it has no figures.
    pub void: Option<String>,
    /// Requests per second.
    pub per_second: Option<Spread>,
    /// Half came within this.
    pub p50_ms: Option<Spread>,
    /// 99 % came within this.
    pub p99_ms: Option<Spread>,
    /// All programs together.
    pub cpu_us: Option<Spread>,
    /// Medians by program.
    pub cpu_by: Vec<(&'static str, f64)>,
    /// What else was seen.
    pub metrics: Vec<(&'static str, Spread)>,
    /// Medians of the rounds' curves, point by point.
    pub curve: Vec<CurvePoint>,
}

/// All figures of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Of each arm, in the order of the arms.
    pub arms: Vec<ArmFigures>,
    /// By key.
    pub ratios: Vec<(String, Spread)>,
}

impl Figures {
    /// From what was measured.
    #[must_use]
    pub fn of(arms: &[&'static dyn Arm], rounds: &Rounds) -> Self {
        let figures = arms.iter().enumerate().map(|(at, arm)| ArmFigures::of(*arm, rounds.of(at))).collect();
        let at = |name: &str| arms.iter().position(|arm| arm.name() == name);
        let ratio = |ratio: &Ratio| {
            let values = rounds.paired(at(ratio.0)?, at(ratio.1)?, ratio.2)?;
            Some((ratio.key(), Spread::of(values)?))
        };
        Self { arms: figures, ratios: RATIOS.iter().filter_map(ratio).collect() }
    }

    /// Those of an arm.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<&ArmFigures> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// A ratio by its key.
    #[must_use]
    pub fn ratio(&self, key: &str) -> Option<Spread> {
        self.ratios.iter().find(|(known, _)| known == key).map(|(_, spread)| *spread)
    }
}

impl ArmFigures {
    fn of(arm: &'static dyn Arm, samples: Result<Vec<&Sample>, &str>) -> Self {
        let void = samples.as_ref().err().map(|why| (*why).to_owned());
        let samples = samples.unwrap_or_default();
        // What one round has and another has not is no figure.
        let spread = |figure: &dyn Fn(&Sample) -> Option<f64>| {
            Spread::of(samples.iter().map(|sample| figure(sample)).collect::<Option<_>>()?)
        };
        let in_ms = |time: Option<Duration>| time.map(millis);
        let first = samples.first();
        let cpu_by = first.into_iter().flat_map(|sample| &sample.cpu).filter_map(|(name, _)| {
            let of = |sample: &Sample| Some(share(sample, name));
            Some((*name, spread(&of)?.median)).filter(|(_, used)| *used > 0.0)
        });
        let metrics = first.into_iter().flat_map(|sample| &sample.metrics);
        Self {
            name: arm.name(),
            about: arm.about(),
            requests: first.map_or(0, |sample| sample.requests),
            void,
            per_second: spread(&Sample::per_second),
            p50_ms: spread(&|sample| in_ms(sample.p50)),
            p99_ms: spread(&|sample| in_ms(sample.p99)),
            cpu_us: spread(&Sample::cpu_us_per_request),
            cpu_by: cpu_by.collect(),
            metrics: metrics
                .filter_map(|(name, _)| Some((*name, spread(&|sample| sample.metric(name))?)))
                .collect(),
            curve: curve(&samples),
        }
    }
}

/// CPU microseconds for each request that one program used.
fn share(sample: &Sample, program: &str) -> f64 {
    let cpu = sample.cpu.iter().filter(|(name, _)| *name == program).copied().collect();
    let alone = Sample { requests: sample.requests, cpu, ..Sample::default() };
    alone.cpu_us_per_request().unwrap_or(0.0)
}

fn curve(samples: &[&Sample]) -> Vec<CurvePoint> {
    let points = samples.iter().map(|sample| sample.curve.len()).min().unwrap_or(0);
    let median = |at: usize, figure: fn(&CurvePoint) -> f64| {
        Spread::of(samples.iter().map(|sample| figure(&sample.curve[at])).collect())
            .map(|spread| spread.median)
    };
    let point = |at| {
        Some(CurvePoint {
            offered: median(at, |point| point.offered)?,
            per_second: median(at, |point| point.per_second)?,
            p50_ms: median(at, |point| point.p50_ms)?,
            p99_ms: median(at, |point| point.p99_ms)?,
        })
    };
    (0..points).filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arms::ALL;

    fn sample(seconds: f64) -> Outcome {
        Ok(Sample {
            requests: 1_000,
            took: Some(Duration::from_secs_f64(seconds)),
            p50: Some(Duration::from_millis(2)),
            cpu: vec![("worker", Duration::from_millis(5)), ("postgres", Duration::from_millis(15))],
            ..Sample::default()
        })
    }

    fn two() -> Vec<&'static dyn Arm> {
        ALL.iter().copied().filter(|arm| ["hot-drain", "pg-ceiling"].contains(&arm.name())).collect()
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_and_then_its_median() {
        // A machine that got slower from round to round: the ratio did not.
        let rounds = Rounds(vec![
            vec![sample(2.0), sample(1.0)],
            vec![sample(4.0), sample(2.0)],
            vec![sample(9.0), sample(3.0)],
        ]);
        let figures = Figures::of(&two(), &rounds);
        let ratio = figures.ratio("hot-drain/pg-ceiling").expect("a ratio");
        assert_eq!((ratio.median, ratio.most), (0.5, 0.5));
        assert!((ratio.least - 1.0 / 3.0).abs() < 1e-9);
        let hot = figures.arm("hot-drain").expect("an arm");
        assert_eq!(hot.per_second.map(|spread| spread.median), Some(250.0));
        assert_eq!(hot.cpu_us.map(|spread| spread.median), Some(20.0));
        assert_eq!(hot.cpu_by, [("worker", 5.0), ("postgres", 15.0)]);
        assert_eq!((hot.p50_ms.map(|spread| spread.median), hot.p99_ms), (Some(2.0), None));
    }

    #[test]
    fn what_was_void_in_one_round_has_no_figure_and_takes_nothing_from_the_others() {
        let rounds = Rounds(vec![
            vec![sample(2.0), sample(1.0)],
            vec![Err("an invariant is broken".to_owned()), sample(2.0)],
        ]);
        let figures = Figures::of(&two(), &rounds);
        let hot = figures.arm("hot-drain").expect("an arm");
        assert_eq!((hot.per_second, hot.void.as_deref()), (None, Some("an invariant is broken")));
        assert!(figures.arm("pg-ceiling").expect("an arm").per_second.is_some());
        assert_eq!(figures.ratio("hot-drain/pg-ceiling"), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(vec![4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
