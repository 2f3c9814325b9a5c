//! The plot of the README: claims per second, Stampede beside the designs that people use instead.
//!
//! It is drawn from the JSON result of a run, so that the plot of a stored result can be drawn again without a measurement.

use serde::Deserialize;
use thiserror::Error;

use crate::results::plot::{self, Bar, PlotError};

const TITLE: &str = "claims per second (logarithmic scale)";
/// The arm that the plot is about.
const SUBJECT: &str = "hot-drain";
/// The arms that are shown, and how their users call the design.
const DESIGNS: [(&str, &str); 5] = [
    (SUBJECT, "Stampede, one hot coupon"),
    ("redis-lua", "Lua script in Redis (not durable)"),
    ("skip-locked", "one row per code, SKIP LOCKED"),
    ("conditional-update", "conditional UPDATE"),
    ("row-lock", "locked row, SELECT … FOR UPDATE"),
];
/// Large rates are rounded to this: their spread is larger.
const ROUNDED_TO: f64 = 100.0;

/// Why there is no plot.
#[derive(Debug, Error)]
pub enum ReadmePlotError {
    /// Something else than what `--json` prints.
    #[error("not the JSON result of a run: {0}")]
    NotAResult(#[from] serde_json::Error),
    /// Other arms were measured.
    #[error("the result has none of the rates that the plot shows: {}", DESIGNS.map(|(arm, _)| arm).join(", "))]
    NoRates,
    /// The plot cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// What the plot needs of a result.
#[derive(Deserialize)]
struct RunResult {
    arms: Vec<ArmRate>,
}

#[derive(Deserialize)]
struct ArmRate {
    name: String,
    per_second: Option<f64>,
}

/// The plot of a result, as SVG. Arms without a rate are left out.
///
/// # Errors
/// [`ReadmePlotError`].
pub fn from_json(json: &str) -> Result<String, ReadmePlotError> {
    let result: RunResult = serde_json::from_str(json)?;
    let bars = bars(&result);
    if bars.is_empty() {
        return Err(ReadmePlotError::NoRates);
    }
    Ok(plot::bars(TITLE, &bars)?)
}

fn bars(result: &RunResult) -> Vec<Bar<'static>> {
    let bar = |(arm, name): (&str, &'static str)| {
        let rate = result.arms.iter().find(|of| of.name == arm)?.per_second?;
        Some(Bar { name, value: rounded(rate), highlighted: arm == SUBJECT })
    };
    let mut bars: Vec<Bar<'static>> = DESIGNS.into_iter().filter_map(bar).collect();
    bars.sort_by(|one, other| other.value.total_cmp(&one.value));
    bars
}

fn rounded(rate: f64) -> f64 {
    if rate < 10.0 * ROUNDED_TO { rate } else { (rate / ROUNDED_TO).round() * ROUNDED_TO }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = include_str!("../../../../deploy/docs/benchmark.json");
    const PLOT: &str = include_str!("../../../../deploy/docs/benchmark.svg");
    const README: &str = include_str!("../../../../README.md");

    #[test]
    fn the_plot_in_the_readme_is_drawn_from_the_stored_result_and_has_the_figures_of_the_table() {
        let redraw = "loadtest bench --from deploy/docs/benchmark.json --plot deploy/docs/benchmark.svg";
        assert!(from_json(STORED).expect("a plot") == PLOT, "draw the plot again: {redraw}");
        let bars = bars(&serde_json::from_str(STORED).expect("a result"));
        assert_eq!(bars.len(), DESIGNS.len());
        for bar in bars {
            let figure = plot::thousands(bar.value);
            assert!(README.contains(&figure), "{}: {figure} is not in README.md", bar.name);
        }
    }

    #[test]
    fn designs_are_sorted_by_their_rate_and_those_without_one_are_left_out() {
        let json = r#"{"arms": [
            {"name": "row-lock", "per_second": 812.4, "requests": 10},
            {"name": "echo", "per_second": 1.0},
            {"name": "skip-locked", "per_second": null, "void": "broken"},
            {"name": "hot-drain", "per_second": 111387.2}], "ratios": {}, "goals": []}"#;
        let found = bars(&serde_json::from_str(json).expect("a result"));
        let found: Vec<_> = found.into_iter().map(|bar| (bar.name, bar.value, bar.highlighted)).collect();
        let expected = [(DESIGNS[0].1, 111_400.0, true), ("locked row, SELECT … FOR UPDATE", 812.4, false)];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_has_no_rate_of_these_designs_has_no_plot() {
        assert!(matches!(from_json("median of 3 rounds"), Err(ReadmePlotError::NotAResult(_))));
        let other = r#"{"arms": [{"name": "echo", "per_second": 1.0}]}"#;
        let error = from_json(other).expect_err("other arms").to_string();
        assert!(error.contains("hot-drain, redis-lua"), "{error}");
    }
}
