//! Figures for people on a terminal, and for programs as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::arm::{CurvePoint, Sample, millis};
use crate::results::figures::{ArmFigures, Figures, Spread};
use crate::results::goals::{GoalStatus, statuses};

/// One sample in a line.
#[must_use]
pub fn line(sample: &Sample) -> String {
    let mut parts = Vec::new();
    if let Some(rate) = sample.per_second() {
        parts.push(format!("{rate:.0} requests/s"));
    }
    if let Some(cpu) = sample.cpu_us_per_request() {
        parts.push(format!("{cpu:.1} µs CPU/request"));
    }
    let times = [("p50", sample.p50), ("p99", sample.p99)];
    parts.extend(times.iter().filter_map(|(name, time)| Some(format!("{name} {:.1} ms", millis((*time)?)))));
    parts.extend(sample.metrics.iter().map(|(name, value)| format!("{name} {}", short(*value))));
    parts.join(", ")
}

/// The table for people.
#[must_use]
pub fn table(figures: &Figures, rounds: usize) -> String {
    let mut out = String::new();
    _ = writeln!(out, "\nmedian of {rounds} rounds (least … most)\n");
    let heads = ["arm", "requests", "requests/s", "p50 ms", "p99 ms", "µs CPU/request"];
    let [arm, requests, rate, p50, p99, cpu] = heads;
    _ = writeln!(out, "{arm:<19} {requests:>9} {rate:>27} {p50:>9} {p99:>9} {cpu:>15}");
    for arm in &figures.arms {
        row(&mut out, arm);
    }
    out.push_str("\nwhat they are\n");
    for arm in &figures.arms {
        _ = writeln!(out, "  {:<18} {}", arm.name, arm.about);
    }
    if !figures.ratios.is_empty() {
        out.push_str("\nratios within a round\n");
    }
    for (key, ratio) in &figures.ratios {
        let [median, least, most] = [ratio.median, ratio.least, ratio.most].map(short);
        _ = writeln!(out, "  {key:<40} {median:>8} × ({least} … {most})");
    }
    let statuses = statuses(figures);
    if !statuses.is_empty() {
        out.push_str("\ngoals\n");
    }
    for GoalStatus { goal, wanted, value, unit, reached, missed_by } in statuses {
        let verdict =
            if reached { "reached".to_owned() } else { format!("missed by {:.0} %", missed_by * 100.0) };
        _ = writeln!(out, "  {goal:<74} {:>8} {unit:<2} (wanted {wanted}): {verdict}", short(value));
    }
    out
}

fn row(out: &mut String, arm: &ArmFigures) {
    if let Some(void) = &arm.void {
        _ = writeln!(out, "{:<19} void: {}", arm.name, void.lines().next().unwrap_or_default());
        return;
    }
    let rate = arm.per_second.map_or_else(
        || "–".to_owned(),
        |rate| format!("{:.0} ({:.0} … {:.0})", rate.median, rate.least, rate.most),
    );
    let median =
        |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| short(spread.median));
    let [p50, p99, cpu] = [arm.p50_ms, arm.p99_ms, arm.cpu_us].map(median);
    _ = writeln!(out, "{:<19} {:>9} {rate:>27} {p50:>9} {p99:>9} {cpu:>15}", arm.name, arm.requests);
    let by: Vec<String> = arm.cpu_by.iter().map(|(name, used)| format!("{name} {}", short(*used))).collect();
    let metrics = arm.metrics.iter().map(|(name, spread)| format!("{name} {}", short(spread.median)));
    let cpu = (!by.is_empty()).then(|| format!("µs CPU: {}", by.join(", ")));
    let notes: Vec<String> = cpu.into_iter().chain(metrics).collect();
    if !notes.is_empty() {
        _ = writeln!(out, "{:<19} {}", "", notes.join("; "));
    }
}

/// A number with three or four digits that mean something.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The same for programs; the keys are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Json {
    /// One of each arm.
    arms: Vec<ArmJson>,
    /// `one/other`: median of the ratios within a round; of requests per second where there is no suffix.
    ratios: BTreeMap<String, f64>,
    /// How the goals stand.
    goals: Vec<GoalStatus>,
}

/// Medians of one arm; null where a figure does not apply, or is void.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ArmJson {
    name: &'static str,
    per_second: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    cpu_us_per_request: Option<f64>,
    requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    void: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metrics: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    curve: Vec<CurvePoint>,
}

/// As JSON.
#[must_use]
pub fn json(figures: &Figures) -> Json {
    let rounded = |value: f64| (value * 10_000.0).round() / 10_000.0;
    let median = |spread: Option<Spread>| spread.map(|spread| rounded(spread.median));
    let of_arm = |arm: &ArmFigures| ArmJson {
        name: arm.name,
        per_second: median(arm.per_second),
        p50_ms: median(arm.p50_ms),
        p99_ms: median(arm.p99_ms),
        cpu_us_per_request: median(arm.cpu_us),
        requests: arm.requests,
        void: arm.void.clone(),
        metrics: arm.metrics.iter().map(|(name, spread)| (*name, rounded(spread.median))).collect(),
        curve: arm.curve.clone(),
    };
    Json {
        arms: figures.arms.iter().map(of_arm).collect(),
        ratios: figures.ratios.iter().map(|(key, ratio)| (key.clone(), rounded(ratio.median))).collect(),
        goals: statuses(figures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::Arm;
    use crate::arms::ALL;
    use crate::results::figures::Rounds;
    use std::time::Duration;

    #[test]
    fn an_inapplicable_figure_is_null_and_a_void_one_has_its_reason() {
        let wanted = ["hot-drain", "takeover", "echo"];
        let arms: Vec<&'static dyn Arm> =
            ALL.iter().copied().filter(|arm| wanted.contains(&arm.name())).collect();
        let hot = Sample {
            requests: 1_000,
            took: Some(Duration::from_secs(2)),
            cpu: vec![("worker", Duration::from_millis(5))],
            metrics: vec![(crate::METRIC_COMMITS, 0.75)],
            ..Sample::default()
        };
        let takeover = Sample { requests: 2, p50: Some(Duration::from_millis(70)), ..Sample::default() };
        let rounds = Rounds(vec![vec![Ok(hot), Ok(takeover), Err("no figure\nwith more lines".to_owned())]]);
        let figures = Figures::of(&arms, &rounds);
        let json = serde_json::to_value(json(&figures)).expect("JSON");
        assert_eq!(json["arms"][0]["per_second"], 500.0);
        assert_eq!(json["arms"][0]["cpu_us_per_request"], 5.0);
        assert!(json["arms"][0]["p50_ms"].is_null() && json["arms"][1]["per_second"].is_null());
        assert_eq!(json["arms"][1]["p50_ms"], 70.0);
        assert_eq!(json["arms"][2]["void"], "no figure\nwith more lines");
        assert!(json["ratios"].as_object().expect("an object").is_empty());
        let table = table(&figures, 1);
        assert!(table.contains("void: no figure\n"), "{table}");
        assert!(table.contains("commits per 1,000 0.75"), "{table}");
        assert!(table.contains("70.0 ms (wanted ≤ 500): reached"), "{table}");
    }
}
