//! How every partition stands, as Postgres and Kafka tell it: the same check that a takeover makes, without taking
//! over. Changes nothing.

use std::sync::Arc;

use coupon_core::batch::Position;
use coupon_core::ids::{Offset, Partition, WriteNo};
use runtime::kafka;
use schemas::topics::REQUESTS;
use sqlx::{PgPool, Row as _};

use super::args::Servers;
use super::{OperatorError, pool};
use crate::log::{Found, Inspector};
use crate::topic_identity::{self, Identities, Identity};

/// One partition.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) partition: Partition,
    /// Its row; `None` if nobody ever owned it.
    pub(crate) row: Option<Row>,
    /// What is in Kafka.
    pub(crate) found: Option<Found>,
    /// The identity of the topic now.
    pub(crate) identity: Identity,
    /// Why a takeover would stop; `Ok` if it would not.
    pub(crate) verdict: Result<(), String>,
}

/// What Postgres says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: Option<String>,
    pub(crate) epoch: i64,
    pub(crate) write_no: WriteNo,
    pub(crate) position: Position,
    pub(crate) unacknowledged: i64,
}

/// Asks about everything.
pub(crate) async fn all(servers: &Servers) -> Result<Vec<Seen>, OperatorError> {
    let pool = pool(&servers.postgres)?;
    let surveyor = Surveyor::new(servers, &pool).await?;
    let count: i32 = sqlx::query_scalar("select partitions from stampede.topics where name = $1")
        .bind(REQUESTS)
        .fetch_optional(&pool)
        .await?
        .unwrap_or(0);
    let mut seen = Vec::new();
    for partition in 0..count {
        seen.push(surveyor.look(Partition(partition)).await?);
    }
    Ok(seen)
}

/// Looks at partitions.
pub(crate) struct Surveyor {
    pool: PgPool,
    inspector: Arc<Inspector>,
    identities: Identities,
    identity: Identity,
}

impl Surveyor {
    pub(crate) async fn new(servers: &Servers, pool: &PgPool) -> Result<Self, OperatorError> {
        let mut inspector = kafka::reader(&servers.kafka, "stampede-operator");
        // It reads the group's committed offsets. It never subscribes, so it never joins.
        inspector.set("group.id", &servers.group);
        let identities = Identities::new(servers.kafka.kafka_brokers.clone(), pool.clone());
        let identity = identities.now().await;
        Ok(Self {
            pool: pool.clone(),
            inspector: Arc::new(Inspector::new(&inspector)?),
            identities,
            identity,
        })
    }

    pub(crate) async fn look(&self, partition: Partition) -> Result<Seen, OperatorError> {
        // The owner may go on meanwhile: what the log must still have is asked for before Kafka is, and the write
        // number that Kafka must not be ahead of afterwards.
        let before = self.row(partition).await?;
        let position = before.as_ref().map_or_else(unowned, |row| row.position);
        let recorded = self.identities.recorded(partition).await?;
        let identity = self.identity;
        let found = self.find(partition, position.last_offset).await;
        let row = self.row(partition).await?;
        let write_no = row.as_ref().map_or(WriteNo(0), |row| row.write_no);
        let (found, verdict) = match found {
            Ok(found) => {
                let verdict = topic_identity::judge(partition, identity, recorded)
                    .and_then(|()| found.judge(partition, &position, write_no));
                (Some(found), verdict)
            }
            // Of a topic that is gone Kafka tells nothing more.
            Err(error) => match topic_identity::judge(partition, identity, recorded) {
                Ok(()) => return Err(error),
                gone => (None, gone),
            },
        };
        // A moving partition is shown as it was when Kafka was asked.
        let row = row.map(|row| Row { position, ..row });
        Ok(Seen { partition, row, found, identity, verdict })
    }

    /// What is in Kafka about a partition, and about the record at `last`.
    pub(crate) async fn find(&self, partition: Partition, last: Offset) -> Result<Found, OperatorError> {
        let inspector = Arc::clone(&self.inspector);
        let looked = tokio::task::spawn_blocking(move || inspector.look(partition, last)).await?;
        looked.map_err(|error| OperatorError::Inspect(partition.0, error.to_string()))
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
