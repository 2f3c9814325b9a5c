//! The result of a run, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::Settings;
use super::environment::Environment;
use super::injector::Injected;
use super::scenarios::Scenario;
use checker::Report;

/// A span of time and the outcomes in it.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its length in seconds.
    pub seconds: f64,
    /// Requests of the load that got their outcome in it.
    pub decided: u64,
}

impl Span {
    fn per_second(self) -> Option<f64> {
        (self.seconds >= 1.0).then(|| round(self.decided as f64 / self.seconds))
    }
}

/// The figures of a run. Serialised, they are what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Replays the plan.
    pub seed: u64,
    /// How often each scenario was injected.
    pub scenarios: BTreeMap<&'static str, u64>,
    /// Scenarios that were never injected.
    pub scenarios_skipped: usize,
    /// The reason, by scenario.
    pub skipped: BTreeMap<&'static str, String>,
    /// Injections in all.
    pub faults_injected: u64,
    /// Requests of clients, retries not counted.
    pub requests: u64,
    /// Requests without a final outcome: accepted ones, and repeatable ones that were never accepted.
    pub unresolved: u64,
    /// Violations of invariants, and responses that the interface does not allow.
    pub violations: u64,
    /// By scenario, the longest time until a claim in every partition had an outcome again.
    pub recovery_seconds: BTreeMap<&'static str, f64>,
    /// Outcomes per second with faults, as a share of those without; `None` if there was no time without faults.
    pub throughput_kept: Option<f64>,
    /// Outcomes per second without faults.
    pub calm_per_second: Option<f64>,
    /// Outcomes per second with faults.
    pub fire_per_second: Option<f64>,
    /// Users that were not started because too many were active.
    pub users_shed: u64,
    /// The first complaints of clients.
    pub complaints: Vec<String>,
    #[serde(skip)]
    report: Report,
}

impl Verdict {
    pub(super) fn new(
        settings: &Settings,
        env: &Environment,
        injected: Injected,
        report: Report,
        [calm, fire]: [Span; 2],
    ) -> Self {
        let (complained, complaints) = env.stats.complaints();
        let broken: u64 = report.lines.iter().map(|line| line.violations).sum();
        let (calm, fire) = (calm.per_second(), fire.per_second());
        let kept = calm.zip(fire).filter(|(calm, _)| *calm > 0.0).map(|(calm, fire)| round(fire / calm));
        let Injected { times, skipped, recovery_seconds } = injected;
        Self {
            seed: settings.seed,
            faults_injected: times.values().sum(),
            scenarios: times,
            scenarios_skipped: skipped.len(),
            skipped,
            requests: env.history.len() as u64,
            unresolved: report.unresolved + env.stats.unanswered(),
            violations: broken + complained,
            recovery_seconds: recovery_seconds.into_iter().map(|(name, time)| (name, round(time))).collect(),
            throughput_kept: kept,
            calm_per_second: calm,
            fire_per_second: fire,
            users_shed: env.stats.users_shed(),
            complaints,
            report,
        }
    }

    /// Whether no invariant is violated and every request has an outcome.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.violations == 0 && self.unresolved == 0
    }

    /// The checker's report.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<24} {:>8} {:>18}", "scenario", "injected", "longest recovery")?;
        for (name, times) in &self.scenarios {
            match (self.recovery_seconds.get(name), self.skipped.get(name)) {
                (_, Some(why)) => writeln!(f, "{name:<24} {times:>8} {:>18}", format!("skipped: {why}"))?,
                (Some(longest), _) => writeln!(f, "{name:<24} {times:>8} {longest:>16.2} s")?,
                (None, None) => writeln!(f, "{name:<24} {times:>8} {:>18}", "-")?,
            }
        }
        writeln!(f, "\n{}\n", self.report)?;
        for complaint in &self.complaints {
            writeln!(f, "complaint: {complaint}")?;
        }
        let Self { faults_injected, requests, violations, unresolved, users_shed, seed, .. } = self;
        let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        writeln!(
            f,
            "{faults_injected} faults, {requests} requests, {users_shed} users not started because too many were active"
        )?;
        writeln!(
            f,
            "outcomes per second: {} without faults, {} with faults ({} kept)",
            rate(self.calm_per_second),
            rate(self.fire_per_second),
            self.throughput_kept.map_or_else(|| "-".to_owned(), |kept| format!("{:.0} %", kept * 100.0)),
        )?;
        write!(f, "violations {violations}, unresolved {unresolved}; seed {seed}")
    }
}

/// The list of scenarios as text.
#[must_use]
pub fn list(scenarios: &[Scenario]) -> String {
    let mut text = String::new();
    for Scenario { name, faults, needs, .. } in scenarios {
        let faults: Vec<String> = faults.iter().map(u8::to_string).collect();
        let needs: Vec<String> = needs.iter().map(|need| format!("{need:?}")).collect();
        let needs = if needs.is_empty() { String::new() } else { format!("needs {}", needs.join(", ")) };
        writeln!(text, "{name:<24} faults {:<12} {needs}", faults.join(", ")).unwrap_or_default();
    }
    text
}

/// To thousandths: further digits are noise.
fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
