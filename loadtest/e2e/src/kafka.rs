//! Kafka without the API: records that a test produces, and records in a topic.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::{SchemaId, Subject};
use sqlx::PgConnection;
use tokio::task::spawn_blocking;

const TIMEOUT: Duration = Duration::from_secs(120);

/// A record to produce.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
}

/// A producer for any topic.
pub struct Producer(FutureProducer);

impl Producer {
    /// Of the cluster with these bootstrap servers.
    pub fn to(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "0");
        Self(config.create().unwrap())
    }

    /// Produces one record and returns its offset.
    pub async fn produce(&self, topic: &str, planted: &Record) -> i64 {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(planted.partition);
        record.key = planted.key.as_deref();
        record.payload = planted.value.as_deref();
        let headers = planted.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        record = record.headers(headers);
        let delivered = self.0.send(record, TIMEOUT).await;
        delivered.map_err(|(error, _)| error).unwrap().offset
    }
}

/// All records of a topic at this moment, in order within each partition.
pub async fn records(brokers: &str, topic: &'static str) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "e2e").set("enable.auto.commit", "false");
    config.set("fetch.wait.max.ms", "10");
    spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        let (mut list, mut missing) = (TopicPartitionList::new(), 0);
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), TIMEOUT).unwrap();
            list.add_partition_offset(topic, partition.id(), Offset::Offset(low)).unwrap();
            missing += high - low;
        }
        consumer.assign(&list).unwrap();
        (0..missing).map(|_| consumer.poll(TIMEOUT).expect("a record in time").unwrap().detach()).collect()
    })
    .await
    .unwrap()
}

/// How many of these records have this key.
pub fn count_with_key(records: &[OwnedMessage], key: &str) -> usize {
    records.iter().filter(|record| record.key() == Some(key.as_bytes())).count()
}

/// A header as text.
pub fn header(record: &OwnedMessage, name: &str) -> Option<String> {
    let header = record.headers()?.iter().find(|header| header.key == name)?;
    String::from_utf8(header.value?.to_vec()).ok()
}

/// The id under which the newest schema of a subject is registered.
pub async fn schema_id(postgres: &mut PgConnection, subject: Subject) -> SchemaId {
    let sql = "select schema_id from stampede.schemas where fingerprint = $1";
    let id = sqlx::query_scalar(sql).bind(subject.newest().fingerprint.as_slice());
    SchemaId(id.fetch_one(postgres).await.unwrap())
}
