//! I12: the gauges of the programs stay below the bounds that the design sets.

use std::time::Duration;

use crate::report::{Invariant, Report};

/// Gauges, each with its bound: the limit of the default configuration, plus what one more fetch, or one more request on
/// each connection, may add.
const BOUNDS: [(&str, f64); 3] = [
    ("stampede_backlog_records", 60_000.0),
    ("stampede_outbox_unacknowledged_entries", 64.0),
    ("stampede_api_pending_requests", 55_000.0),
];
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the metrics of every program. A program that does not respond does not run, and uses no memory; if none
/// responds, the invariant is not checked.
pub(crate) async fn check_gauges(probes: &[String], report: &mut Report) {
    if probes.is_empty() {
        return report.not_applicable(Invariant::I12, "no probes");
    }
    let client = reqwest::Client::builder().timeout(RESPONSE_TIMEOUT).build().unwrap_or_default();
    let mut silent = Vec::new();
    for probe in probes {
        match metrics_of(&client, probe).await {
            Some(metrics) => check_metrics(probe, &metrics, report),
            None => silent.push(probe.as_str()),
        }
    }
    if silent.len() == probes.len() {
        report.not_applicable(Invariant::I12, "no reply");
        report.unchecked(format!("I12: no probe port responds: {}", silent.join(", ")));
    } else if !silent.is_empty() {
        report.note(format!("no response from {}: taken as not running", silent.join(", ")));
    }
}

fn check_metrics(probe: &str, metrics: &str, report: &mut Report) {
    for line in metrics.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let Some((name, bound)) = BOUNDS.iter().find(|(bounded, _)| *bounded == name) else { continue };
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        report.expect(Invariant::I12, value.is_some_and(|value| value <= *bound), || {
            format!("{probe}: {line} ({name} must stay below {bound})")
        });
    }
}

async fn metrics_of(client: &reqwest::Client, probe: &str) -> Option<String> {
    let response = client.get(format!("{probe}/metrics")).send().await.ok()?;
    response.error_for_status().ok()?.text().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_above_its_bound_is_a_violation_and_a_metric_with_a_longer_name_is_ignored() {
        let mut report = Report::default();
        let metrics = "# TYPE stampede_backlog_records gauge\n\
                       stampede_backlog_records{partition=\"0\"} 60000\n\
                       stampede_api_pending_requests 3\n\
                       stampede_api_pending_requests_total 1000000\n";
        check_metrics("http://worker", metrics, &mut report);
        assert!(report.is_clean() && report.line(Invariant::I12).checked == 2, "\n{report}");
        let metrics = "stampede_api_pending_requests 60000\nstampede_outbox_unacknowledged_entries NaN";
        check_metrics("http://api", metrics, &mut report);
        assert_eq!(report.line(Invariant::I12).violations, 2, "\n{report}");
    }
}
