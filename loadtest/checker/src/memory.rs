//! I12 as far as the programs tell it: gauges of what they hold, against the bounds that the design sets.

use std::time::Duration;

use super::report::{Invariant, Report};

/// Gauges and the bound of each. The bounds are those of the default configuration with what one more fetch, or one more
/// request on each connection, may add.
const BOUNDS: [(&str, f64); 3] = [
    ("stampede_backlog_records", 60_000.0),
    ("stampede_outbox_unacknowledged_entries", 64.0),
    ("stampede_api_pending_requests", 55_000.0),
];
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Asks every program. One that does not answer holds nothing; if none does, nothing is known.
pub(super) async fn bounded(probes: &[String], report: &mut Report) {
    if probes.is_empty() {
        return report.not_applicable(Invariant::I12, "no probes");
    }
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().unwrap_or_default();
    let mut silent = Vec::new();
    for probe in probes {
        match metrics_of(&client, probe).await {
            Some(metrics) => hold(probe, &metrics, report),
            None => silent.push(probe.as_str()),
        }
    }
    if silent.len() == probes.len() {
        report.not_applicable(Invariant::I12, "no answer");
        report.unchecked(format!("I12: no program answers at its probe port: {}", silent.join(", ")));
    } else if !silent.is_empty() {
        report.note(format!("no answer from {}: what does not run holds nothing", silent.join(", ")));
    }
}

fn hold(probe: &str, metrics: &str, report: &mut Report) {
    for line in metrics.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let Some((name, bound)) = BOUNDS.iter().find(|(bounded, _)| *bounded == name) else { continue };
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        report.expect(Invariant::I12, value.is_some_and(|value| value <= *bound), || {
            format!("{probe}: {line} ({name} is to stay below {bound})")
        });
    }
}

async fn metrics_of(client: &reqwest::Client, probe: &str) -> Option<String> {
    let answer = client.get(format!("{probe}/metrics")).send().await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_beyond_its_bound_is_seen_and_another_metric_with_a_longer_name_is_not_taken_for_it() {
        let mut report = Report::default();
        let metrics = "# TYPE stampede_backlog_records gauge\n\
                       stampede_backlog_records{partition=\"0\"} 60000\n\
                       stampede_api_pending_requests 3\n\
                       stampede_api_pending_requests_total 1000000\n";
        hold("http://worker", metrics, &mut report);
        assert!(report.is_clean() && report.line(Invariant::I12).checked == 2, "\n{report}");
        hold(
            "http://api",
            "stampede_api_pending_requests 60000\nstampede_outbox_unacknowledged_entries NaN",
            &mut report,
        );
        assert_eq!(report.line(Invariant::I12).violations, 2, "\n{report}");
    }
}
