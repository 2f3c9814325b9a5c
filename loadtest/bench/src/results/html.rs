//! The report as one page: figures, plots, goals, and what it was measured on. It loads nothing from anywhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::arm::{CurvePoint, precise};
use crate::results::figures::{ArmFigures, Figures, Spread};
use crate::results::goals::statuses;
use crate::results::plot::{self, Axis, Bar, PlotError, Scale, Series};
use crate::results::report::short;

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .3em .6em; border-bottom: 1px solid #8885; }
th { text-align: left; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
small { opacity: .75; } .void, .missed { color: #d1442f; } .reached { color: #2f8f4e; }
svg { max-width: 100%; height: auto; }
";

/// The whole page. `env` describes the machine, one line per element.
#[must_use]
pub fn page(figures: &Figures, rounds: usize, env: &[String]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Stampede: benchmark" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Stampede beside other designs" }
                p {
                    "Medians of " (rounds) " rounds; in parentheses the least and the most. All arms on the same machine, \
                     in turn. On another machine the ratios are comparable, the figures are not."
                }
                h2 { "Measured on" }
                ul { @for line in env { li { (line) } } }
                (goals(figures))
                (throughput(figures))
                @for arm in figures.arms.iter().filter(|arm| !arm.curve.is_empty()) { (curve(arm)) }
                (families(figures))
                (arms(figures))
                (ratios(figures))
            }
        }
    };
    page.into_string()
}

fn goals(figures: &Figures) -> Markup {
    let statuses = statuses(figures);
    html! {
        @if !statuses.is_empty() {
            h2 { "Goals" }
            table {
                tr { th { "goal" } th.n { "wanted" } th.n { "measured" } th {} }
                @for status in &statuses {
                    tr {
                        td { (status.goal) }
                        td.n { (status.wanted) }
                        td.n { (short(status.value)) " " (status.unit) }
                        @if status.reached {
                            td.reached { "reached" }
                        } @else {
                            td.missed { "missed by " (format!("{:.0}", status.missed_by * 100.0)) " %" }
                        }
                    }
                }
            }
        }
    }
}

fn arms(figures: &Figures) -> Markup {
    let heads = ["requests", "requests/s", "p50 ms", "p99 ms", "µs CPU/request"];
    html! {
        h2 { "Arms" }
        table {
            tr { th { "arm" } @for head in heads { th.n { (head) } } }
            @for arm in &figures.arms {
                tr {
                    td { (arm.name) br; small { (arm.about) (notes(arm)) } }
                    @if let Some(void) = &arm.void {
                        td.void colspan=(heads.len()) { "void: " (void) }
                    } @else {
                        td.n { (arm.requests) }
                        @for spread in [arm.per_second, arm.p50_ms, arm.p99_ms, arm.cpu_us] { td.n { (cell(spread)) } }
                    }
                }
            }
        }
    }
}

/// CPU by program, and what else was seen.
fn notes(arm: &ArmFigures) -> Markup {
    let by = arm.cpu_by.iter().map(|(name, used)| format!("{name} {} µs", short(*used)));
    let metrics = arm.metrics.iter().map(|(name, spread)| format!("{name} {}", short(spread.median)));
    let notes: Vec<String> = by.chain(metrics).collect();
    html! { @if !notes.is_empty() { br; (notes.join("; ")) } }
}

fn cell(spread: Option<Spread>) -> Markup {
    html! {
        @match spread {
            Some(Spread { median, least, most }) => {
                (short(median)) br; small { "(" (short(least)) " … " (short(most)) ")" }
            }
            None => "–",
        }
    }
}

fn ratios(figures: &Figures) -> Markup {
    html! {
        @if !figures.ratios.is_empty() {
            h2 { "Ratios within a round" }
            table {
                tr { th { "ratio" } th.n { "median" } th.n { "spread" } }
                @for (key, Spread { median, least, most }) in &figures.ratios {
                    tr { td { (key) } td.n { (short(*median)) " ×" } td.n { (short(*least)) " … " (short(*most)) } }
                }
            }
        }
    }
}

fn throughput(figures: &Figures) -> Markup {
    let single = figures.arms.iter().filter(|arm| family(arm.name).is_none());
    let bar =
        |arm: &ArmFigures| Some(Bar { name: arm.name, value: arm.per_second?.median, highlighted: true });
    let mut bars: Vec<Bar<'_>> = single.filter_map(bar).collect();
    bars.sort_by(|one, other| other.value.total_cmp(&one.value));
    html! {
        @if !bars.is_empty() {
            h2 { "Throughput by arm" }
            (drawn(plot::bars("requests per second (logarithmic scale)", &bars)))
        }
    }
}

fn curve(arm: &ArmFigures) -> Markup {
    let series = |name, figure: fn(&CurvePoint) -> f64| Series {
        name,
        points: arm.curve.iter().map(|point| (point.offered, figure(point))).collect(),
    };
    let series = [series("p50", |point| point.p50_ms), series("p99", |point| point.p99_ms)];
    let x = Axis { title: "offered requests/s", scale: Scale::Linear };
    html! {
        h2 { "Latency against offered load: " (arm.name) }
        (drawn(plot::lines(&series, x, Axis { title: "ms", scale: Scale::Log })))
        table {
            tr { @for head in ["offered requests/s", "responses/s", "p50 ms", "p99 ms"] { th.n { (head) } } }
            @for CurvePoint { offered, per_second, p50_ms, p99_ms } in &arm.curve {
                tr { @for figure in [offered, per_second, p50_ms, p99_ms] { td.n { (short(*figure)) } } }
            }
        }
    }
}

/// Arms that differ in a number only, as points of a line.
fn families(figures: &Figures) -> Markup {
    let rate = |arm: &ArmFigures| arm.per_second.map(|spread| spread.median);
    let cpu = |arm: &ArmFigures| arm.cpu_us.map(|spread| spread.median);
    let linear = |title| Axis { title, scale: Scale::Linear };
    let log = |title| Axis { title, scale: Scale::Log };
    let workers = linear("workers and partitions");
    let line = |name: &'static str, figure: &dyn Fn(&ArmFigures) -> Option<f64>, title: &str, x, y| {
        let point = |arm: &ArmFigures| {
            let (of, at) = family(arm.name)?;
            if of == name { Some((precise(at), figure(arm)?)) } else { None }
        };
        let points: Vec<(f64, f64)> = figures.arms.iter().filter_map(point).collect();
        html! {
            @if points.len() > 1 {
                h2 { (title) }
                (drawn(plot::lines(&[Series { name, points }], x, linear(y))))
            }
        }
    };
    html! {
        (line("scaling", &rate, "Claims per second with workers and partitions", workers, "claims/s"))
        (line("scaling", &cpu, "CPU per claim with workers and partitions", workers, "µs CPU/claim"))
        (line("coupons", &cpu, "CPU per claim against the number of coupons", log("coupons"), "µs CPU/claim"))
        (line("stock", &cpu, "CPU per claim against the stock of a coupon", log("codes"), "µs CPU/claim"))
    }
}

/// A plot, or why there is none: the figures are worth more than their plot.
fn drawn(plot: Result<String, PlotError>) -> Markup {
    match plot {
        Ok(svg) => PreEscaped(svg),
        Err(error) => html! { p.void { (error) } },
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
