//! The topics: missing ones are created, and all are compared with what Postgres recorded at the first start.
//!
//! Guarantees: programs use the recorded partition counts, so a coupon stays in its partition even if partitions are
//! added later. Another cluster, a missing topic, a topic with fewer partitions, and a topic without LogAppendTime are
//! one-line errors.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use schemas::topics::{ALL, DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES, Topic};
use sqlx::PgPool;
use thiserror::Error;

use crate::config::KafkaArgs;
use crate::kafka;
use crate::retry::{Failure, STARTUP_TIMEOUT, TimedOut, wait_for};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The partition count of each topic, as recorded at the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Of `coupon.requests`.
    pub requests: i32,
    /// Of `coupon.responses`.
    pub responses: i32,
    /// Of `coupon.events`.
    pub events: i32,
    /// Of `coupon.dead-letters`.
    pub dead_letters: i32,
}

/// The topics cannot be used.
#[derive(Debug, Error)]
pub enum TopicsError {
    /// Kafka does not respond.
    #[error("{0}; check STAMPEDE_KAFKA_BROKERS and that the brokers are up")]
    Kafka(#[from] TimedOut<KafkaError>),
    /// Kafka rejected the creation of a topic.
    #[error(
        "topic {topic} cannot be created: {code}; create it by hand, or allow this user to create topics"
    )]
    NotCreated {
        /// The topic.
        topic: String,
        /// Kafka's error code.
        code: RDKafkaErrorCode,
    },
    /// The cluster is not the one that was recorded.
    #[error(
        "STAMPEDE_KAFKA_BROKERS is Kafka cluster {found}, but Postgres recorded {recorded}: connect to the recorded cluster"
    )]
    OtherCluster {
        /// The id of the connected cluster.
        found: String,
        /// The id recorded in Postgres.
        recorded: String,
    },
    /// A recorded topic is missing, or has fewer partitions.
    #[error(
        "topic {topic} had {recorded} partitions and has {found}: records are lost; restore the topic first"
    )]
    Lost {
        /// The topic.
        topic: &'static str,
        /// Partitions at first start.
        recorded: i32,
        /// Partitions now.
        found: i32,
    },
    /// Deadlines depend on the broker's append times.
    #[error("topic {topic} has message.timestamp.type={found}: set it to LogAppendTime")]
    NotAppendTime {
        /// The topic.
        topic: &'static str,
        /// The value that is set.
        found: String,
    },
    /// Postgres failed.
    #[error("the recorded topics cannot be read: {0}")]
    Postgres(#[from] sqlx::Error),
}

/// Creates missing topics, records all of them at the first start, and returns the recorded partition counts.
///
/// # Errors
/// [`TopicsError`], in one line with the remedy.
pub async fn ensure(args: &KafkaArgs, pool: &PgPool) -> Result<Topics, TopicsError> {
    let admin: AdminClient<DefaultClientContext> =
        kafka::client(args, "stampede-topics").create().map_err(no_client)?;
    let cluster = Cluster::fetch(args).await?;
    let recorded = recorded(pool).await?;
    check_recorded(&cluster, &recorded)?;
    let missing: Vec<&Topic> =
        ALL.iter().filter(|topic| !cluster.partitions.contains_key(topic.name)).collect();
    let cluster = if missing.is_empty() {
        cluster
    } else {
        create(&admin, args, &missing).await?;
        Cluster::fetch_until(args, |cluster| {
            ALL.iter().all(|topic| cluster.partitions.contains_key(topic.name))
        })
        .await?
    };
    check_timestamp_types(&admin).await?;
    record(pool, &cluster).await?;
    let recorded = self::recorded(pool).await?;
    check_recorded(&cluster, &recorded)?;
    let count = |name| recorded.iter().find(|row| row.0 == name).map_or(0, |row| row.1);
    Ok(Topics {
        requests: count(REQUESTS),
        responses: count(RESPONSES),
        events: count(EVENTS),
        dead_letters: count(DEAD_LETTERS),
    })
}

/// The connected cluster.
struct Cluster {
    id: String,
    partitions: HashMap<String, i32>,
}

impl Cluster {
    async fn fetch(args: &KafkaArgs) -> Result<Self, TopicsError> {
        Self::fetch_until(args, |_| true).await
    }

    /// Repeats until `complete`: a new topic is not in the metadata of every broker at once.
    async fn fetch_until(args: &KafkaArgs, complete: impl Fn(&Self) -> bool) -> Result<Self, TopicsError> {
        let fetched = wait_for("Kafka", STARTUP_TIMEOUT, async || {
            let config = kafka::client(args, "stampede-topics");
            let cluster = tokio::task::spawn_blocking(move || Self::fetch_blocking(&config)).await;
            let cluster = cluster.unwrap_or(Err(KafkaError::Canceled)).map_err(Failure::Transient)?;
            if complete(&cluster) {
                Ok(cluster)
            } else {
                Err(Failure::Transient(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)))
            }
        });
        Ok(fetched.await?)
    }

    /// Blocks. Uses a new client, because a client caches metadata.
    fn fetch_blocking(config: &rdkafka::ClientConfig) -> Result<Self, KafkaError> {
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT)?;
        let id = admin.inner().fetch_cluster_id(REQUEST_TIMEOUT).ok_or(KafkaError::Canceled)?;
        let partitions = metadata.topics().iter().filter(|topic| topic.error().is_none());
        let partitions = partitions
            .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(0)));
        Ok(Self { id, partitions: partitions.filter(|(_, count)| *count > 0).collect() })
    }
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    args: &KafkaArgs,
    missing: &[&Topic],
) -> Result<(), TopicsError> {
    let settings: Vec<_> = missing.iter().map(|topic| settings_of(topic, args.replication)).collect();
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&settings)
        .map(|(topic, settings)| {
            let new = NewTopic::new(topic.name, args.partitions, TopicReplication::Fixed(args.replication));
            settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT * 2));
    let created = wait_for("topic creation in Kafka", STARTUP_TIMEOUT, async || {
        admin.create_topics(&new, &options).await.map_err(Failure::Transient)
    });
    for result in created.await? {
        match result {
            Ok(topic) => tracing::info!(topic, partitions = args.partitions, "topic created"),
            // Another program created it first.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopicsError::NotCreated { topic, code }),
        }
    }
    Ok(())
}

/// The settings of a new topic.
fn settings_of(topic: &Topic, replication: i32) -> [(&'static str, String); 6] {
    let timestamp_type = if topic.log_append_time { "LogAppendTime" } else { "CreateTime" };
    // With three replicas one may be down; with fewer, requiring two in sync would stop all writes when one is down.
    let in_sync = if replication >= 3 { "2" } else { "1" };
    [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", topic.retention_ms.to_string()),
        ("max.message.bytes", topic.max_message_bytes.to_string()),
        ("message.timestamp.type", timestamp_type.to_owned()),
        ("min.insync.replicas", in_sync.to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ]
}

async fn check_timestamp_types(admin: &AdminClient<DefaultClientContext>) -> Result<(), TopicsError> {
    for topic in ALL.iter().filter(|topic| topic.log_append_time) {
        let described = wait_for("topic configuration in Kafka", STARTUP_TIMEOUT, async || {
            let specifier = [ResourceSpecifier::Topic(topic.name)];
            admin.describe_configs(&specifier, &AdminOptions::new()).await.map_err(Failure::Transient)
        });
        // A topic that this user may not describe passes: every record carries its timestamp type.
        for resource in described.await?.into_iter().flatten() {
            let found = resource.get("message.timestamp.type").and_then(|entry| entry.value.clone());
            if let Some(found) = found.filter(|found| found != "LogAppendTime") {
                return Err(TopicsError::NotAppendTime { topic: topic.name, found });
            }
        }
    }
    Ok(())
}

type Recorded = (String, i32, String);

async fn recorded(pool: &PgPool) -> Result<Vec<Recorded>, sqlx::Error> {
    sqlx::query_as("select name, partitions, cluster_id from stampede.topics").fetch_all(pool).await
}

/// The first program to start records the topics; later inserts do nothing.
async fn record(pool: &PgPool, cluster: &Cluster) -> Result<(), sqlx::Error> {
    for topic in &ALL {
        sqlx::query(
            "insert into stampede.topics (name, partitions, cluster_id) values ($1, $2, $3)
                     on conflict do nothing",
        )
        .bind(topic.name)
        .bind(cluster.partitions.get(topic.name))
        .bind(&cluster.id)
        .execute(pool)
        .await?;
    }
    Ok(())
}

fn check_recorded(cluster: &Cluster, recorded: &[Recorded]) -> Result<(), TopicsError> {
    for (name, partitions, id) in recorded {
        if *id != cluster.id {
            return Err(TopicsError::OtherCluster { found: cluster.id.clone(), recorded: id.clone() });
        }
        let found = cluster.partitions.get(name).copied().unwrap_or(0);
        if let Some(topic) = ALL.iter().find(|topic| topic.name == name && found < *partitions) {
            return Err(TopicsError::Lost { topic: topic.name, recorded: *partitions, found });
        }
    }
    Ok(())
}

fn no_client(error: KafkaError) -> TimedOut<KafkaError> {
    TimedOut { what: "a Kafka client".to_owned(), waited: Duration::ZERO, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(partitions: i32) -> Cluster {
        Cluster { id: "one".to_owned(), partitions: HashMap::from([(REQUESTS.to_owned(), partitions)]) }
    }

    #[test]
    fn added_partitions_are_accepted_and_fewer_partitions_or_another_cluster_are_rejected() {
        let recorded = |id: &str| vec![(REQUESTS.to_owned(), 8, id.to_owned())];
        assert!(check_recorded(&cluster(8), &recorded("one")).is_ok());
        assert!(check_recorded(&cluster(9), &recorded("one")).is_ok());
        assert!(matches!(
            check_recorded(&cluster(7), &recorded("one")),
            Err(TopicsError::Lost { topic: REQUESTS, recorded: 8, found: 7 })
        ));
        assert!(matches!(
            check_recorded(&cluster(8), &recorded("two")),
            Err(TopicsError::OtherCluster { .. })
        ));
    }
}
