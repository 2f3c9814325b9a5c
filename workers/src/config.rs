//! The options of a worker. Every option is a flag and an environment variable.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use coupon_core::machine::DEFAULT_RECENT_IDS_MIB;
use runtime::config::{GroupProtocol, KafkaArgs, PostgresArgs, RedisArgs, TelemetryArgs};

use crate::operator::{DeadLettersArgs, PartitionsArgs, RejectArgs, RepairArgs};

/// The owners of Stampede's partitions: they read requests from Kafka, decide them in order, write the outcomes to
/// Postgres and publish them.
///
/// Start as many workers as needed, up to the number of partitions. They share the partitions and take over from each
/// other. SIGTERM hands all partitions over.
#[derive(Parser, Clone, Debug)]
#[command(name = "workers", version)]
pub struct Cli {
    /// The command; `run` if none is named.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses a command line. `run` may be omitted: `workers --group x` is `workers run --group x`.
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

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Own partitions until SIGTERM or SIGINT. The default command.
    Run(RunArgs),
    /// Apply pending database migrations and exit. Workers and API instances of the previous release continue meanwhile.
    Migrate(MigrateArgs),
    /// Show the status of every partition: owner, epoch, write number, next offset, bounds of the log, lag, outbox entries
    /// that are not published yet, and whether a takeover would stop, with the reason. Changes nothing.
    Partitions(PartitionsArgs),
    /// Let stopped partitions continue from an offset that you name. Their owners continue within seconds.
    ///
    /// A partition stops where continuing could lose or duplicate an outcome; only an operator can accept that. Rejects
    /// partitions that are not stopped. Records who, when, why, and what was skipped in table stampede.repairs.
    Repair(RepairArgs),
    /// Have records rejected whose append time is so far ahead of Postgres' clock that their partition waits for it. Their
    /// requests become `unprocessable`, and the partition continues within seconds. Records that are not too far ahead are
    /// decided as usual. Records who, when, why in table stampede.rejected_records.
    Reject(RejectArgs),
    /// List and replay records that could not be processed.
    DeadLetters(DeadLettersArgs),
}

/// Arguments of `workers migrate`.
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    /// Postgres.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Logging.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// After the migrations: finish the upgrade. Call it when every worker and API instance has been replaced. Workers of
    /// older releases lose their partitions and cannot take over again; what only this release can decide is accepted.
    #[arg(long)]
    pub finish: bool,
}

/// Arguments of `workers run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Postgres.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Redis.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Logging.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Apply pending database migrations before the start. For development: in production an operator runs `workers
    /// migrate`, and a worker waits for it.
    #[arg(long, env = "STAMPEDE_MIGRATE")]
    pub migrate: bool,

    /// Address that serves /healthz, /readyz and /metrics. Port 0 selects a free port, which is logged.
    #[arg(long, env = "STAMPEDE_PROBE_LISTEN", default_value = "0.0.0.0:9091")]
    pub probe_listen: SocketAddr,

    /// Name of this worker in logs and in Postgres. Default: host name and process id.
    #[arg(long, env = "STAMPEDE_WORKER_ID")]
    pub worker_id: Option<String>,

    /// The consumer group that assigns partitions to workers. All workers of one system share it.
    #[arg(long, env = "STAMPEDE_GROUP", default_value = "stampede-workers")]
    pub group: String,

    /// The group protocol: `consumer` needs brokers from 4.0, `classic` works with any.
    #[arg(long, env = "STAMPEDE_GROUP_PROTOCOL", value_enum, default_value_t = GroupProtocol::Consumer)]
    pub group_protocol: GroupProtocol,

    /// Milliseconds without a poll after which the Kafka client leaves the group, although its heartbeats continue; other
    /// workers then take over.
    #[arg(long, env = "STAMPEDE_MAX_POLL_INTERVAL_MS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u32).range(1_000..=3_600_000))]
    pub max_poll_interval_ms: u32,

    /// Maximum records in one write to Postgres.
    #[arg(long, env = "STAMPEDE_BATCH_RECORDS", default_value_t = 2_000,
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub batch_records: u32,

    /// Hours within which a request that is sent again gets its first outcome. Longer windows make the look-up of possible
    /// duplicates more expensive, one table per day.
    #[arg(long, env = "STAMPEDE_DEDUPLICATION_HOURS", default_value_t = 48,
          value_parser = clap::value_parser!(u32).range(1..=720))]
    pub deduplication_hours: u32,

    /// Days for which outcomes other than claims and redemptions are kept; then their tables are dropped. The API returns 410
    /// for older requests: it has the same option.
    #[arg(long, env = "STAMPEDE_RETENTION_DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(i32).range(1..=3_650))]
    pub retention_days: i32,

    /// MiB of memory in each partition for the ids of recent requests, used under load. Requests whose ids do not fit are
    /// looked up in Postgres instead.
    #[arg(long, env = "STAMPEDE_RECENT_IDS_MIB", default_value_t = DEFAULT_RECENT_IDS_MIB as u32,
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub recent_ids_mib: u32,

    /// Connections to Postgres for reading, shared by all partitions. Each partition has one more for writing.
    #[arg(long, env = "STAMPEDE_READ_CONNECTIONS", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    pub read_connections: u32,

    /// Idle connections to Postgres that are kept open for takeovers: so many partitions can be taken over at the same
    /// time without opening one.
    #[arg(long, env = "STAMPEDE_WARM_CONNECTIONS", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(0..=256))]
    pub warm_connections: u32,

    /// Milliseconds by which a record's append time may be ahead of Postgres' clock. A record further ahead makes its
    /// partition wait and report: it would end every hold. Set it below the shortest hold or lock.
    #[arg(long, env = "STAMPEDE_MAX_TIME_AHEAD_MS", default_value_t = 30_000,
          value_parser = clap::value_parser!(i64).range(1_000..=86_400_000))]
    pub max_time_ahead_ms: i64,

    /// Session timeout in milliseconds: how long the group waits for heartbeats of a worker before it reassigns its
    /// partitions. `classic`: default 6000. `consumer`: configuration of the group, stored by the brokers (within
    /// `group.consumer.min.session.timeout.ms` and `max`); a worker sets it at its start if this option is set.
    #[arg(long, env = "STAMPEDE_SESSION_TIMEOUT_MS",
          value_parser = clap::value_parser!(u32).range(500..=1_800_000))]
    pub session_timeout_ms: Option<u32>,
}

impl RunArgs {
    /// The deduplication window, in milliseconds.
    #[must_use]
    pub fn deduplication_ms(&self) -> i64 {
        i64::from(self.deduplication_hours) * 3_600_000
    }

    /// The name of this worker.
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
    fn run_may_be_omitted() {
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
