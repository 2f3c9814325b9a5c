//! What a demonstration sale can be asked for.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use local_stack::Child;

/// The whole of Stampede on this machine, and a demonstration sale on it.
///
/// Starts real Kafka, Redis and Postgres, one ingest-api and the workers as child processes, waits until each is
/// healthy, makes a new coupon with generated codes, and lets users loose on it: each claims one code, some hundreds
/// at the same time. What comes out is counted from Postgres and from what the users were told, and every invariant is
/// checked. Then everything stays up until Ctrl-C, with URLs, tokens and curl commands to go on with.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct SaleArgs {
    /// Codes in the new coupon.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub codes: u64,

    /// Users; each of them claims once.
    #[arg(long, value_name = "N", default_value = "5000")]
    pub users: NonZeroU64,

    /// How many users are waiting for their answer at any time.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub in_flight: u64,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,

    /// Sends SIGKILL to one of them when a third of the users have their answer. It is started again, and nothing may
    /// be lost or doubled. The worker is the one that owns the coupon.
    #[arg(long, value_name = "WHAT")]
    pub kill: Option<Victim>,

    /// Port of the API. All other ports are free ones, and printed.
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Ends after the sale. Exit code 1 if any invariant is broken, 0 otherwise.
    #[arg(long)]
    pub once: bool,

    /// Prints the figures as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Drops the data of earlier runs first. Without it data is kept from run to run.
    #[arg(long)]
    pub fresh: bool,

    /// Where data and logs are kept [default: /var/lib/stampede for root, else below $XDG_DATA_HOME].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  deploy/run                               the sale, then the stack stays up until Ctrl-C
  deploy/run --once                        the sale only; the exit code tells whether all went well
  deploy/run --once --json | tail -n 1     its figures, for a program
  deploy/run --codes 20000 --users 30000 --workers 3
  deploy/run --kill worker                 the same with a worker killed in the middle of it
  deploy/run --kill kafka --once           … or the broker; also redis and postgres
  deploy/run --fresh --port 9090           an empty stack on another port

The keys of --json:
  attempts     users who claimed; retries of one user count once. won + sold_out + other rejections + unresolved
  won          users who were told a code that Postgres says is theirs
  sold_out     users who were told that nothing is left, answers of the sold-out gate included
  redeemed     codes of this coupon redeemed
  unresolved   requests that were accepted (202) and have no final outcome, at the client or in Postgres
  given_twice  codes given to two users, by Postgres' rows or by what the users were told
  p50_ms, p95_ms, p99_ms    from a user's first attempt to their answer, retries and waiting included
  seconds      from the first claim to the last answer
  killed_at    how many users had their answer when --kill struck; null without it";

/// What `--kill` can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The worker that owns the coupon's partition.
    Worker,
    /// Redis, with everything in it.
    Redis,
    /// Postgres.
    Postgres,
    /// The Kafka broker.
    Kafka,
}

impl Victim {
    /// Which child that is; `owner` is the worker that owns the coupon.
    #[must_use]
    pub const fn child(self, owner: Child) -> Child {
        match self {
            Self::Worker => owner,
            Self::Redis => Child::Redis,
            Self::Postgres => Child::Postgres,
            Self::Kafka => Child::Kafka,
        }
    }
}
