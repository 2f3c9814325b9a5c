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
    let all: Vec<Partition> = (0..partitions).map(Partition).collect();
    let mut ticks = tokio::time::interval(RHYTHM);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let running = standing.running();
        if ask(&inspector, &all, &running).await {
            continue;
        }
        // One without a leader: the others can be asked by themselves.
        for one in running {
            ask(&inspector, &[one.0], &[one]).await;
        }
    }
}

/// Asks for the ends of partitions, and tells the lag of those that are running. Answers whether Kafka did.
async fn ask(inspector: &Arc<Inspector>, partitions: &[Partition], running: &[(Partition, Offset)]) -> bool {
    let (inspector, partitions) = (Arc::clone(inspector), partitions.to_vec());
    match tokio::task::spawn_blocking(move || inspector.ends(&partitions)).await {
        Ok(Ok(ends)) => {
            for (partition, decided) in running {
                if let Some(end) = ends.get(partition) {
                    tell(*partition, *end, *decided);
                }
            }
            return true;
        }
        Ok(Err(error)) => tracing::debug!(%error, "the log's end is not known"),
        Err(error) => tracing::error!(%error, "asking for the log's end panicked"),
    }
    false
}

fn tell(partition: Partition, end: Offset, decided: Offset) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    let lag = end.0.saturating_sub(decided.0).max(0) as f64;
    ::metrics::gauge!(metrics::LAG, "partition" => partition.to_string()).set(lag);
}
