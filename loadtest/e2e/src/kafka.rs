//! Kafka by hand: a producer that nobody invited, and what stands in the topics.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

const PATIENCE: Duration = Duration::from_secs(120);

/// A record to produce.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planted {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Somebody who may write to every topic.
pub(crate) struct Producer(FutureProducer);

impl Producer {
    pub(crate) fn to(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "0");
        Self(config.create().unwrap())
    }

    /// Produces one record, and answers its offset.
    pub(crate) async fn produce(&self, topic: &str, planted: &Planted) -> i64 {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(planted.partition);
        record.key = planted.key.as_deref();
        record.payload = planted.value.as_deref();
        let headers = planted.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        record = record.headers(headers);
        let delivered = self.0.send(record, PATIENCE).await;
        delivered.map_err(|(error, _)| error).unwrap().offset
    }
}

/// Everything in a topic now; in order within each partition.
pub(crate) async fn records(brokers: &str, topic: &'static str) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "e2e").set("enable.auto.commit", "false");
    config.set("fetch.wait.max.ms", "10");
    spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let (mut list, mut missing) = (TopicPartitionList::new(), 0);
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
            list.add_partition_offset(topic, partition.id(), Offset::Offset(low)).unwrap();
            missing += high - low;
        }
        consumer.assign(&list).unwrap();
        (0..missing).map(|_| consumer.poll(PATIENCE).expect("a record in time").unwrap().detach()).collect()
    })
    .await
    .unwrap()
}

/// A header as text.
pub(crate) fn header(record: &OwnedMessage, name: &str) -> Option<String> {
    let header = record.headers()?.iter().find(|header| header.key == name)?;
    String::from_utf8(header.value?.to_vec()).ok()
}
