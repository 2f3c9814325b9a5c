//! Plots as inline SVG: bars on a logarithmic scale, and lines. No script and no font from elsewhere, so that a page is
//! whole wherever it is opened.

use std::fmt::Write as _;

use crate::results::report::short;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 48.0;
const BAR: f64 = 26.0;
const BAR_LABEL: f64 = 170.0;
const BAR_VALUE: f64 = 90.0;
const COLOURS: [&str; 4] = ["#2563a8", "#c2571a", "#3b7d4f", "#7a4b94"];

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// How an axis goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten; for values above zero.
    Log,
}

/// An axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What is on it, with its unit.
    pub title: &'static str,
    /// How it goes.
    pub scale: Scale,
}

/// Text that may hold anything.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Where values lie on an axis, from 0 to 1.
struct Range {
    scale: Scale,
    least: f64,
    most: f64,
    ticks: Vec<f64>,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(0.0_f64, f64::max).max(f64::MIN_POSITIVE);
        match scale {
            Scale::Linear => {
                let step = step(most / 5.0);
                let top = (most / step).ceil() * step;
                let ticks = (0..=8).map(|n| f64::from(n) * step).filter(|tick| *tick <= top * 1.000_001);
                Self { scale, least: 0.0, most: top, ticks: ticks.collect() }
            }
            Scale::Log => {
                let least = values.filter(|value| *value > 0.0).fold(most, f64::min);
                let decade = |value: f64| 10_f64.powf(value);
                let (from, to) = (least.log10().floor(), most.log10().ceil());
                let to = if to > from { to } else { from + 1.0 };
                let ticks = (0..20).map(|n| from + f64::from(n)).filter(|tick| *tick <= to).map(decade);
                Self { scale, least: decade(from), most: decade(to), ticks: ticks.collect() }
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value / self.most,
            Scale::Log => (value.max(self.least) / self.least).log10() / (self.most / self.least).log10(),
        }
    }
}

/// The next round number: 1, 2, 5, 10, …
fn step(at_least: f64) -> f64 {
    let decade = 10_f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|n| n * decade).find(|step| *step >= at_least).unwrap_or(10.0 * decade)
}

/// A number on an axis.
fn tick(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        value if value >= 1e3 => format!("{} k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A bar for each value, from zero to the largest by powers of ten, longest range first as given.
#[must_use]
pub fn bars(values: &[(&str, f64)], unit: &str) -> String {
    let range = Range::of(Scale::Log, values.iter().map(|(_, value)| *value));
    let height = BAR * values.len() as f64 + 30.0;
    let limits = WIDTH - BAR_LABEL - BAR_VALUE;
    let mut out = open(height);
    for at in &range.ticks {
        let x = BAR_LABEL + limits * range.place(*at);
        grid(&mut out, (x, 0.0), (x, height - 24.0));
        text(&mut out, (x, height - 8.0), "middle", &tick(*at));
    }
    for (n, (name, value)) in values.iter().enumerate() {
        let y = BAR * n as f64;
        let length = (limits * range.place(*value)).max(1.0);
        text(&mut out, (BAR_LABEL - 8.0, y + 18.0), "end", name);
        _ = write!(
            out,
            r#"<rect x="{BAR_LABEL}" y="{:.1}" width="{length:.1}" height="{:.1}" fill="{}"/>"#,
            y + 4.0,
            BAR - 8.0,
            COLOURS[0]
        );
        text(
            &mut out,
            (BAR_LABEL + length + 6.0, y + 18.0),
            "start",
            &format!("{} {unit}", thousands(*value)),
        );
    }
    out.push_str("</svg>");
    out
}

fn thousands(value: f64) -> String {
    if value < 1_000.0 {
        return short(value);
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Lines through points, with a dot at each.
#[must_use]
pub fn lines(series: &[Series], x_axis: Axis, y_axis: Axis) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let xs = Range::of(x_axis.scale, points().map(|(x, _)| *x));
    let ys = Range::of(y_axis.scale, points().map(|(_, y)| *y));
    let x_of = |x: f64| LEFT + (WIDTH - LEFT - RIGHT) * xs.place(x);
    let y_of = |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ys.place(y);
    let mut out = open(HEIGHT);
    for at in &xs.ticks {
        grid(&mut out, (x_of(*at), TOP), (x_of(*at), HEIGHT - BOTTOM));
        text(&mut out, (x_of(*at), HEIGHT - BOTTOM + 16.0), "middle", &tick(*at));
    }
    for at in &ys.ticks {
        grid(&mut out, (LEFT, y_of(*at)), (WIDTH - RIGHT, y_of(*at)));
        text(&mut out, (LEFT - 6.0, y_of(*at) + 4.0), "end", &tick(*at));
    }
    text(&mut out, (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 8.0), "middle", x_axis.title);
    text(&mut out, (6.0, 12.0), "start", y_axis.title);
    for (n, one) in series.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let path: Vec<String> =
            one.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
        _ = write!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        );
        for (x, y) in &one.points {
            _ = write!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="3.5" fill="{colour}"><title>{}</title></circle>"#,
                x_of(*x),
                y_of(*y),
                escaped(&format!("{}: {} at {}", one.name, short(*y), tick(*x)))
            );
        }
        let y = TOP + 14.0 + 18.0 * n as f64;
        _ = write!(
            out,
            r#"<rect x="{}" y="{}" width="12" height="4" fill="{colour}"/>"#,
            LEFT + 10.0,
            y - 6.0
        );
        text(&mut out, (LEFT + 28.0, y), "start", &one.name);
    }
    out.push_str("</svg>");
    out
}

fn open(height: f64) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" xmlns="http://www.w3.org/2000/svg" role="img">"#
    )
}

fn grid(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    _ = write!(out, r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#ddd"/>"##);
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    _ = write!(out, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(words));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_marked_with_round_numbers_that_hold_every_value() {
        let linear = Range::of(Scale::Linear, [3.0, 17.3].into_iter());
        assert_eq!(linear.ticks, [0.0, 5.0, 10.0, 15.0, 20.0]);
        let log = Range::of(Scale::Log, [2_500.0, 140_000.0].into_iter());
        assert_eq!(log.ticks.len(), 4);
        for (range, value) in [(&linear, 17.3), (&log, 140_000.0), (&log, 2_500.0)] {
            assert!((0.0..=1.0).contains(&range.place(value)));
        }
        assert!(Range::of(Scale::Log, [5.0].into_iter()).place(5.0).is_finite());
        assert!(Range::of(Scale::Linear, std::iter::empty()).place(0.0).is_finite());
    }

    #[test]
    fn words_cannot_leave_their_place() {
        let plot = bars(&[("<script>", 10.0), ("b & c", 1_234_567.0)], "\"x\"");
        assert!(plot.contains("&lt;script&gt;") && plot.contains("b &amp; c") && !plot.contains("<script>"));
        assert!(plot.contains("1,234,567 &quot;x&quot;"));
    }
}
