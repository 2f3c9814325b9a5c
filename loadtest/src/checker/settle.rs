//! Waiting until a stack has nothing left to do.

use std::time::{Duration, Instant};

use schemas::topics::REQUESTS;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::spawn_blocking;

use super::topics::{Kafka, Spans};
use super::{CheckConfig, CheckError};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Nothing lapses while a check of a settled stack is made, if nothing does within this time.
const NOTHING_LAPSES_WITHIN: Duration = Duration::from_secs(3);

/// Waits until every record of `coupon.requests` is consumed and every outbox entry acknowledged, and what is to lapse
/// within a few seconds has lapsed. What is produced meanwhile is waited for too, so nobody should.
///
/// # Errors
/// When it is not so within `limit`, or cannot be told at the end of it.
pub async fn settle(config: &CheckConfig, limit: Duration) -> Result<(), CheckError> {
    let begun = Instant::now();
    loop {
        let left = left_to_do(config).await;
        match left {
            Ok(None) => return Ok(()),
            _ if begun.elapsed() < limit => tokio::time::sleep(BETWEEN_LOOKS).await,
            Ok(Some(left)) => return Err(CheckError::NotSettled { waited: limit, left }),
            Err(error) => return Err(error),
        }
    }
}

/// One thing that is left to do, for people.
async fn left_to_do(config: &CheckConfig) -> Result<Option<String>, CheckError> {
    let kafka = Kafka::new(&config.kafka);
    let spans = spawn_blocking(move || kafka.spans(&[REQUESTS])).await??;
    let mut connection = PgConnection::connect(&config.postgres_url).await?;
    let sql = "select partition, next_offset, next_emit_seq - 1 - emitted_seq from stampede.partitions";
    let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
    let soon = i64::try_from(NOTHING_LAPSES_WITHIN.as_millis()).unwrap_or(0);
    let sql = "select count(*) from stampede.claims
                where deadline_ms < (extract(epoch from clock_timestamp()) * 1000)::bigint + $1";
    let due: i64 = sqlx::query_scalar(sql).bind(soon).fetch_one(&mut connection).await?;
    connection.close().await?;
    let mut missing: Spans = spans.into_iter().next().unwrap_or_default();
    missing.retain(|_, span| span.from < span.to);
    for row in rows {
        let (partition, next, untold): (i32, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if untold > 0 {
            return Ok(Some(format!("partition {partition} has {untold} outbox entries to tell")));
        }
        if missing.get(&partition).is_some_and(|span| next >= span.to) {
            missing.remove(&partition);
        }
    }
    if let Some((partition, span)) = missing.first_key_value() {
        return Ok(Some(format!("partition {partition} has not consumed its records up to {}", span.to)));
    }
    Ok((due > 0).then(|| format!("{due} claims are about to lapse")))
}
