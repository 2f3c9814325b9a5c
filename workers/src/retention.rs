//! Applies the retention from time to time; see [`Retention`].

use std::sync::Arc;
use std::time::Duration;

use coupon_core::ids::{Offset, Partition};

use crate::kafka::inspector::Inspector;
use crate::metrics;
use crate::postgres::retention::Retention;

/// The first round comes soon after the start, so that a worker that is restarted often has rounds, too.
const FIRST_AFTER: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(600);

/// Records which running partitions have decided their whole log, and drops what is due. Never returns.
pub async fn apply(
    retention: Retention,
    inspector: Arc<Inspector>,
    running: impl Fn() -> Vec<(Partition, Offset)> + Send,
) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        record_caught_up(&retention, &inspector, running()).await;
        match retention.apply().await {
            Ok(dropped) if dropped.is_empty() => {}
            Ok(dropped) => {
                ::metrics::counter!(metrics::DAYS_DROPPED).increment(dropped.len() as u64);
                tracing::info!(?dropped, days = retention.days, "dropped outcomes older than the retention");
            }
            Err(error) => tracing::warn!(%error, "retention not applied; it is retried in the next round"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn record_caught_up(
    retention: &Retention,
    inspector: &Arc<Inspector>,
    running: Vec<(Partition, Offset)>,
) {
    let partitions: Vec<Partition> = running.iter().map(|(partition, _)| *partition).collect();
    let reader = Arc::clone(inspector);
    match tokio::task::spawn_blocking(move || reader.end_offsets(&partitions)).await {
        Ok(Ok(ends)) => {
            if let Err(error) = retention.record_caught_up(&running, &ends).await {
                tracing::warn!(%error, "partitions without a backlog not recorded; retried in the next round");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "end offsets unavailable"),
        Err(error) => tracing::error!(%error, "query of end offsets panicked"),
    }
}
