//! The command line of `loadtest verify`.

use std::path::PathBuf;

use clap::Args;

use crate::config::WORKERS;

/// Checks Postgres, the Kafka topics, Redis and a history of clients against every invariant, from outside.
///
/// It only reads, shares no decision logic with the code that it checks, and may run at any time: at rest, under load,
/// or after a failure. It checks one point in time. Requests that are accepted but not decided at that point are in
/// flight, not lost.
#[derive(Args, Clone)]
#[command(after_long_help = EXAMPLES)]
pub struct VerifyArgs {
    /// The data directory of a stack on this machine; all addresses are read from it.
    /// Default, unless --postgres and --kafka are given: the directory that `deploy/run` uses.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Postgres: postgres://user:password@host:port/database. The user must have read access to the schema `stampede`.
    #[arg(
        long,
        alias = "postgres-url",
        value_name = "URL",
        env = "STAMPEDE_POSTGRES_URL",
        hide_env_values = true
    )]
    pub postgres: Option<String>,

    /// Kafka brokers: host:port, comma-separated.
    #[arg(long, alias = "kafka-brokers", value_name = "BROKERS", env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka: Option<String>,

    /// Redis: redis://user:password@host:port/database. Its lists are reported as notes, never as violations.
    #[arg(long, alias = "redis-url", value_name = "URL", env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,

    /// The workers' consumer group.
    #[arg(long, env = "STAMPEDE_GROUP", default_value = WORKERS)]
    pub group: String,

    /// Base URLs of the probe ports of workers and APIs, comma-separated. Without them I12 is not checked.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub probes: Vec<String>,

    /// What clients sent and received, recorded by `loadtest sale --history` or `loadtest fire --history`.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Check immediately. By default the stack gets some time to settle first, because a settled stack can be checked
    /// for unfinished work as well.
    #[arg(long)]
    pub live: bool,

    /// How long the stack may take to settle. A stack that is still busy then is checked as it is.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub settle_timeout: u64,

    /// Print the report as one line of JSON, the last line of standard output; the table goes to standard error.
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Exit codes:
  0  no violation
  1  an invariant is violated
  2  something could not be checked: a server does not respond, the tables have another version, the history cannot be
     read, or records stay pending; no violation was found in the rest

Examples:
  loadtest verify                                    the stack that deploy/run has started
  loadtest verify --data-dir /var/lib/stampede       any stack on this machine
  loadtest verify --live --json | tail -n 1          under load, for a program
  loadtest verify --postgres postgres://reader@db/stampede --kafka kafka-0:9092,kafka-1:9092 --redis redis://cache/ \\
      --probes http://worker-0:9000,http://api-0:9000 --history sale.jsonl

JSON:
  {\"invariants\": [{\"id\", \"title\", \"checked\", \"violations\", \"offenders\"}], \"violations\", \"unchecked\": [],
   \"unresolved\", \"given_twice\", \"in_flight\", \"notes\": []}
  checked is null where an invariant was not checked; offenders are the first five; unchecked gives the reasons for
  exit code 2";
