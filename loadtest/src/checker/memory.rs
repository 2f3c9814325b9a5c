//! I12 as far as the programs tell it: gauges of what they hold, against the bounds that the design sets.

use super::report::{Invariant, Report};

/// Gauges, the bound of each, and the unit. The bounds are those of the default configuration with what one more
/// fetch may add.
const BOUNDS: [(&str, f64); 2] =
    [("stampede_backlog_records", 60_000.0), ("stampede_outbox_unacknowledged_entries", 64.0)];

/// Asks every program. One that does not answer holds nothing.
pub(super) async fn bounded(probes: &[String], report: &mut Report) {
    if probes.is_empty() {
        return report.not_applicable(Invariant::I12, "no probes given");
    }
    let mut asked = 0;
    for probe in probes {
        let Some(metrics) = metrics_of(probe).await else { continue };
        asked += 1;
        for line in metrics.lines() {
            let Some((name, bound)) = BOUNDS.iter().find(|(name, _)| line.starts_with(name)) else {
                continue;
            };
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            report.expect(Invariant::I12, value.is_some_and(|value| value <= *bound), || {
                format!("{probe}: {line} ({name} is to stay below {bound})")
            });
        }
    }
    if asked == 0 {
        report.not_applicable(Invariant::I12, "no probe answers");
    }
}

async fn metrics_of(probe: &str) -> Option<String> {
    let answer = reqwest::get(format!("{probe}/metrics")).await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}
