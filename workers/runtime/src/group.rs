//! How long the consumer group waits for a member that says nothing.
//!
//! With the classic protocol every member says so itself. With the other one (KIP-848) it is the group's own
//! configuration, which the brokers keep.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

use crate::config::{GroupProtocol, KafkaArgs};
use crate::kafka;

const ASK: Duration = Duration::from_secs(5);

/// The brokers keep the session timeout that they have.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Kafka cannot be asked.
    #[error("Kafka cannot be asked: {0}")]
    Kafka(#[from] KafkaError),
    /// Kafka refuses.
    #[error(
        "Kafka refuses ({0}); its brokers allow a session timeout between group.consumer.min.session.timeout.ms and \
         group.consumer.max.session.timeout.ms, and a heartbeat between group.consumer.min.heartbeat.interval.ms and max"
    )]
    Refused(RDKafkaErrorCode),
}

/// Sets the session timeout of a group, in milliseconds, and the heartbeat that fits: in the settings of a member with
/// the classic protocol, else with the brokers.
///
/// # Errors
/// [`SessionError`]: the group goes on with what the brokers have.
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
            let wanted = AlterConfig::new(ResourceSpecifier::Group(group))
                .set("consumer.session.timeout.ms", &session)
                .set("consumer.heartbeat.interval.ms", &heartbeat);
            let options = AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK));
            for answer in admin.alter_configs([&wanted], &options).await? {
                answer.map_err(|(_, code)| SessionError::Refused(code))?;
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
    async fn members_of_the_classic_protocol_carry_the_session_timeout_themselves() {
        let args = KafkaArgs { kafka_brokers: "127.0.0.1:1".to_owned(), partitions: 8, replication: 1 };
        for (session, heartbeat) in [(1_000, "100"), (6_000, "250"), (30_000, "1250"), (60_000, "5000")] {
            let classic = GroupProtocol::Classic;
            let mut member = kafka::membership(&args, "test", "group", classic);
            let set = set_session(&args, &mut member, "group", classic, session).await;
            assert!(set.is_ok(), "{set:?}");
            assert_eq!(member.get("session.timeout.ms"), Some(session.to_string().as_str()));
            assert_eq!(member.get("heartbeat.interval.ms"), Some(heartbeat));
            let made: Result<BaseConsumer, _> = member.create();
            assert!(made.is_ok(), "{:?}", made.err());
        }
    }
}
