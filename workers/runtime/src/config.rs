//! The arguments that programs share. Every one has a flag and an environment variable `STAMPEDE_…`; a program
//! flattens the groups that it needs into its own. Secrets never show in `--help` or in logs.

use clap::{Args, ValueEnum};
use secrecy::SecretString;

/// Where Kafka is, and what topics look like when they are made.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    /// Kafka's brokers: host:port, several with commas.
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// Partitions of every topic. Used at the very first start only: coupons never move, so choose generously.
    #[arg(long, env = "STAMPEDE_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=4096))]
    pub partitions: i32,

    /// Replicas of every topic that is made here.
    #[arg(long, env = "STAMPEDE_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    pub replication: i32,
}

/// Where Postgres is.
#[derive(Args, Clone, Debug)]
pub struct PostgresArgs {
    /// Postgres: postgres://user:password@host:port/database.
    #[arg(long, env = "STAMPEDE_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: SecretString,
}

/// Where Redis is.
#[derive(Args, Clone, Debug)]
pub struct RedisArgs {
    /// Redis: redis://user:password@host:port/database.
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis_url: SecretString,
}

/// What is logged, and how.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// What to log: a level, or directives such as `info,workers=debug`.
    #[arg(long = "log", env = "STAMPEDE_LOG", default_value = "info")]
    pub log: String,

    /// How lines are written to standard error.
    #[arg(long, env = "STAMPEDE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// How members of the consumer group agree on who has which partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupProtocol {
    /// KIP-848: the broker decides. Brokers from 4.0.
    Consumer,
    /// Members decide among themselves, cooperatively. Any broker.
    Classic,
}
