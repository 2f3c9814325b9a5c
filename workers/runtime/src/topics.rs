//! The topics: made where they are missing, and held against what Postgres recorded at the very first start.
//!
//! Guarantees: the numbers that programs work with are the recorded ones (a coupon never moves, whatever is done to
//! a topic later); another cluster, a topic that is gone or has lost partitions, and a topic whose times are not the
//! broker's are refused in one line.

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
use crate::patience::{Failure, GaveUp, PATIENCE, wait_for};

const ASK: Duration = Duration::from_secs(5);

/// How many partitions each topic has, as recorded at first start.
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

/// Why the topics cannot be used.
#[derive(Debug, Error)]
pub enum TopicsError {
    /// Kafka does not answer.
    #[error("{0}; is STAMPEDE_KAFKA_BROKERS right and the broker up?")]
    Kafka(#[from] GaveUp<KafkaError>),
    /// Kafka refuses to make a topic.
    #[error("topic {topic} cannot be made: {code}; make it by hand, or allow this user to create topics")]
    Refused {
        /// Which topic.
        topic: String,
        /// Kafka's answer.
        code: RDKafkaErrorCode,
    },
    /// The cluster is not the one that was recorded.
    #[error(
        "this is Kafka cluster {found}, but Postgres has worked with {recorded}: point STAMPEDE_KAFKA_BROKERS to it"
    )]
    OtherCluster {
        /// The id of the cluster that answered.
        found: String,
        /// The id in Postgres.
        recorded: String,
    },
    /// A topic that was recorded is gone, or has fewer partitions.
    #[error(
        "topic {topic} had {recorded} partitions and has {found}: its records are lost; restore it before going on"
    )]
    Lost {
        /// Which topic.
        topic: &'static str,
        /// Partitions at first start.
        recorded: i32,
        /// Partitions now.
        found: i32,
    },
    /// Append times are what every deadline hangs on.
    #[error("topic {topic} has message.timestamp.type={found}: set it to LogAppendTime")]
    NotAppendTime {
        /// Which topic.
        topic: &'static str,
        /// What is set.
        found: String,
    },
    /// Postgres does not answer.
    #[error("the recorded topics cannot be read: {0}")]
    Postgres(#[from] sqlx::Error),
}

/// Makes what is missing, records it if this is the first start, and answers what is recorded.
///
/// # Errors
/// [`TopicsError`], in one line that says what to do.
pub async fn ensure(args: &KafkaArgs, pool: &PgPool) -> Result<Topics, TopicsError> {
    let admin: AdminClient<DefaultClientContext> =
        kafka::client(args, "stampede-topics").create().map_err(gave_up)?;
    let cluster = Cluster::look(args).await?;
    let recorded = recorded(pool).await?;
    refuse_another(&cluster, &recorded)?;
    let missing: Vec<&Topic> =
        ALL.iter().filter(|topic| !cluster.partitions.contains_key(topic.name)).collect();
    let cluster = if missing.is_empty() {
        cluster
    } else {
        create(&admin, args, &missing).await?;
        Cluster::look_until(args, |cluster| {
            ALL.iter().all(|topic| cluster.partitions.contains_key(topic.name))
        })
        .await?
    };
    refuse_other_times(&admin).await?;
    record(pool, &cluster).await?;
    let recorded = self::recorded(pool).await?;
    refuse_another(&cluster, &recorded)?;
    let count = |name| recorded.iter().find(|row| row.0 == name).map_or(0, |row| row.1);
    Ok(Topics {
        requests: count(REQUESTS),
        responses: count(RESPONSES),
        events: count(EVENTS),
        dead_letters: count(DEAD_LETTERS),
    })
}

/// What the brokers say.
struct Cluster {
    id: String,
    partitions: HashMap<String, i32>,
}

impl Cluster {
    async fn look(args: &KafkaArgs) -> Result<Self, TopicsError> {
        Self::look_until(args, |_| true).await
    }

    /// A topic that was just made takes a moment until every broker knows it.
    async fn look_until(args: &KafkaArgs, enough: impl Fn(&Self) -> bool) -> Result<Self, TopicsError> {
        let seen = wait_for("Kafka", PATIENCE, async || {
            let config = kafka::client(args, "stampede-topics");
            let asked = tokio::task::spawn_blocking(move || Self::ask(&config)).await;
            let cluster = asked.unwrap_or(Err(KafkaError::Canceled)).map_err(Failure::Transient)?;
            if enough(&cluster) {
                Ok(cluster)
            } else {
                Err(Failure::Transient(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)))
            }
        });
        Ok(seen.await?)
    }

    /// Blocks; a client of its own, because one that has looked once keeps what it saw.
    fn ask(config: &rdkafka::ClientConfig) -> Result<Self, KafkaError> {
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let metadata = admin.inner().fetch_metadata(None, ASK)?;
        let id = admin.inner().fetch_cluster_id(ASK).ok_or(KafkaError::Canceled)?;
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
    let settings: Vec<[String; 2]> = missing
        .iter()
        .map(|topic| [topic.retention_ms.to_string(), topic.max_message_bytes.to_string()])
        .collect();
    // With three replicas one may be away; with fewer, waiting for two would stop all writes when one is.
    let in_sync = if args.replication >= 3 { "2" } else { "1" };
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&settings)
        .map(|(topic, [retention, largest])| {
            NewTopic::new(topic.name, args.partitions, TopicReplication::Fixed(args.replication))
                .set("cleanup.policy", "delete")
                .set("retention.ms", retention)
                .set("max.message.bytes", largest)
                .set(
                    "message.timestamp.type",
                    if topic.log_append_time { "LogAppendTime" } else { "CreateTime" },
                )
                .set("min.insync.replicas", in_sync)
                .set("unclean.leader.election.enable", "false")
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK * 2));
    let made = wait_for("Kafka to make the topics", PATIENCE, async || {
        admin.create_topics(&new, &options).await.map_err(Failure::Transient)
    });
    for result in made.await? {
        match result {
            Ok(topic) => tracing::info!(topic, partitions = args.partitions, "topic made"),
            // Another program was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopicsError::Refused { topic, code }),
        }
    }
    Ok(())
}

async fn refuse_other_times(admin: &AdminClient<DefaultClientContext>) -> Result<(), TopicsError> {
    for topic in ALL.iter().filter(|topic| topic.log_append_time) {
        let asked = wait_for("Kafka to describe its topics", PATIENCE, async || {
            let specifier = [ResourceSpecifier::Topic(topic.name)];
            admin.describe_configs(&specifier, &AdminOptions::new()).await.map_err(Failure::Transient)
        });
        // A resource that may not be described is no reason to stop: every record carries the type of its time.
        for resource in asked.await?.into_iter().flatten() {
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

/// Whoever comes first records; the others live with it.
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

fn refuse_another(cluster: &Cluster, recorded: &[Recorded]) -> Result<(), TopicsError> {
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

fn gave_up(error: KafkaError) -> GaveUp<KafkaError> {
    GaveUp { what: "a Kafka client".to_owned(), waited: Duration::ZERO, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(partitions: i32) -> Cluster {
        Cluster { id: "one".to_owned(), partitions: HashMap::from([(REQUESTS.to_owned(), partitions)]) }
    }

    #[test]
    fn more_partitions_change_nothing_and_fewer_or_another_cluster_are_refused() {
        let recorded = |id: &str| vec![(REQUESTS.to_owned(), 8, id.to_owned())];
        assert!(refuse_another(&cluster(8), &recorded("one")).is_ok());
        assert!(refuse_another(&cluster(9), &recorded("one")).is_ok());
        assert!(matches!(
            refuse_another(&cluster(7), &recorded("one")),
            Err(TopicsError::Lost { topic: REQUESTS, recorded: 8, found: 7 })
        ));
        assert!(matches!(
            refuse_another(&cluster(8), &recorded("two")),
            Err(TopicsError::OtherCluster { .. })
        ));
    }
}
