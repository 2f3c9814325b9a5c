//! Logs to standard error, and metrics for Prometheus. Initialised once, at the beginning of `main`.

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::config::{LogFormat, TelemetryArgs};

/// From 0.25 ms, the latency of a single claim without load, to 30 s, after which every client has timed out.
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2,
    0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];
/// Batch sizes.
const COUNTS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 50_000.0];
/// Without upkeep, histograms grow until the next scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// Telemetry cannot be initialised.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The log filter is invalid.
    #[error("STAMPEDE_LOG is invalid: {0}; expected a level or directives, such as `info,workers=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was initialised before.
    #[error("logging is initialised already: {0}")]
    Logging(#[from] TryInitError),
    /// The metrics recorder was installed before, or its buckets are invalid.
    #[error("the metrics recorder cannot be installed: {0}")]
    Metrics(#[from] BuildError),
}

/// Installs logging and the metrics recorder. Histograms whose names end in `_seconds` get buckets of
/// seconds, those that end in `_records` buckets of counts. [`upkeep`] must run alongside (`probes::serve` runs it).
///
/// # Errors
/// [`TelemetryError`], in one line with the remedy.
pub fn init(args: &TelemetryArgs) -> Result<PrometheusHandle, TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&args.log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => subscriber.finish().try_init()?,
        LogFormat::Json => subscriber.json().flatten_event(true).finish().try_init()?,
    }
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), COUNTS)?
        .install_recorder()?)
}

/// Keeps the recorder's memory bounded between scrapes. Never returns.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
