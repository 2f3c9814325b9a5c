//! From samples to figures: medians, paired ratios, spread.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::arm::{Arm, RATIOS, Sample};

/// For each round, one sample of each arm, in the order of the arms.
#[derive(Clone, Debug, Default)]
pub struct Rounds(pub Vec<Vec<Sample>>);

impl Rounds {
    fn of(&self, arm: usize, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.0.iter().filter_map(|round| round.get(arm)).map(figure).collect()
    }

    /// Ratios of requests per second, each of two samples of the same round.
    fn paired(&self, one: usize, other: usize) -> Vec<f64> {
        self.0
            .iter()
            .filter_map(|round| Some(round.get(one)?.per_second() / round.get(other)?.per_second()))
            .collect()
    }
}

/// The middle, and how far the ends are.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
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

/// One sample in a line.
#[must_use]
pub fn line(sample: &Sample) -> String {
    let mut out =
        format!("{:.0} requests/s, {:.1} µs CPU/request (", sample.per_second(), sample.cpu_us_per_request());
    let share = |time: f64| time * sample.cpu_us_per_request();
    let all: f64 = sample.cpu.iter().map(|(_, time)| time.as_secs_f64()).sum();
    let parts: Vec<String> = sample
        .cpu
        .iter()
        .filter(|(_, time)| !time.is_zero())
        .map(|(name, time)| format!("{name} {:.1}", share(time.as_secs_f64() / all)))
        .collect();
    _ = write!(
        out,
        "{}), p50 {:.1} ms, p99 {:.1} ms",
        parts.join(", "),
        millis(sample.p50),
        millis(sample.p99)
    );
    out
}

/// The table for people.
#[must_use]
pub fn table(arms: &[&'static dyn Arm], rounds: &Rounds) -> String {
    let mut out = String::from("\n");
    let requests = rounds.0.first().and_then(|round| round.first()).map_or(0, |sample| sample.requests);
    _ = writeln!(out, "{requests} requests, median of {} rounds (least … most)", rounds.0.len());
    for (at, arm) in arms.iter().enumerate() {
        let Some(rate) = Spread::of(rounds.of(at, Sample::per_second)) else { continue };
        let cpu = Spread::of(rounds.of(at, Sample::cpu_us_per_request)).map_or(0.0, |cpu| cpu.median);
        _ = writeln!(
            out,
            "  {:<12} {:>9.0} requests/s ({:.0} … {:.0})   {cpu:.1} µs CPU/request",
            arm.name(),
            rate.median,
            rate.least,
            rate.most
        );
        _ = writeln!(out, "  {:<12} {}", "", arm.about());
    }
    for (name, ratio) in ratios(arms, rounds) {
        let percent = |value: f64| value * 100.0;
        _ = writeln!(
            out,
            "  {name} = {:.1} % ({:.1} … {:.1} %)",
            percent(ratio.median),
            percent(ratio.least),
            percent(ratio.most)
        );
    }
    out
}

/// The same for programs; the keys are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// One of each arm.
    arms: Vec<ArmFigures>,
    /// `one/other`: median of the paired ratios.
    ratios: BTreeMap<String, f64>,
}

/// Medians of one arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ArmFigures {
    name: &'static str,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_request: f64,
}

/// From samples to figures.
#[must_use]
pub fn figures(arms: &[&'static dyn Arm], rounds: &Rounds) -> Figures {
    let median = |at: usize, figure: fn(&Sample) -> f64| {
        Spread::of(rounds.of(at, figure)).map_or(0.0, |spread| (spread.median * 1000.0).round() / 1000.0)
    };
    let of_arm = |(at, arm): (usize, &&'static dyn Arm)| ArmFigures {
        name: arm.name(),
        per_second: median(at, Sample::per_second),
        p50_ms: median(at, |sample| millis(sample.p50)),
        p99_ms: median(at, |sample| millis(sample.p99)),
        cpu_us_per_request: median(at, Sample::cpu_us_per_request),
    };
    let ratios = ratios(arms, rounds).into_iter();
    Figures {
        arms: arms.iter().enumerate().map(of_arm).collect(),
        ratios: ratios.map(|(name, ratio)| (name, (ratio.median * 10_000.0).round() / 10_000.0)).collect(),
    }
}

fn ratios(arms: &[&'static dyn Arm], rounds: &Rounds) -> Vec<(String, Spread)> {
    let at = |name: &str| arms.iter().position(|arm| arm.name() == name);
    RATIOS
        .iter()
        .filter_map(|(one, other)| {
            let spread = Spread::of(rounds.paired(at(one)?, at(other)?))?;
            Some((format!("{one}/{other}"), spread))
        })
        .collect()
}

fn millis(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::arm::ALL;
    use super::*;
    use std::time::Duration;

    fn sample(seconds: f64) -> Sample {
        Sample {
            requests: 1_000,
            took: Duration::from_secs_f64(seconds),
            p50: Duration::from_millis(2),
            p99: Duration::from_millis(3),
            cpu: vec![("worker", Duration::from_millis(5)), ("postgres", Duration::from_millis(15))],
        }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_and_then_its_median() {
        // A machine that got slower from round to round: the ratio did not.
        let rounds = Rounds(vec![
            vec![sample(2.0), sample(4.0), sample(1.0)],
            vec![sample(4.0), sample(4.0), sample(2.0)],
            vec![sample(9.0), sample(4.0), sample(3.0)],
        ]);
        let json = serde_json::to_value(figures(ALL, &rounds)).expect("figures are JSON");
        assert_eq!(json["ratios"]["hot-drain/pg-ceiling"], 0.5);
        assert_eq!(json["ratios"]["redeem-drain/hot-drain"], 1.0);
        assert_eq!(json["arms"][0]["per_second"], 250.0);
        assert_eq!(json["arms"][0]["cpu_us_per_request"], 20.0);
        let table = table(ALL, &rounds);
        assert!(table.contains("hot-drain/pg-ceiling = 50.0 % (33.3 … 50.0 %)"), "{table}");
        assert!(line(&sample(1.0)).contains("worker 5.0, postgres 15.0"), "{}", line(&sample(1.0)));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of(vec![4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
