//! What an administrator of Kafka can do to our topics and groups, by mistake or on purpose.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::StackError;

const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with every right. Takes addresses as [`crate::Endpoints::kafka`] has them.
pub struct Admin {
    bootstrap: String,
    client: AdminClient<DefaultClientContext>,
    options: AdminOptions,
}

impl Admin {
    /// One that connects when it is first used.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(bootstrap: &str) -> Result<Self, StackError> {
        let client = ClientConfig::new().set("bootstrap.servers", bootstrap).create();
        let client = client.map_err(failed("make a client"))?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        Ok(Self { bootstrap: bootstrap.to_owned(), client, options })
    }

    /// Deletes a group with all its offsets; nobody may belong to it.
    ///
    /// # Errors
    /// When it has members, or Kafka does not answer.
    pub async fn delete_group(&self, group: &str) -> Result<(), StackError> {
        let what = "delete the group";
        let deleted = self.client.delete_groups(&[group], &self.options).await.map_err(failed(what))?;
        refused(deleted, what)
    }

    /// Commits an offset for a group to which nobody belongs, without metadata.
    ///
    /// # Errors
    /// When it has members, or Kafka does not answer.
    pub async fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), StackError> {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(failed("take the offset"))?;
        let commit = move |consumer: BaseConsumer| consumer.commit(&list, CommitMode::Sync);
        self.within(group, commit).await?.map_err(failed("commit the offset"))
    }

    /// The offset that a group has committed; `None` if it has none.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, StackError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let ask = move |consumer: BaseConsumer| consumer.committed_offsets(list, PATIENCE);
        let found = self.within(group, ask).await?.map_err(failed("tell the committed offset"))?;
        Ok(found.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// Raises the number of a topic's partitions to `total`.
    ///
    /// # Errors
    /// When it has as many, or Kafka does not answer.
    pub async fn add_partitions(&self, topic: &str, total: usize) -> Result<(), StackError> {
        let what = "add partitions";
        let wanted = [NewPartitions::new(topic, total)];
        let made = self.client.create_partitions(&wanted, &self.options).await.map_err(failed(what))?;
        refused(made, what)
    }

    /// Removes all records of a partition that are older than its end, as retention would.
    ///
    /// # Errors
    /// When Kafka refuses, or does not answer.
    pub async fn delete_records(&self, topic: &str, partition: i32) -> Result<(), StackError> {
        let what = "delete the records";
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::End).map_err(failed(what))?;
        let done = self.client.delete_records(&list, &self.options).await.map_err(failed(what))?;
        done.elements().iter().try_for_each(|element| element.error()).map_err(failed(what))
    }

    /// Deletes a topic and makes an empty one of the same name, as somebody does who thinks that it is in the way.
    ///
    /// # Errors
    /// When Kafka refuses either, or does not answer.
    pub async fn recreate_topic(
        &self,
        topic: &str,
        partitions: i32,
        replicas: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), StackError> {
        let what = "delete the topic";
        let deleted = self.client.delete_topics(&[topic], &self.options).await.map_err(failed(what))?;
        refused(deleted, what)?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let made = self.client.create_topics([&new], &self.options).await;
            match refused(made.map_err(failed("make the topic"))?, "make the topic") {
                // The old one takes a moment to go.
                Err(_) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                made => return made,
            }
        }
    }

    /// Does something that blocks with a consumer that belongs to a group by name only.
    async fn within<T: Send + 'static>(
        &self,
        group: &str,
        work: impl FnOnce(BaseConsumer) -> T + Send + 'static,
    ) -> Result<T, StackError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", group);
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(failed("make a client"))?;
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

/// Kafka's answers to each thing that was asked for.
fn refused(
    answers: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    what: &'static str,
) -> Result<(), StackError> {
    match answers.into_iter().find_map(Result::err) {
        Some((_, code)) => Err(StackError::Kafka { what, source: KafkaError::AdminOp(code) }),
        None => Ok(()),
    }
}
