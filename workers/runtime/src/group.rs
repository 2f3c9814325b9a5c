//! The session timeout of the consumer group: how long it keeps the partitions of a silent member.
//!
//! With the classic protocol each member sends its own. With the consumer protocol (KIP-848) it is a configuration of
//! the group, which the brokers store.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

use crate::config::{GroupProtocol, KafkaArgs};
use crate::kafka;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The session timeout was not changed; the brokers keep the previous one.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The request to Kafka failed.
    #[error("request to Kafka failed: {0}")]
    Kafka(#[from] KafkaError),
    /// Kafka rejected the values.
    #[error(
        "Kafka rejected the values ({0}); its brokers allow a session timeout between \
         group.consumer.min.session.timeout.ms and group.consumer.max.session.timeout.ms, and a heartbeat between \
         group.consumer.min.heartbeat.interval.ms and group.consumer.max.heartbeat.interval.ms"
    )]
    Rejected(RDKafkaErrorCode),
}

/// Sets the session timeout of a group, in milliseconds, and the matching heartbeat interval: in the member's settings
/// with the classic protocol, at the brokers with the consumer protocol.
///
/// # Errors
/// [`SessionError`]: the group keeps the values that the brokers have.
pub async fn set_session(
    args: &KafkaArgs,
    membership: &mut ClientConfig,
    group: &str,
    protocol: GroupProtocol,
    session_ms: u32,
) -> Result<(), SessionError> {
    let (session, heartbeat) = (session_ms.to_string(), kafka::heartbeat_ms(session_ms).to_string());
    match protocol {
        GroupProtocol::Classic => {
            membership.set("session.timeout.ms", session).set("heartbeat.interval.ms", heartbeat);
            Ok(())
        }
        GroupProtocol::Consumer => {
            let admin: AdminClient<DefaultClientContext> = kafka::client(args, "stampede-group").create()?;
            let change = AlterConfig::new(ResourceSpecifier::Group(group))
                .set("consumer.session.timeout.ms", &session)
                .set("consumer.heartbeat.interval.ms", &heartbeat);
            let options = AdminOptions::new()
                .request_timeout(Some(REQUEST_TIMEOUT))
                .operation_timeout(Some(REQUEST_TIMEOUT));
            for result in admin.alter_configs([&change], &options).await? {
                result.map_err(|(_, code)| SessionError::Rejected(code))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::BaseConsumer;

    #[tokio::test]
    async fn the_session_timeout_of_the_classic_protocol_is_set_in_the_members_settings() {
        let args = KafkaArgs { kafka_brokers: "127.0.0.1:1".to_owned(), partitions: 8, replication: 1 };
        for (session, heartbeat) in [(1_000, "100"), (6_000, "250"), (30_000, "1250"), (60_000, "5000")] {
            let classic = GroupProtocol::Classic;
            let mut member = kafka::membership(&args, "test", "group", classic);
            let set = set_session(&args, &mut member, "group", classic, session).await;
            assert!(set.is_ok(), "{set:?}");
            assert_eq!(member.get("session.timeout.ms"), Some(session.to_string().as_str()));
            assert_eq!(member.get("heartbeat.interval.ms"), Some(heartbeat));
            let created: Result<BaseConsumer, _> = member.create();
            assert!(created.is_ok(), "{:?}", created.err());
        }
    }
}
