//! Log lines and errors of librdkafka, as log lines and a metric of the worker.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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

/// An error that librdkafka reports. It recovers from most by itself, for example from a broker that is down; a client with a
/// fatal one is replaced, see [`runtime::supervised`].
pub(crate) fn error(client: &'static str, error: &KafkaError, reason: &str) {
    ::metrics::counter!(metrics::KAFKA_ERRORS, "client" => client).increment(1);
    if matches!(error, KafkaError::MessageConsumptionFatal(_) | KafkaError::Global(RDKafkaErrorCode::Fatal)) {
        tracing::warn!(client, %error, reason, "Kafka client has failed permanently and will be replaced");
    } else {
        tracing::warn!(client, %error, reason, "Kafka client reports an error and retries");
    }
}
