//! The report as one page: figures, plots, goals, and what it was measured on. It loads nothing from anywhere.

use std::fmt::Write as _;

use crate::arm::precise;
use crate::results::figures::{ArmFigures, Figures, Spread};
use crate::results::goals::{GoalStatus, statuses};
use crate::results::report::short;
use crate::results::svg::{Axis, Scale, Series, bars, escaped, lines};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .3em .6em; border-bottom: 1px solid #ddd; }
th { text-align: left; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
small { color: #666; } .void, .missed { color: #b02a1a; } .reached { color: #2c6e3f; }
svg { max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
";

/// The whole page. `env` describes the machine, one line per element.
#[must_use]
pub fn page(figures: &Figures, rounds: usize, env: &[String]) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    _ = write!(out, "<title>Stampede: benchmark</title><style>{STYLE}</style></head><body>");
    out.push_str("<h1>Stampede beside other designs</h1>");
    _ = write!(
        out,
        "<p>Medians of {rounds} rounds; in parentheses the least and the most. All arms on the same machine, in \
         turn. On another machine the ratios are comparable, the figures are not.</p>"
    );
    out.push_str("<h2>Measured on</h2><ul>");
    for line in env {
        _ = write!(out, "<li>{}</li>", escaped(line));
    }
    out.push_str("</ul>");
    goals(&mut out, figures);
    plots(&mut out, figures);
    arms(&mut out, figures);
    ratios(&mut out, figures);
    out.push_str("</body></html>\n");
    out
}

fn goals(out: &mut String, figures: &Figures) {
    let statuses = statuses(figures);
    if statuses.is_empty() {
        return;
    }
    out.push_str("<h2>Goals</h2><table><tr><th>goal<th class=n>wanted<th class=n>measured<th>");
    for GoalStatus { goal, wanted, value, unit, reached, missed_by } in statuses {
        let verdict = if reached {
            "<td class=reached>reached".to_owned()
        } else {
            format!("<td class=missed>missed by {:.0} %", missed_by * 100.0)
        };
        let value = short(value);
        _ = write!(out, "<tr><td>{goal}<td class=n>{wanted}<td class=n>{value} {unit}{verdict}");
    }
    out.push_str("</table>");
}

fn arms(out: &mut String, figures: &Figures) {
    out.push_str("<h2>Arms</h2><table><tr><th>arm<th class=n>requests<th class=n>requests/s");
    out.push_str("<th class=n>p50 ms<th class=n>p99 ms<th class=n>µs CPU/request");
    for arm in &figures.arms {
        _ = write!(out, "<tr><td>{}<br><small>{}", arm.name, escaped(arm.about));
        let by = arm.cpu_by.iter().map(|(name, used)| format!("{name} {} µs", short(*used)));
        let metrics = arm.metrics.iter().map(|(name, spread)| format!("{name} {}", short(spread.median)));
        let notes: Vec<String> = by.chain(metrics).collect();
        if !notes.is_empty() {
            _ = write!(out, "<br>{}", escaped(&notes.join("; ")));
        }
        out.push_str("</small>");
        if let Some(void) = &arm.void {
            _ = write!(out, "<td colspan=5 class=void>void: {}", escaped(void));
            continue;
        }
        _ = write!(out, "<td class=n>{}", arm.requests);
        for spread in [arm.per_second, arm.p50_ms, arm.p99_ms, arm.cpu_us] {
            _ = write!(out, "<td class=n>{}", cell(spread));
        }
    }
    out.push_str("</table>");
}

fn cell(spread: Option<Spread>) -> String {
    let Some(Spread { median, least, most }) = spread else { return "–".to_owned() };
    let [median, least, most] = [median, least, most].map(short);
    format!("{median}<br><small>({least} … {most})</small>")
}

fn ratios(out: &mut String, figures: &Figures) {
    if figures.ratios.is_empty() {
        return;
    }
    out.push_str("<h2>Ratios within a round</h2><table><tr><th>ratio<th class=n>median<th class=n>spread");
    for (key, Spread { median, least, most }) in &figures.ratios {
        let [median, least, most] = [median, least, most].map(|value| short(*value));
        _ = write!(out, "<tr><td>{key}<td class=n>{median} ×<td class=n>{least} … {most}");
    }
    out.push_str("</table>");
}

fn plots(out: &mut String, figures: &Figures) {
    let mut rates: Vec<(&str, f64)> = figures
        .arms
        .iter()
        .filter(|arm| family(arm.name).is_none())
        .filter_map(|arm| Some((arm.name, arm.per_second?.median)))
        .collect();
    rates.sort_by(|one, other| other.1.total_cmp(&one.1));
    if !rates.is_empty() {
        let plot = bars(&rates, "/s");
        _ = write!(out, "<h2>Throughput by arm</h2><p><small>Logarithmic.</small></p>{plot}");
    }
    for arm in figures.arms.iter().filter(|arm| !arm.curve.is_empty()) {
        let of = |name: &str, figure: fn(&crate::arm::CurvePoint) -> f64| Series {
            name: name.to_owned(),
            points: arm.curve.iter().map(|point| (point.offered, figure(point))).collect(),
        };
        let series = [of("p50", |point| point.p50_ms), of("p99", |point| point.p99_ms)];
        let x = Axis { title: "offered requests/s", scale: Scale::Linear };
        let plot = lines(&series, x, Axis { title: "ms", scale: Scale::Log });
        _ = write!(out, "<h2>Latency against offered load: {}</h2>{plot}", arm.name);
    }
    let rate = |arm: &ArmFigures| arm.per_second.map(|spread| spread.median);
    let cpu = |arm: &ArmFigures| arm.cpu_us.map(|spread| spread.median);
    let linear = |title| Axis { title, scale: Scale::Linear };
    let log = |title| Axis { title, scale: Scale::Log };
    let families = [
        (
            "scaling",
            "Claims per second with workers and partitions",
            linear("workers and partitions"),
            "claims/s",
        ),
        (
            "scaling",
            "CPU per claim with workers and partitions",
            linear("workers and partitions"),
            "µs CPU/claim",
        ),
        ("coupons", "CPU per claim against the number of coupons", log("coupons"), "µs CPU/claim"),
        ("stock", "CPU per claim against the stock of a coupon", log("codes"), "µs CPU/claim"),
    ];
    for (name, title, x, unit) in families {
        let figure: &dyn Fn(&ArmFigures) -> Option<f64> = if unit == "claims/s" { &rate } else { &cpu };
        let points: Vec<(f64, f64)> = figures
            .arms
            .iter()
            .filter_map(|arm| {
                let (of, at) = family(arm.name)?;
                if of == name { Some((precise(at), figure(arm)?)) } else { None }
            })
            .collect();
        if points.len() > 1 {
            let series = [Series { name: name.to_owned(), points }];
            _ = write!(out, "<h2>{title}</h2>{}", lines(&series, x, linear(unit)));
        }
    }
}

/// `scaling-4` is the point 4 of `scaling`.
fn family(arm: &str) -> Option<(&str, u64)> {
    let (family, at) = arm.rsplit_once('-')?;
    Some((family, at.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::{CurvePoint, Sample};
    use crate::arms::ALL;
    use crate::results::figures::Rounds;
    use std::time::Duration;

    #[test]
    fn the_page_shows_every_arm_and_loads_nothing() {
        let sample = Sample {
            requests: 1_000,
            took: Some(Duration::from_secs(1)),
            cpu: vec![("worker", Duration::from_millis(5))],
            curve: vec![CurvePoint { offered: 100.0, per_second: 100.0, p50_ms: 1.0, p99_ms: 3.0 }],
            ..Sample::default()
        };
        let mut round: Vec<_> = ALL.iter().map(|_| Ok(sample.clone())).collect();
        round[1] = Err("counted <3> where 4 should be".to_owned());
        let figures = Figures::of(ALL, &Rounds(vec![round]));
        let page = page(&figures, 1, &["fsync = on & more".to_owned()]);
        for arm in ALL {
            assert!(page.contains(arm.name()), "{}", arm.name());
        }
        assert!(page.contains("fsync = on &amp; more") && page.contains("&lt;3&gt;"));
        assert!(
            page.contains("Latency against offered load") && page.contains("with workers and partitions")
        );
        for from_elsewhere in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
        }
    }
}
