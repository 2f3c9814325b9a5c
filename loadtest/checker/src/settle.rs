//! Whether a stack has work left, and how to wait until it has none.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use schemas::topics::REQUESTS;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::config::CheckConfig;
use crate::error::CheckError;
use crate::kafka::Kafka;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A claim that lapses within this time is work left: it could lapse during the check of a settled stack.
const DUE_WITHIN: Duration = Duration::from_secs(3);

/// The state of a stack after some time to settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StackState {
    /// No work is left.
    Settled {
        /// The end of the log, by partition. As long as the log still ends there, no request has arrived since.
        end_offsets: BTreeMap<i32, i64>,
    },
    /// Work is left, and is being done.
    Busy {
        /// A description of the work.
        remaining: String,
    },
    /// Work is left, and some of it made no progress in all this time.
    Stalled {
        /// A description of that work.
        remaining: String,
    },
}

/// Waits until every record of `coupon.requests` is consumed, every outbox entry is acknowledged, and no claim is about
/// to lapse. Records that are produced during the wait count as well, so producers must have stopped.
///
/// # Errors
/// When the stack is not settled, or cannot be read, at the end of `limit`.
pub async fn settle(config: &CheckConfig, limit: Duration) -> Result<(), CheckError> {
    let started = Instant::now();
    loop {
        let backlog = Backlog::read(config).await.map(|backlog| backlog.remaining());
        match backlog {
            Ok(None) => return Ok(()),
            _ if started.elapsed() < limit => sleep(POLL_INTERVAL).await,
            Ok(Some(remaining)) => return Err(CheckError::NotSettled { waited: limit, remaining }),
            Err(error) => return Err(error),
        }
    }
}

/// Waits up to `limit` until the stack is settled, and returns its state then.
///
/// # Errors
/// When the stack cannot be read.
pub(crate) async fn stack_state(config: &CheckConfig, limit: Duration) -> Result<StackState, CheckError> {
    let started = Instant::now();
    let first = Backlog::read(config).await?;
    let mut backlog = first.clone();
    while let Some(remaining) = backlog.remaining() {
        if started.elapsed() >= limit {
            return Ok(match backlog.stalled_since(&first) {
                Some(remaining) => StackState::Stalled { remaining },
                None => StackState::Busy { remaining },
            });
        }
        sleep(POLL_INTERVAL).await;
        backlog = Backlog::read(config).await?;
    }
    Ok(StackState::Settled { end_offsets: backlog.end_offsets })
}

/// The end of the log, by partition.
///
/// # Errors
/// When Kafka cannot be read.
pub(crate) async fn end_offsets(config: &CheckConfig) -> Result<BTreeMap<i32, i64>, CheckError> {
    let kafka = Kafka::new(&config.kafka);
    let [ranges] = spawn_blocking(move || kafka.ranges([REQUESTS])).await??;
    Ok(ranges.into_iter().map(|(partition, range)| (partition, range.end)).collect())
}

/// By partition: the position of a consumer or publisher, and a second number.
type Positions = BTreeMap<i32, (i64, i64)>;

/// The work left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Backlog {
    end_offsets: BTreeMap<i32, i64>,
    /// Partitions with unconsumed records: the next offset, and the end of the log.
    unconsumed: Positions,
    /// Partitions with unacknowledged outbox entries: the last acknowledged entry, and the number of entries after it.
    unpublished: Positions,
    /// Claims that lapse soon.
    due: i64,
}

impl Backlog {
    async fn read(config: &CheckConfig) -> Result<Self, CheckError> {
        let kafka = Kafka::new(&config.kafka);
        let [ranges] = spawn_blocking(move || kafka.ranges([REQUESTS])).await??;
        let mut connection = PgConnection::connect(&config.postgres_url).await?;
        let sql = "select partition, next_offset, emitted_seq, next_emit_seq - 1 - emitted_seq from stampede.partitions";
        let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
        let soon = i64::try_from(DUE_WITHIN.as_millis()).unwrap_or(0);
        let sql = "select count(*) from stampede.claims
                    where deadline_ms < (extract(epoch from clock_timestamp()) * 1000)::bigint + $1";
        let due: i64 = sqlx::query_scalar(sql).bind(soon).fetch_one(&mut connection).await?;
        connection.close().await?;
        let end_offsets = ranges.iter().map(|(partition, range)| (*partition, range.end)).collect();
        let records = ranges.iter().filter(|(_, range)| range.start < range.end);
        let unconsumed = records.map(|(partition, range)| (*partition, (range.start, range.end))).collect();
        let mut backlog = Self { end_offsets, unconsumed, due, ..Self::default() };
        for row in rows {
            let (partition, next_offset): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
            let (published, unpublished): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            if let Some((next, _)) = backlog.unconsumed.get_mut(&partition) {
                *next = next_offset;
            }
            if unpublished > 0 {
                backlog.unpublished.insert(partition, (published, unpublished));
            }
        }
        backlog.unconsumed.retain(|_, (next, end)| next < end);
        Ok(backlog)
    }

    /// Describes one part of the work left.
    fn remaining(&self) -> Option<String> {
        if let Some((partition, (_, count))) = self.unpublished.first_key_value() {
            return Some(format!("partition {partition} has {count} unpublished outbox entries"));
        }
        if let Some((partition, (_, end))) = self.unconsumed.first_key_value() {
            return Some(format!("partition {partition} has unconsumed records up to offset {end}"));
        }
        (self.due > 0).then(|| format!("{} claims are about to lapse", self.due))
    }

    /// Describes one part of the work that made no progress since an earlier reading.
    fn stalled_since(&self, earlier: &Self) -> Option<String> {
        let stalled = |now: &Positions, then: &Positions| {
            let is_same = |(partition, (position, _)): &(&i32, &(i64, i64))| {
                then.get(partition).is_some_and(|(before, _)| before == position)
            };
            now.iter().find(is_same).map(|(partition, (position, _))| (*partition, *position))
        };
        if let Some((partition, position)) = stalled(&self.unconsumed, &earlier.unconsumed) {
            return Some(format!(
                "partition {partition} has unconsumed records and stays at offset {position}"
            ));
        }
        let (partition, position) = stalled(&self.unpublished, &earlier.unpublished)?;
        Some(format!("partition {partition} has unpublished outbox entries and stays at entry {position}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_does_not_change_is_stalled_and_new_records_are_not() {
        let backlog = |unconsumed: &[(i32, (i64, i64))]| Backlog {
            unconsumed: unconsumed.iter().copied().collect(),
            ..Backlog::default()
        };
        let (before, moved) = (backlog(&[(0, (5, 9))]), backlog(&[(0, (6, 20)), (1, (0, 3))]));
        assert!(moved.remaining().is_some_and(|remaining| remaining.contains("up to offset 20")));
        assert_eq!(moved.stalled_since(&before), None);
        let stalled = backlog(&[(0, (5, 30))]).stalled_since(&before);
        assert_eq!(stalled.as_deref(), Some("partition 0 has unconsumed records and stays at offset 5"));
        assert_eq!(backlog(&[]).remaining(), None);
    }
}
