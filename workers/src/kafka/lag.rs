//! Reports the lag of running partitions: the log's end offset, queried periodically, minus the next offset to decide.

use std::sync::Arc;
use std::time::Duration;

use coupon_core::ids::{Offset, Partition};

use super::inspector::Inspector;
use crate::metrics;

const INTERVAL: Duration = Duration::from_secs(5);

/// Queries all `partitions`, assigned or not, which keeps the inspector ready for any takeover. `running` returns the
/// partitions to report, each with its next offset. Never returns.
pub async fn report(
    inspector: Arc<Inspector>,
    partitions: i32,
    running: impl Fn() -> Vec<(Partition, Offset)> + Send,
) {
    let all: Vec<Partition> = (0..partitions).map(Partition).collect();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running = running();
        if query(&inspector, &all, &running).await {
            continue;
        }
        // One partition without a leader fails the whole query: query the running ones one by one.
        for one in running {
            query(&inspector, &[one.0], &[one]).await;
        }
    }
}

/// Queries end offsets and sets the lag of the running partitions. Returns whether Kafka responded.
async fn query(
    inspector: &Arc<Inspector>,
    partitions: &[Partition],
    running: &[(Partition, Offset)],
) -> bool {
    let (inspector, partitions) = (Arc::clone(inspector), partitions.to_vec());
    match tokio::task::spawn_blocking(move || inspector.end_offsets(&partitions)).await {
        Ok(Ok(ends)) => {
            for (partition, next_offset) in running {
                if let Some(end) = ends.get(partition) {
                    set_lag(*partition, *end, *next_offset);
                }
            }
            return true;
        }
        Ok(Err(error)) => tracing::debug!(%error, "end offsets unavailable"),
        Err(error) => tracing::error!(%error, "query of end offsets panicked"),
    }
    false
}

fn set_lag(partition: Partition, end: Offset, next_offset: Offset) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    let lag = end.0.saturating_sub(next_offset.0).max(0) as f64;
    ::metrics::gauge!(metrics::LAG, "partition" => partition.to_string()).set(lag);
}
