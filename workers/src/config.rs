//! What a worker is told. Every argument is a flag and an environment variable.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use runtime::config::{GroupProtocol, KafkaArgs, PostgresArgs, RedisArgs, TelemetryArgs};

use crate::operator::{DeadLettersArgs, PartitionsArgs, RepairArgs};

/// The owners of Stampede's partitions: they take claims from Kafka, decide them in order, make the outcomes durable
/// in Postgres, and tell them.
///
/// Start as many as you like, up to the number of partitions; they share the partitions among themselves and take
/// over from each other. SIGTERM hands everything over in order.
#[derive(Parser, Clone, Debug)]
#[command(name = "workers", version)]
pub struct Cli {
    /// What to do; `run` where nothing is named.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads a command line. `run` need not be named: `workers --group x` is `workers run --group x`.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let first = args.get(1).and_then(|first| first.to_str());
        let names_a_command = first.is_some_and(|first| {
            Self::command().get_subcommands().any(|known| known.get_name() == first)
                || ["help", "-h", "--help", "-V", "--version"].contains(&first)
        });
        if !names_a_command {
            args.insert(args.len().min(1), "run".into());
        }
        Self::parse_from(args)
    }
}

/// What the program can do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Own partitions until SIGTERM or SIGINT; what happens without a command.
    Run(RunArgs),
    /// Bring the database's schema up to date and end. (`run` does so too; many at once are no problem.)
    Migrate(MigrateArgs),
    /// Show how every partition stands: its owner, epoch, write number, next offset, the log's bounds, lag, outcomes
    /// written and not told yet, and whether it is in order or would stop, and why. Changes nothing.
    Partitions(PartitionsArgs),
    /// Let partitions that have stopped go on from where you say. Their owners notice by themselves, within seconds.
    ///
    /// A partition stops where going on could lose or double something; only you can decide that it may. Refuses
    /// partitions in order; records who, when, why, and what was skipped, in table stampede.repairs.
    Repair(RepairArgs),
    /// List and replay records that could not be processed.
    DeadLetters(DeadLettersArgs),
}

/// Arguments of `workers migrate`.
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// What is logged.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Arguments of `workers run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Where Redis is.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// What is logged.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Where /healthz, /readyz and /metrics are served. Port 0 takes a free one, which is logged.
    #[arg(long, env = "STAMPEDE_PROBE_LISTEN", default_value = "0.0.0.0:9091")]
    pub probe_listen: SocketAddr,

    /// What this worker is called, in logs and in Postgres. Default: host name and process id.
    #[arg(long, env = "STAMPEDE_WORKER_ID")]
    pub worker_id: Option<String>,

    /// The consumer group that spreads the partitions over workers. All workers of one system share it.
    #[arg(long, env = "STAMPEDE_GROUP", default_value = "stampede-workers")]
    pub group: String,

    /// How the group agrees: `consumer` needs brokers from 4.0, `classic` works with any.
    #[arg(long, env = "STAMPEDE_GROUP_PROTOCOL", value_enum, default_value_t = GroupProtocol::Consumer)]
    pub group_protocol: GroupProtocol,

    /// Milliseconds after which a worker that does not get around to ask for its partitions is taken for dead by its
    /// own client, although its machine is well; others take over then.
    #[arg(long, env = "STAMPEDE_MAX_POLL_INTERVAL_MS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u32).range(1_000..=3_600_000))]
    pub max_poll_interval_ms: u32,

    /// Records that one write to Postgres may carry at most.
    #[arg(long, env = "STAMPEDE_BATCH_RECORDS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub batch_records: u32,

    /// Connections to Postgres for reading, shared by all partitions; each partition has one more for writing.
    #[arg(long, env = "STAMPEDE_READ_CONNECTIONS", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub read_connections: u32,

    /// Connections to Postgres that are kept open for partitions that are yet to be taken over: as many partitions at
    /// once are taken over without waiting for one.
    #[arg(long, env = "STAMPEDE_SPARE_CONNECTIONS", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(0..=256))]
    pub spare_connections: u32,

    /// How long the group waits for a worker that says nothing before its partitions go to others, in milliseconds.
    /// `classic`: 6000 where it is not set. `consumer`: this is the group's own configuration, which the brokers keep
    /// (within `group.consumer.min.session.timeout.ms` and `max`); a worker sets it at its start, or leaves it as it is.
    #[arg(long, env = "STAMPEDE_SESSION_TIMEOUT_MS",
          value_parser = clap::value_parser!(u32).range(500..=1_800_000))]
    pub session_timeout_ms: Option<u32>,
}

impl RunArgs {
    /// What this worker is called.
    #[must_use]
    pub fn worker_id(&self) -> String {
        self.worker_id.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = if host.trim().is_empty() { "worker" } else { host.trim() };
            format!("{host}-{}", std::process::id())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_need_not_be_named() {
        let servers =
            ["--kafka-brokers", "k:9092", "--postgres-url", "postgres://p", "--redis-url", "redis://r"];
        for named in [None, Some("run")] {
            let args = ["workers"].into_iter().chain(named).chain(servers).map(OsString::from);
            assert!(matches!(Cli::from_args(args).command, Command::Run(_)));
        }
        let migrate = ["workers", "migrate", "--postgres-url", "postgres://p"].map(OsString::from);
        assert!(matches!(Cli::from_args(migrate).command, Command::Migrate(_)));
    }
}
