//! Whether a child does its work, asked the way its clients would ask.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process::lock;
use crate::stack::Site;
use crate::{Child, kafka, ours, redis};

/// Longest a single question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

pub(crate) async fn is_healthy(site: &Site, child: Child) -> bool {
    let asked = async {
        match child {
            Child::Kafka | Child::Broker(_) => kafka_leads(site, child).await,
            Child::Redis => redis_answers(site).await.unwrap_or(false),
            Child::Postgres => postgres_answers(site).await.is_ok(),
            Child::Api(_) | Child::Worker(_) => is_ready(site, child).await,
        }
    };
    timeout(ANSWER_WITHIN, asked).await.unwrap_or(false)
}

/// The broker names itself in its metadata: it is registered, and topics can be made.
async fn kafka_leads(site: &Site, broker: Child) -> bool {
    let port = lock(&site.ports).get(&kafka::port_name(broker));
    // Asked first, because librdkafka's own reconnecting is slower than ours.
    if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        return false;
    }
    let bootstrap = format!("127.0.0.1:{port}");
    let ask = move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().ok()?;
        let metadata = client.fetch_metadata(None, ANSWER_WITHIN).ok()?;
        metadata.brokers().iter().any(|broker| broker.port() == i32::from(port)).then_some(())
    };
    matches!(tokio::task::spawn_blocking(ask).await, Ok(Some(())))
}

/// Whether every replica of every partition is in sync: any one broker may die then.
pub(crate) async fn is_in_sync(site: &Site) -> bool {
    let bootstrap = kafka::bootstrap(site);
    let ask = move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().ok()?;
        let metadata = client.fetch_metadata(None, ANSWER_WITHIN).ok()?;
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.all(|one| one.leader() >= 0 && one.isr().len() == one.replicas().len()).then_some(())
    };
    matches!(tokio::task::spawn_blocking(ask).await, Ok(Some(())))
}

async fn redis_answers(site: &Site) -> std::io::Result<bool> {
    let port = lock(&site.ports).get(redis::PORT);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    Ok(answer == *b"+PONG\r\n")
}

async fn postgres_answers(site: &Site) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(&ours::postgres_url(site)).await?;
    sqlx::query("SELECT 1").execute(&mut connection).await?;
    connection.close().await
}

async fn is_ready(site: &Site, child: Child) -> bool {
    let asked = reqwest::get(format!("{}/readyz", ours::probe_url(site, child))).await;
    asked.is_ok_and(|answer| answer.status().is_success())
}
