//! Operations of a Kafka administrator on topics and groups, which fault tests inject.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::error::StackError;

const TIMEOUT: Duration = Duration::from_secs(60);

/// An administrator with all permissions.
pub struct Admin {
    bootstrap: String,
    client: AdminClient<DefaultClientContext>,
    options: AdminOptions,
}

impl Admin {
    /// Connects to the bootstrap addresses ([`crate::Endpoints::kafka`]) when it is first used.
    ///
    /// # Errors
    /// When the client cannot be created.
    pub fn new(bootstrap: &str) -> Result<Self, StackError> {
        let client = ClientConfig::new().set("bootstrap.servers", bootstrap).create();
        let client = client.map_err(failed("create a client"))?;
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        Ok(Self { bootstrap: bootstrap.to_owned(), client, options })
    }

    /// Deletes a group with all its offsets. The group must be empty.
    ///
    /// # Errors
    /// When the group has members, or Kafka does not respond.
    pub async fn delete_group(&self, group: &str) -> Result<(), StackError> {
        let what = "delete the group";
        let deleted = self.client.delete_groups(&[group], &self.options).await.map_err(failed(what))?;
        first_error(deleted, what)
    }

    /// Commits an offset of an empty group, without metadata.
    ///
    /// # Errors
    /// When the group has members, or Kafka does not respond.
    pub async fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), StackError> {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(failed("set the offset"))?;
        let commit = move |consumer: BaseConsumer| consumer.commit(&list, CommitMode::Sync);
        self.with_consumer(group, commit).await?.map_err(failed("commit the offset"))
    }

    /// The committed offset of a group; `None` if it has none.
    ///
    /// # Errors
    /// When Kafka does not respond.
    pub async fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, StackError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let fetch = move |consumer: BaseConsumer| consumer.committed_offsets(list, TIMEOUT);
        let offsets =
            self.with_consumer(group, fetch).await?.map_err(failed("fetch the committed offset"))?;
        Ok(offsets.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// Raises the number of a topic's partitions to `total`.
    ///
    /// # Errors
    /// When it has that many already, or Kafka does not respond.
    pub async fn add_partitions(&self, topic: &str, total: usize) -> Result<(), StackError> {
        let what = "add partitions";
        let change = [NewPartitions::new(topic, total)];
        let created = self.client.create_partitions(&change, &self.options).await.map_err(failed(what))?;
        first_error(created, what)
    }

    /// Deletes all records of a partition, as retention would.
    ///
    /// # Errors
    /// When Kafka rejects it, or does not respond.
    pub async fn delete_records(&self, topic: &str, partition: i32) -> Result<(), StackError> {
        let what = "delete the records";
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::End).map_err(failed(what))?;
        let done = self.client.delete_records(&list, &self.options).await.map_err(failed(what))?;
        done.elements().iter().try_for_each(|element| element.error()).map_err(failed(what))
    }

    /// Deletes a topic and creates an empty one of the same name.
    ///
    /// # Errors
    /// When Kafka rejects either, or does not respond.
    pub async fn recreate_topic(
        &self,
        topic: &str,
        partitions: i32,
        replicas: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), StackError> {
        let what = "delete the topic";
        let deleted = self.client.delete_topics(&[topic], &self.options).await.map_err(failed(what))?;
        first_error(deleted, what)?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let until = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let created = self.client.create_topics([&new], &self.options).await;
            match first_error(created.map_err(failed("create the topic"))?, "create the topic") {
                // The deletion takes a moment.
                Err(_) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result,
            }
        }
    }

    /// Runs blocking `work` with a consumer that has the group id but does not join the group.
    async fn with_consumer<T: Send + 'static>(
        &self,
        group: &str,
        work: impl FnOnce(BaseConsumer) -> T + Send + 'static,
    ) -> Result<T, StackError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", group);
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(failed("create a client"))?;
        let done = tokio::task::spawn_blocking(move || work(consumer)).await;
        done.map_err(|_| StackError::Stopped)
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

fn failed(what: &'static str) -> impl FnOnce(KafkaError) -> StackError {
    move |source| StackError::Kafka { what, source }
}

/// The first error among Kafka's results, one for each resource.
fn first_error(
    results: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    what: &'static str,
) -> Result<(), StackError> {
    match results.into_iter().find_map(Result::err) {
        Some((_, code)) => Err(StackError::Kafka { what, source: KafkaError::AdminOp(code) }),
        None => Ok(()),
    }
}
