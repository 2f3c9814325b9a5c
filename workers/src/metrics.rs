//! The metrics of a worker: names, units and labels, and handles that are looked up once.
//!
//! Labels are bounded: partitions, outcomes, stages. A coupon, user or request id is never a label.

use coupon_core::batch::{Batch, Verdict};
use coupon_core::ids::{Millis, Partition};
use coupon_core::words::{Kind, Reason};
use metrics::{Counter, Gauge, Histogram};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Records decided by one write to the ledger. Histogram; label `partition`.
pub const BATCH_RECORDS: &str = "stampede_batch_records";
/// Duration of one stage of a batch, in seconds. Histogram; labels `partition`, `stage` (`lookup`, `reserve`, `write`,
/// `publish`).
pub const STAGE_SECONDS: &str = "stampede_batch_stage_seconds";
/// Final outcomes, counted when durable. Counter; label `outcome` (`claimed`; the kind of any other accepted request,
/// such as `redeem`; or the reason of a rejection).
pub const DECISIONS: &str = "stampede_decisions_total";
/// Stored outcomes published again, because their request is a duplicate. Counter.
pub const DUPLICATES: &str = "stampede_duplicates_total";
/// Events of coupons, counted when durable. Counter; label `kind` (`hold_lapsed`,
/// `lock_lapsed`, `sold_out`, `restocked`).
pub const EVENTS: &str = "stampede_events_total";
/// Ticks appended because a deadline was due by monotonic time. Counter.
pub const TICKS: &str = "stampede_ticks_total";
/// Records that became dead letters. Counter; label `reason`.
pub const DEAD_LETTERS: &str = "stampede_dead_letters_total";
/// Calls of the ledger's write function. Counter; label `result`.
pub const WRITES: &str = "stampede_writes_total";
/// Reads that failed and were retried. Counter; label `what`.
pub const READ_FAILURES: &str = "stampede_read_failures_total";
/// Pops and refills with an unknown result. Counter; label `call` (`pop`, `refill`).
pub const REDIS_FAILURES: &str = "stampede_redis_failures_total";
/// Records in the log that are not decided yet. Gauge; label `partition`.
pub const LAG: &str = "stampede_lag_records";
/// Records fetched and not decided yet. Gauge; label `partition`.
pub const BACKLOG: &str = "stampede_backlog_records";
/// Outbox entries that the broker has not acknowledged. Gauge; label `partition`.
pub const OUTBOX_UNACKNOWLEDGED: &str = "stampede_outbox_unacknowledged_entries";
/// Seconds by which a partition's time was ahead of this machine's clock when its last batch became durable
/// (negative: behind, by a backlog or by the duration of the batch). Gauge; label `partition`.
pub const TIME_AHEAD: &str = "stampede_partition_time_ahead_seconds";
/// The epoch of this worker's ownership. Gauge; label `partition`.
pub const EPOCH: &str = "stampede_partition_epoch";
/// Seconds from an assignment until the first record can be decided. Histogram.
pub const TAKEOVER_SECONDS: &str = "stampede_takeover_seconds";
/// Partitions that are running on this worker. Gauge.
pub const PARTITIONS_RUNNING: &str = "stampede_partitions_running";
/// Partitions that wait for an operator. Gauge; anything but 0 is an alert.
pub const PARTITIONS_STOPPED: &str = "stampede_partitions_stopped";
/// Running partitions that wait until Postgres' clock has caught up with an append time. Gauge; anything but 0 is an alert.
pub const PARTITIONS_WAITING: &str = "stampede_partitions_waiting";
/// Running partitions whose records wait without progress, although Postgres and Kafka respond. Gauge; anything but 0 is an
/// alert.
pub const PARTITIONS_STALLED: &str = "stampede_partitions_stalled";
/// Ownerships that ended because another owner has taken over. Counter.
pub const FENCED: &str = "stampede_fenced_total";
/// Outbox entries published again because a delivery failed. Counter.
pub const PUBLISH_RETRIES: &str = "stampede_publish_retries_total";
/// Days of outcomes dropped at the end of their retention. Counter.
pub const DAYS_DROPPED: &str = "stampede_days_dropped_total";
/// Errors reported by Kafka clients. Counter; label `client` (`reader`, `membership`, `producer`).
pub const KAFKA_ERRORS: &str = "stampede_kafka_errors_total";

/// The handles of one partition.
#[derive(Clone)]
pub struct PartitionMetrics {
    batch_records: Histogram,
    lookup: Histogram,
    reserve: Histogram,
    write: Histogram,
    publish: Histogram,
    claimed: Counter,
    changed: Vec<Counter>,
    rejected: Vec<Counter>,
    duplicates: Counter,
    backlog: Gauge,
    unacknowledged: Gauge,
    epoch: Gauge,
    time_ahead: Gauge,
    takeover: Histogram,
}

/// A stage of a batch that waits for I/O.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Reading from the ledger.
    Lookup,
    /// Popping and reading codes.
    Reserve,
    /// Writing to the ledger.
    Write,
    /// Publishing, until the broker has acknowledged everything.
    Publish,
}

impl PartitionMetrics {
    /// Looks up the handles of a partition.
    #[must_use]
    pub fn of(partition: Partition) -> Self {
        let partition = partition.to_string();
        let stage = |stage: &'static str| metrics::histogram!(STAGE_SECONDS, "partition" => partition.clone(), "stage" => stage);
        Self {
            batch_records: metrics::histogram!(BATCH_RECORDS, "partition" => partition.clone()),
            lookup: stage("lookup"),
            reserve: stage("reserve"),
            write: stage("write"),
            publish: stage("publish"),
            claimed: metrics::counter!(DECISIONS, "outcome" => "claimed"),
            changed: Kind::ALL
                .iter()
                .map(|kind| metrics::counter!(DECISIONS, "outcome" => kind.as_str()))
                .collect(),
            rejected: Reason::ALL
                .iter()
                .map(|reason| metrics::counter!(DECISIONS, "outcome" => reason.as_str()))
                .collect(),
            duplicates: metrics::counter!(DUPLICATES),
            backlog: metrics::gauge!(BACKLOG, "partition" => partition.clone()),
            unacknowledged: metrics::gauge!(OUTBOX_UNACKNOWLEDGED, "partition" => partition.clone()),
            epoch: metrics::gauge!(EPOCH, "partition" => partition.clone()),
            time_ahead: metrics::gauge!(TIME_AHEAD, "partition" => partition),
            takeover: metrics::histogram!(TAKEOVER_SECONDS),
        }
    }

    /// Records the duration of a stage.
    pub fn stage(&self, stage: Stage, took: Duration) {
        let histogram = match stage {
            Stage::Lookup => &self.lookup,
            Stage::Reserve => &self.reserve,
            Stage::Write => &self.write,
            Stage::Publish => &self.publish,
        };
        histogram.record(took);
    }

    /// A batch is durable.
    pub fn durable(&self, batch: &Batch) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has a few thousand records at most")]
        self.batch_records.record((batch.decisions.len() + batch.duplicates.len()) as f64);
        let mut claimed = 0;
        let mut changed = [0_u64; Kind::ALL.len()];
        let mut rejected = [0_u64; Reason::ALL.len()];
        for decision in &batch.decisions {
            match decision.verdict {
                Verdict::Claimed { .. } => claimed += 1,
                Verdict::Changed(_) => changed[decision.request.kind as usize] += 1,
                Verdict::Rejected(reason) => rejected[reason as usize] += 1,
            }
        }
        self.claimed.increment(claimed);
        let others = self.changed.iter().zip(changed).chain(self.rejected.iter().zip(rejected));
        for (counter, count) in others {
            if count > 0 {
                counter.increment(count);
            }
        }
        self.duplicates.increment(batch.duplicates.len() as u64);
        self.time_ahead.set(seconds_ahead(batch.position.time, SystemTime::now()));
        for event in &batch.events {
            metrics::counter!(EVENTS, "kind" => event.kind.as_str()).increment(1);
        }
        for (_, letter) in &batch.dead_letters {
            metrics::counter!(DEAD_LETTERS, "reason" => letter.reason).increment(1);
        }
    }

    /// Sets the gauges of the machine.
    pub fn status(&self, status: &coupon_core::machine::Status) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
        {
            self.backlog.set(status.backlog as f64);
            self.unacknowledged.set(status.unacknowledged as f64);
            self.epoch.set(status.epoch.0 as f64);
        }
    }

    /// Records how long after its assignment the partition was taken over.
    pub fn taken_over(&self, after: Duration) {
        self.takeover.record(after);
    }
}

fn seconds_ahead(time: Millis, now: SystemTime) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^52")]
    let time = time.0 as f64 / 1000.0;
    time - now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_whose_broker_runs_an_hour_early_is_an_hour_ahead() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!((seconds_ahead(Millis(1_003_600_000), now) - 3600.0).abs() < 1e-6);
        assert!(seconds_ahead(Millis(999_000_000), now) < 0.0);
    }
}
