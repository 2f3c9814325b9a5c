//! Settings of Kafka's clients. librdkafka's defaults are made for bulk; these are made for a claim that waits.
//! A program may set more on top of what it gets here.

use rdkafka::ClientConfig;

use crate::config::{GroupProtocol, KafkaArgs};

/// What every client has.
#[must_use]
pub fn client(args: &KafkaArgs, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.kafka_brokers)
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("reconnect.backoff.ms", "50")
        // A broker that restarts is back after seconds: ten seconds between attempts would double its outage.
        .set("reconnect.backoff.max.ms", "1000")
        // A leader that has moved is looked for at the first error; this is for those that nobody asks at the moment.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // A cluster that froze tells who asks as soon as it wakes that it has no broker. The client forgets them all then,
        // and asks nobody until it begins anew with `bootstrap.servers`: by default after five minutes, and sometimes
        // never (see `renewable`).
        .set("metadata.recovery.rebootstrap.trigger.ms", "2000")
        .set("log.connection.close", "false");
    config
}

/// A producer whose acknowledgement means that the record is durable.
///
/// It is not idempotent, so a retry may leave a copy. Readers recognise copies anyway: the owner of a partition those of
/// requests, which users repeat as well, and whoever reads outcomes those of outcomes, which a takeover repeats as well.
/// An idempotent client has at most five *records* of a partition under way: it waits for an acknowledgement between
/// batches, with its thread spinning (librdkafka 2.12, `rd_kafka_toppar_producer_serve`), and can break for good when
/// it has lost its place.
#[must_use]
pub fn producer(args: &KafkaArgs, client_id: &str) -> ClientConfig {
    let mut config = client(args, client_id);
    config
        .set("acks", "all")
        .set("enable.idempotence", "false")
        // So long a record waits for company; one that stays alone waits for a millisecond, in which librdkafka's thread
        // sleeps.
        .set("linger.ms", "0.5")
        .set("message.timeout.ms", "30000")
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "1000")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "131072")
        .set("compression.type", "lz4")
        // Producers set the partition themselves; this is for those by hand.
        .set("partitioner", "murmur2_random");
    config
}

/// A consumer that is told what to read and from where, and belongs to no group. Librdkafka wants a group id even
/// so; nobody ever joins or commits to this one.
#[must_use]
pub fn reader(args: &KafkaArgs, client_id: &str) -> ClientConfig {
    let mut config = client(args, client_id);
    config
        .set("group.id", format!("{client_id}-reads-without-a-group"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset that is gone must be an error: any other answer skips records, or decides them twice.
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // The default of a second is how long a consumer sleeps after its queue was full.
        .set("fetch.queue.backoff.ms", "5")
        // Bounds how long a partition that was just assigned waits for the fetch under way.
        .set("fetch.wait.max.ms", "50")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.max.bytes", "16777216")
        .set("fetch.message.max.bytes", "1048576")
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "32768");
    config
}

/// A consumer that joins a group to learn which partitions are its own. Offsets are Postgres' business: what is
/// committed here is for monitoring only.
#[must_use]
pub fn membership(args: &KafkaArgs, client_id: &str, group: &str, protocol: GroupProtocol) -> ClientConfig {
    let mut config = reader(args, client_id);
    config.set("group.id", group);
    match protocol {
        // Session, heartbeat and assignor are the broker's business here; setting them is an error.
        GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        GroupProtocol::Classic => config
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_MS.to_string())
            .set("heartbeat.interval.ms", heartbeat_ms(SESSION_MS).to_string()),
    };
    config
}

/// How long a group of the classic protocol waits for a member that says nothing, unless another time is set:
/// milliseconds.
pub const SESSION_MS: u32 = 6_000;

/// How often a member tells that it is there, where the group waits so long for it; also how late the others may hear
/// that it has gone, which is most of what an orderly hand-over takes. Milliseconds.
#[must_use]
pub const fn heartbeat_ms(session_ms: u32) -> u32 {
    match session_ms / 24 {
        // What brokers allow with KIP-848 unless they are told otherwise: 45 s at least, and 5 s.
        _ if session_ms >= 45_000 => 5_000,
        often if often < 100 => 100,
        often if often > 3_000 => 3_000,
        often => often,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::{DefaultProducerContext, ThreadedProducer};

    /// librdkafka refuses unknown names and contradictions when a client is made, before any connection.
    #[test]
    fn librdkafka_accepts_every_setting() {
        let args = KafkaArgs { kafka_brokers: "127.0.0.1:1".to_owned(), partitions: 8, replication: 1 };
        let made: Result<ThreadedProducer<DefaultProducerContext>, _> = producer(&args, "test").create();
        assert!(made.is_ok(), "{:?}", made.err());
        for config in [
            reader(&args, "test"),
            membership(&args, "test", "group", GroupProtocol::Consumer),
            membership(&args, "test", "group", GroupProtocol::Classic),
        ] {
            let made: Result<BaseConsumer, _> = config.create();
            assert!(made.is_ok(), "{:?}", made.err());
        }
    }
}
