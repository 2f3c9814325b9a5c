//! Log lines and errors of librdkafka, as log lines and a metric of the worker.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::metrics;

/// A log line of librdkafka.
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

/// An error from which librdkafka recovers by itself, for example a broker that is down.
pub(crate) fn error(client: &'static str, error: &KafkaError, reason: &str) {
    ::metrics::counter!(metrics::KAFKA_ERRORS, "client" => client).increment(1);
    tracing::warn!(client, %error, reason, "Kafka client reports an error and retries");
}
