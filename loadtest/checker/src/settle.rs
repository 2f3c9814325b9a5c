//! Whether a stack has anything left to do, and waiting until it has not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use schemas::topics::REQUESTS;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::spawn_blocking;

use super::topics::Kafka;
use super::{CheckConfig, CheckError};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Nothing lapses while a check of a settled stack is made, if nothing does within this time.
const NOTHING_LAPSES_WITHIN: Duration = Duration::from_secs(3);

/// How a stack was found that was given some time to come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It has nothing left to do.
    Resting {
        /// Where the log ended then, by partition: if it ends there still, nothing has come since.
        ends: BTreeMap<i32, i64>,
    },
    /// It has, and does it.
    AtWork {
        /// What, for people.
        left: String,
    },
    /// It has, and in all this time nothing of it was done.
    Stuck {
        /// What, for people.
        left: String,
    },
}

/// Waits until every record of `coupon.requests` is consumed and every outbox entry acknowledged, and what is to lapse
/// within a few seconds has lapsed. What is produced meanwhile is waited for too, so nobody should.
///
/// # Errors
/// When it is not so within `limit`, or cannot be told at the end of it.
pub async fn settle(config: &CheckConfig, limit: Duration) -> Result<(), CheckError> {
    let begun = Instant::now();
    loop {
        let look = Look::at(config).await.map(|look| look.left());
        match look {
            Ok(None) => return Ok(()),
            _ if begun.elapsed() < limit => tokio::time::sleep(BETWEEN_LOOKS).await,
            Ok(Some(left)) => return Err(CheckError::NotSettled { waited: limit, left }),
            Err(error) => return Err(error),
        }
    }
}

/// Gives a stack some time to come to rest, and tells how it is then. A stack at work is none the worse for it.
///
/// # Errors
/// When it cannot be told.
pub async fn rest(config: &CheckConfig, limit: Duration) -> Result<Rest, CheckError> {
    let begun = Instant::now();
    let first = Look::at(config).await?;
    let mut look = first.clone();
    while let Some(left) = look.left() {
        if begun.elapsed() >= limit {
            return Ok(match look.stuck_since(&first) {
                Some(left) => Rest::Stuck { left },
                None => Rest::AtWork { left },
            });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        look = Look::at(config).await?;
    }
    Ok(Rest::Resting { ends: look.ends })
}

/// Where the log ends now, by partition.
///
/// # Errors
/// When Kafka does not tell.
pub async fn ends(config: &CheckConfig) -> Result<BTreeMap<i32, i64>, CheckError> {
    let kafka = Kafka::new(&config.kafka);
    let spans = spawn_blocking(move || kafka.spans(&[REQUESTS])).await??;
    Ok(spans.into_iter().flatten().map(|(partition, span)| (partition, span.to)).collect())
}

/// What is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    /// Where the log ends.
    ends: BTreeMap<i32, i64>,
    /// Partitions with records that are not consumed: up to where they are, and where they end.
    unconsumed: BTreeMap<i32, (i64, i64)>,
    /// Partitions with outbox entries that are not acknowledged: the last one that is, and how many are not.
    untold: BTreeMap<i32, (i64, i64)>,
    /// Claims that lapse soon.
    due: i64,
}

impl Look {
    async fn at(config: &CheckConfig) -> Result<Self, CheckError> {
        let kafka = Kafka::new(&config.kafka);
        let spans = spawn_blocking(move || kafka.spans(&[REQUESTS])).await??;
        let mut connection = PgConnection::connect(&config.postgres_url).await?;
        let sql = "select partition, next_offset, emitted_seq, next_emit_seq - 1 - emitted_seq from stampede.partitions";
        let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
        let soon = i64::try_from(NOTHING_LAPSES_WITHIN.as_millis()).unwrap_or(0);
        let sql = "select count(*) from stampede.claims
                    where deadline_ms < (extract(epoch from clock_timestamp()) * 1000)::bigint + $1";
        let due: i64 = sqlx::query_scalar(sql).bind(soon).fetch_one(&mut connection).await?;
        connection.close().await?;
        let spans = spans.into_iter().next().unwrap_or_default();
        let ends = spans.iter().map(|(partition, span)| (*partition, span.to)).collect();
        let records = spans.iter().filter(|(_, span)| span.from < span.to);
        let unconsumed = records.map(|(partition, span)| (*partition, (span.from, span.to))).collect();
        let mut look = Self { ends, unconsumed, due, ..Self::default() };
        for row in rows {
            let (partition, next): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
            let (told, untold): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            if let Some((from, _)) = look.unconsumed.get_mut(&partition) {
                *from = next;
            }
            if untold > 0 {
                look.untold.insert(partition, (told, untold));
            }
        }
        look.unconsumed.retain(|_, (next, end)| next < end);
        Ok(look)
    }

    /// One thing that is left to do, for people.
    fn left(&self) -> Option<String> {
        if let Some((partition, (_, untold))) = self.untold.first_key_value() {
            return Some(format!("partition {partition} has {untold} outbox entries to tell"));
        }
        if let Some((partition, (_, end))) = self.unconsumed.first_key_value() {
            return Some(format!("partition {partition} has not consumed its records up to {end}"));
        }
        (self.due > 0).then(|| format!("{} claims are about to lapse", self.due))
    }

    /// One thing of which nothing was done since an earlier look, for people.
    fn stuck_since(&self, earlier: &Self) -> Option<String> {
        let unmoved = |now: &BTreeMap<i32, (i64, i64)>, then: &BTreeMap<i32, (i64, i64)>| {
            let same =
                |(p, (at, _)): &(&i32, &(i64, i64))| then.get(p).is_some_and(|(before, _)| before == at);
            now.iter().find(same).map(|(partition, (at, _))| (*partition, *at))
        };
        if let Some((partition, at)) = unmoved(&self.unconsumed, &earlier.unconsumed) {
            return Some(format!("partition {partition} has records, and stays at {at}"));
        }
        let (partition, at) = unmoved(&self.untold, &earlier.untold)?;
        Some(format!("partition {partition} has outbox entries to tell, and stays at {at}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_move_is_stuck_and_what_has_just_come_is_not() {
        let look = |unconsumed: &[(i32, (i64, i64))]| Look {
            unconsumed: unconsumed.iter().copied().collect(),
            ..Look::default()
        };
        let (before, moved) = (look(&[(0, (5, 9))]), look(&[(0, (6, 20)), (1, (0, 3))]));
        assert!(
            moved.left().is_some_and(|left| left.contains("up to 20"))
                && moved.stuck_since(&before).is_none()
        );
        let stuck = look(&[(0, (5, 30))]).stuck_since(&before);
        assert_eq!(stuck.as_deref(), Some("partition 0 has records, and stays at 5"));
        assert_eq!(look(&[]).left(), None);
    }
}
