//! Whether a partition makes progress while records wait. A worker with a stalled partition is not ready.
//!
//! Without progress although records wait, something is wrong that no other check reports: a call that never returns, or
//! a mistake of this program. It counts only while Postgres and Kafka respond: an outage stalls every worker, and is an
//! alert of its own. A partition that is being taken over or has stopped is reported as such.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::status::StatusRegistry;

/// How long records may wait without progress. Above the time limit of every single call, and of a few retries.
const LIMIT: Duration = Duration::from_secs(30);
/// Time between two checks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Checks progress until the process ends. `responds` returns whether everything that all partitions depend on responds.
pub async fn watch(statuses: Arc<StatusRegistry>, responds: impl Fn() -> BoxFuture<'static, bool> + Send) {
    let mut responding_since = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if !responds().await {
            responding_since = None;
            statuses.clear_stalled();
            continue;
        }
        let now = Instant::now();
        let since = *responding_since.get_or_insert(now);
        if now.duration_since(since) >= LIMIT {
            statuses.set_stalled(now, LIMIT);
        }
    }
}
