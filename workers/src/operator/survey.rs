//! The status of every partition in Postgres and Kafka: the check that a takeover makes, without taking over. Changes
//! nothing.

use std::sync::Arc;

use coupon_core::batch::Position;
use coupon_core::ids::{Offset, Partition, WriteNo};
use runtime::kafka;
use schemas::topics::REQUESTS;
use sqlx::{PgPool, Row as _};

use super::args::Servers;
use super::{OperatorError, pool};
use crate::kafka::inspector::Inspector;
use crate::kafka::log_state::LogState;
use crate::kafka::topic_identity::{self, Identities, Identity};

/// The status of one partition.
#[derive(Clone, Debug)]
pub(crate) struct PartitionStatus {
    pub(crate) partition: Partition,
    /// Its row; `None` if it was never owned.
    pub(crate) row: Option<Row>,
    /// The state of its log in Kafka.
    pub(crate) found: Option<LogState>,
    /// The present identity of the topic.
    pub(crate) identity: Identity,
    /// Whether a takeover would succeed, or why not.
    pub(crate) verdict: Result<(), String>,
}

/// The columns of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: Option<String>,
    pub(crate) epoch: i64,
    pub(crate) write_no: WriteNo,
    pub(crate) position: Position,
    pub(crate) unacknowledged: i64,
}

/// The status of all partitions.
pub(crate) async fn all(servers: &Servers) -> Result<Vec<PartitionStatus>, OperatorError> {
    let pool = pool(&servers.postgres)?;
    let surveyor = Surveyor::new(servers, &pool).await?;
    let count: i32 = sqlx::query_scalar("select partitions from stampede.topics where name = $1")
        .bind(REQUESTS)
        .fetch_optional(&pool)
        .await?
        .unwrap_or(0);
    let mut statuses = Vec::new();
    for partition in 0..count {
        statuses.push(surveyor.status(Partition(partition)).await?);
    }
    Ok(statuses)
}

/// Reads the status of partitions.
pub(crate) struct Surveyor {
    pool: PgPool,
    inspector: Arc<Inspector>,
    identities: Identities,
    identity: Identity,
}

impl Surveyor {
    pub(crate) async fn new(servers: &Servers, pool: &PgPool) -> Result<Self, OperatorError> {
        let mut inspector = kafka::reader(&servers.kafka, "stampede-operator");
        // It reads the committed offsets of the group. It never subscribes, so it never joins.
        inspector.set("group.id", &servers.group);
        let identities = Identities::new(servers.kafka.kafka_brokers.clone(), pool.clone());
        let identity = identities.current().await;
        Ok(Self {
            pool: pool.clone(),
            inspector: Arc::new(Inspector::new(&inspector)?),
            identities,
            identity,
        })
    }

    pub(crate) async fn status(&self, partition: Partition) -> Result<PartitionStatus, OperatorError> {
        // The owner may write in between. The position that the log must contain is therefore read before Kafka, and the
        // write number that Kafka must not exceed is read after it.
        let before = self.row(partition).await?;
        let position = before.as_ref().map_or_else(unowned, |row| row.position);
        let recorded = self.identities.recorded(partition).await?;
        let identity = self.identity;
        let found = self.inspect(partition, position.last_offset).await;
        let row = self.row(partition).await?;
        let write_no = row.as_ref().map_or(WriteNo(0), |row| row.write_no);
        let (found, verdict) = match found {
            Ok(found) => {
                let verdict = topic_identity::verify(partition, identity, recorded)
                    .and_then(|()| found.verify(partition, &position, write_no));
                (Some(found), verdict)
            }
            // Kafka returns nothing about a deleted topic.
            Err(error) => match topic_identity::verify(partition, identity, recorded) {
                Ok(()) => return Err(error),
                deleted => (None, deleted),
            },
        };
        // Shows the position that was compared with Kafka, even if the owner has written since.
        let row = row.map(|row| Row { position, ..row });
        Ok(PartitionStatus { partition, row, found, identity, verdict })
    }

    /// The state of a log, and of its record at `last`.
    pub(crate) async fn inspect(
        &self,
        partition: Partition,
        last: Offset,
    ) -> Result<LogState, OperatorError> {
        let inspector = Arc::clone(&self.inspector);
        let state = tokio::task::spawn_blocking(move || inspector.inspect(partition, last)).await?;
        state.map_err(|error| OperatorError::Inspect(partition.0, error.to_string()))
    }

    async fn row(&self, partition: Partition) -> Result<Option<Row>, OperatorError> {
        let sql = "select owner, epoch, write_no, next_offset, last_offset, last_digest,
                          next_emit_seq - 1 - emitted_seq
                     from stampede.partitions where partition = $1";
        let Some(row) = sqlx::query(sql).bind(partition.0).fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        Ok(Some(Row {
            owner: row.try_get(0)?,
            epoch: row.try_get(1)?,
            write_no: WriteNo(row.try_get(2)?),
            position: Position {
                next_offset: Offset(row.try_get(3)?),
                last_offset: Offset(row.try_get(4)?),
                last_digest: row.try_get(5)?,
                ..Position::default()
            },
            unacknowledged: row.try_get(6)?,
        }))
    }
}

fn unowned() -> Position {
    Position { last_offset: Offset(-1), ..Position::default() }
}
