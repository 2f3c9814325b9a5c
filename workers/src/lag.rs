//! Watches how far behind the partitions are: the log's end, asked from time to time, less what is decided.

use std::sync::Arc;
use std::time::Duration;

use coupon_core::ids::{Offset, Partition};

use crate::log::Inspector;
use crate::metrics;
use crate::standing::Standing;

const RHYTHM: Duration = Duration::from_secs(5);

/// Asks about all `partitions`, its own or not: so the inspector is ready to take any of them over. Never ends by
/// itself.
pub async fn watch(inspector: Arc<Inspector>, standing: Arc<Standing>, partitions: i32) {
    let all: Arc<[Partition]> = (0..partitions).map(Partition).collect();
    let mut ticks = tokio::time::interval(RHYTHM);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running = standing.running();
        let (inspector, all) = (Arc::clone(&inspector), Arc::clone(&all));
        match tokio::task::spawn_blocking(move || inspector.ends(&all)).await {
            Ok(Ok(ends)) => {
                for (partition, decided) in running {
                    if let Some(end) = ends.get(&partition) {
                        tell(partition, *end, decided);
                    }
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "the log's end is not known"),
            Err(error) => tracing::error!(%error, "asking for the log's end panicked"),
        }
    }
}

fn tell(partition: Partition, end: Offset, decided: Offset) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    let lag = end.0.saturating_sub(decided.0).max(0) as f64;
    ::metrics::gauge!(metrics::LAG, "partition" => partition.to_string()).set(lag);
}
