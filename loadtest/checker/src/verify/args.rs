//! What a verification can be asked for.

use std::path::PathBuf;

use clap::Args;

use crate::WORKERS;

/// Holds Postgres, the Kafka topics, Redis, and what clients were told against every invariant, from outside.
///
/// Reads only, decides nothing with the code that it checks, and can be run at any time: at rest, in mid-sale, after a
/// failure. Everything is looked at as of one point in time; requests that are accepted and not decided at that point
/// are in flight, not lost.
#[derive(Args, Clone)]
#[command(after_long_help = EXAMPLES)]
pub struct VerifyArgs {
    /// A stack on this machine: all that is needed stands in its data directory, and nothing else is looked at.
    /// Without this, and without servers named, the directory that `deploy/run` uses.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Postgres: postgres://user:password@host:port/database; a user that may read the schema `stampede`.
    #[arg(
        long,
        alias = "postgres-url",
        value_name = "URL",
        env = "STAMPEDE_POSTGRES_URL",
        hide_env_values = true
    )]
    pub postgres: Option<String>,

    /// Kafka's brokers: host:port, several with commas.
    #[arg(long, alias = "kafka-brokers", value_name = "BROKERS", env = "STAMPEDE_KAFKA_BROKERS")]
    pub kafka: Option<String>,

    /// Redis: redis://user:password@host:port/database. What its lists hold is told; nobody believes them, so it is
    /// never a violation.
    #[arg(long, alias = "redis-url", value_name = "URL", env = "STAMPEDE_REDIS_URL", hide_env_values = true)]
    pub redis: Option<String>,

    /// The workers' consumer group.
    #[arg(long, env = "STAMPEDE_GROUP", default_value = WORKERS)]
    pub group: String,

    /// Base URLs of the probe ports of workers and APIs, with commas; I12 is not looked at without them.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub probes: Vec<String>,

    /// What clients sent and were told, as a sale or a fault run has written it down.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Looks at once. Otherwise a stack is given some time to come to rest first, because at rest more can be said: that
    /// nothing is left undone.
    #[arg(long)]
    pub live: bool,

    /// How long a stack may take to come to rest. If it is at work by then, it is looked at as it is.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub patience: u64,

    /// The report as one line of JSON, the last one on standard output; the table goes to standard error.
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Exit codes:
  0  everything that was looked at is as it must be
  1  an invariant is violated
  2  something could not be checked: a server that does not answer, tables of another version, a history that cannot be
     read, records that nobody decides. That is neither clean nor broken

Examples:
  loadtest verify                                    the stack that deploy/run has started
  loadtest verify --data-dir /var/lib/stampede       any stack on this machine
  loadtest verify --live --json | tail -n 1          in mid-sale, for a program
  loadtest verify --postgres postgres://reader@db/stampede --kafka kafka-0:9092,kafka-1:9092 --redis redis://cache/ \\
      --probes http://worker-0:9000,http://api-0:9000 --history sale.jsonl

JSON:
  {\"invariants\": [{\"id\", \"title\", \"checked\", \"violations\", \"offenders\"}], \"violations\", \"unchecked\": [],
   \"unresolved\", \"given_twice\", \"in_flight\", \"notes\": []}
  checked is null where an invariant was not looked at; offenders are the first five; unchecked says why the exit code
  is 2";
