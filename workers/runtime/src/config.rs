//! The command-line arguments that programs share. Each is a flag and an environment variable `STAMPEDE_…`; a program
//! flattens the groups it needs into its own arguments. Secrets never appear in `--help` or in logs.

use clap::{Args, ValueEnum};
use secrecy::SecretString;

/// Kafka's address, and the settings of topics that are created.
#[derive(Args, Clone, Debug)]
pub struct KafkaArgs {
    /// Kafka brokers as host:port, separated by commas.
    #[arg(long, env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// Partitions of every topic. Applies only when the topics are first created; coupons never change partition, so
    /// allow for growth.
    #[arg(long, env = "STAMPEDE_PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=4096))]
    pub partitions: i32,

    /// Replication factor of topics that are created.
    #[arg(long, env = "STAMPEDE_REPLICATION", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=9))]
    pub replication: i32,
}

/// Postgres' address.
#[derive(Args, Clone, Debug)]
pub struct PostgresArgs {
    /// Postgres URL: postgres://user:password@host:port/database.
    #[arg(long, env = "STAMPEDE_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: SecretString,
}

/// Redis' address.
#[derive(Args, Clone, Debug)]
pub struct RedisArgs {
    /// Redis URL: redis://user:password@host:port/database.
    #[arg(long, env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis_url: SecretString,
}

/// Log level and format.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Log filter: a level, or directives such as `info,workers=debug`.
    #[arg(long = "log", env = "STAMPEDE_LOG", default_value = "info")]
    pub log: String,

    /// Format of log lines on standard error.
    #[arg(long, env = "STAMPEDE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// Protocol by which members of the consumer group are assigned partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupProtocol {
    /// KIP-848: the broker assigns. Brokers from 4.0.
    Consumer,
    /// The members assign, cooperatively. Any broker.
    Classic,
}
