//! Settings of the Kafka clients. librdkafka's defaults favour throughput; these favour the latency of a single claim.
//! A program may override settings of the configurations returned here.

use rdkafka::ClientConfig;

use crate::config::{GroupProtocol, KafkaArgs};

/// Settings of every client.
#[must_use]
pub fn client(args: &KafkaArgs, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.kafka_brokers)
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set("socket.connection.setup.timeout.ms", "5000")
        // A broker that vanished without closing its connections is noticed after this time, not after a minute.
        .set("socket.timeout.ms", "10000")
        .set("reconnect.backoff.ms", "50")
        // A broker restarts within seconds: with the default of ten seconds between attempts, its outage would double.
        .set("reconnect.backoff.max.ms", "1000")
        // A moved leader is found at the first error of a request; this refresh covers idle partitions.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // The first metadata response of a cluster that resumes after a freeze lists no brokers. The client then drops
        // all of them and connects again only when it re-bootstraps from `bootstrap.servers`: by default after five
        // minutes, and sometimes never (see `supervised`).
        .set("metadata.recovery.rebootstrap.trigger.ms", "2000")
        .set("log.connection.close", "false");
    config
}

/// A producer whose acknowledgement means that the record is durable.
///
/// It is not idempotent, so a retry may append a record twice. Readers deduplicate in any case: partition owners
/// deduplicate requests, because users repeat them, and readers of outcomes deduplicate outcomes, because a takeover
/// republishes them. An idempotent client has at most five *records* of a partition in flight: it waits for an
/// acknowledgement between batches while its thread spins (librdkafka 2.12, `rd_kafka_toppar_producer_serve`), and can
/// fail permanently when it loses its sequence number.
#[must_use]
pub fn producer(args: &KafkaArgs, client_id: &str) -> ClientConfig {
    let mut config = client(args, client_id);
    config
        .set("acks", "all")
        .set("enable.idempotence", "false")
        // How long a batch waits for more records; a single record waits for 1 ms, the sleep of librdkafka's thread.
        .set("linger.ms", "0.5")
        .set("message.timeout.ms", "30000")
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "1000")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("compression.type", "lz4")
        // Programs set the partition themselves; this covers records produced by hand.
        .set("partitioner", "murmur2_random");
    config
}

/// A consumer that reads assigned partitions from given offsets, outside of any group. librdkafka requires a group id
/// all the same; this one is never joined and never committed to.
#[must_use]
pub fn reader(args: &KafkaArgs, client_id: &str) -> ClientConfig {
    let mut config = client(args, client_id);
    config
        .set("group.id", format!("{client_id}-reads-without-a-group"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset outside the log must be an error: any reset would skip records, or decide them twice.
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // How long a consumer pauses after its queue was full; the default is 1 s.
        .set("fetch.queue.backoff.ms", "5")
        // Bounds how long a newly assigned partition waits for the fetch in flight.
        .set("fetch.wait.max.ms", "50")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.max.bytes", "16777216")
        .set("fetch.message.max.bytes", "1048576")
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "32768");
    config
}

/// A consumer that joins a group to be assigned partitions. Offsets are kept in Postgres; those committed to the group
/// serve monitoring only.
#[must_use]
pub fn membership(args: &KafkaArgs, client_id: &str, group: &str, protocol: GroupProtocol) -> ClientConfig {
    let mut config = reader(args, client_id);
    config.set("group.id", group);
    match protocol {
        // The broker decides session timeout, heartbeat and assignor; setting them here is an error.
        GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        GroupProtocol::Classic => config
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_MS.to_string())
            .set("heartbeat.interval.ms", heartbeat_ms(SESSION_MS).to_string()),
    };
    config
}

/// Default session timeout with the classic protocol, in milliseconds.
pub const SESSION_MS: u32 = 6_000;

/// Heartbeat interval that matches a session timeout, both in milliseconds. It also bounds how late the other members
/// learn that a member has left, which is most of the time that an orderly hand-over takes.
#[must_use]
pub const fn heartbeat_ms(session_ms: u32) -> u32 {
    match session_ms / 24 {
        // The brokers' default minima with KIP-848: session 45 s, heartbeat 5 s.
        _ if session_ms >= 45_000 => 5_000,
        interval if interval < 100 => 100,
        interval if interval > 3_000 => 3_000,
        interval => interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::{DefaultProducerContext, ThreadedProducer};

    /// librdkafka rejects unknown and contradictory settings when a client is created, before it connects.
    #[test]
    fn librdkafka_accepts_every_setting() {
        let args = KafkaArgs { kafka_brokers: "127.0.0.1:1".to_owned(), partitions: 8, replication: 1 };
        let created: Result<ThreadedProducer<DefaultProducerContext>, _> = producer(&args, "test").create();
        assert!(created.is_ok(), "{:?}", created.err());
        for config in [
            reader(&args, "test"),
            membership(&args, "test", "group", GroupProtocol::Consumer),
            membership(&args, "test", "group", GroupProtocol::Classic),
        ] {
            let created: Result<BaseConsumer, _> = config.create();
            assert!(created.is_ok(), "{:?}", created.err());
        }
    }
}
