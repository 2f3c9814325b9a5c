//! What librdkafka has to say, as log lines of ours.

use crate::metrics;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// A line of librdkafka's log.
pub(crate) fn line(client: &'static str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::warn!(client, facility, message);
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(client, facility, message),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(client, facility, message),
    }
}

/// An error that librdkafka deals with by itself (a broker that is down, say).
pub(crate) fn error(client: &'static str, error: &KafkaError, reason: &str) {
    ::metrics::counter!(metrics::KAFKA_ERRORS, "client" => client).increment(1);
    tracing::warn!(client, %error, reason, "Kafka's client reports an error and goes on");
}
