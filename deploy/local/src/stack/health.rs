//! Health checks, made the way a client would use the child.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::child::Child;
use crate::context::StackContext;
use crate::servers::{kafka, postgres, redis, stampede};

/// Time limit of a single check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) async fn is_healthy(context: &StackContext, child: Child) -> bool {
    let check = async {
        match child {
            Child::Kafka | Child::Broker(_) => kafka_is_registered(context, child).await,
            Child::Redis => redis_responds(context).await.unwrap_or(false),
            Child::Postgres => postgres_responds(context).await.is_ok(),
            Child::Api(_) | Child::Worker(_) => is_ready(context, child).await,
        }
    };
    timeout(CHECK_TIMEOUT, check).await.unwrap_or(false)
}

/// The broker lists itself in its metadata: it is registered, and topics can be created.
async fn kafka_is_registered(context: &StackContext, broker: Child) -> bool {
    let port = context.port(&kafka::port_name(broker));
    // Checked first, because librdkafka reconnects more slowly than we do.
    if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        return false;
    }
    let bootstrap = format!("127.0.0.1:{port}");
    let fetch = move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().ok()?;
        let metadata = client.fetch_metadata(None, CHECK_TIMEOUT).ok()?;
        metadata.brokers().iter().any(|broker| broker.port() == i32::from(port)).then_some(())
    };
    matches!(tokio::task::spawn_blocking(fetch).await, Ok(Some(())))
}

/// Whether every replica of every partition is in sync, so that any one broker may die.
pub(crate) async fn is_in_sync(context: &StackContext) -> bool {
    let bootstrap = kafka::bootstrap(context);
    let fetch = move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().ok()?;
        let metadata = client.fetch_metadata(None, CHECK_TIMEOUT).ok()?;
        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        partitions.all(|one| one.leader() >= 0 && one.isr().len() == one.replicas().len()).then_some(())
    };
    matches!(tokio::task::spawn_blocking(fetch).await, Ok(Some(())))
}

async fn redis_responds(context: &StackContext) -> std::io::Result<bool> {
    let port = context.port(redis::PORT);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    Ok(reply == *b"+PONG\r\n")
}

async fn postgres_responds(context: &StackContext) -> sqlx::Result<()> {
    let mut connection =
        PgConnection::connect(&postgres::url(&context.secrets.postgres, context.port(postgres::PORT)))
            .await?;
    sqlx::query("SELECT 1").execute(&mut connection).await?;
    connection.close().await
}

async fn is_ready(context: &StackContext, child: Child) -> bool {
    let response = reqwest::get(format!("{}/readyz", stampede::probe_url(context, child))).await;
    response.is_ok_and(|response| response.status().is_success())
}
