//! The connections on which a proxy can stand.

use std::fmt;

/// The connections of one of our programs to one kind of server; displayed as `workers-to-postgres`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxiedLink {
    /// Every worker's connections to every broker.
    WorkersToKafka,
    /// Every worker's connections to Postgres.
    WorkersToPostgres,
    /// Every worker's connections to Redis.
    WorkersToRedis,
    /// Every `ingest-api`'s connections to every broker.
    ApisToKafka,
    /// Every `ingest-api`'s connections to Postgres.
    ApisToPostgres,
}

impl ProxiedLink {
    /// All links.
    pub const ALL: [Self; 5] = [
        Self::WorkersToKafka,
        Self::WorkersToPostgres,
        Self::WorkersToRedis,
        Self::ApisToKafka,
        Self::ApisToPostgres,
    ];

    /// Name of the broker's listener behind the proxy; `None` for links that do not lead to Kafka.
    pub(crate) const fn kafka_listener(self) -> Option<&'static str> {
        match self {
            Self::WorkersToKafka => Some("WORKERS"),
            Self::ApisToKafka => Some("APIS"),
            Self::WorkersToPostgres | Self::WorkersToRedis | Self::ApisToPostgres => None,
        }
    }

    /// Name of the proxy's port in front of the `n`-th server.
    pub(crate) fn port_name(self, n: usize) -> String {
        format!("{self}/{n}")
    }
}

impl fmt::Display for ProxiedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkersToKafka => "workers-to-kafka",
            Self::WorkersToPostgres => "workers-to-postgres",
            Self::WorkersToRedis => "workers-to-redis",
            Self::ApisToKafka => "apis-to-kafka",
            Self::ApisToPostgres => "apis-to-postgres",
        })
    }
}
