//! Command-line arguments of the operator commands.

use std::str::FromStr;

use clap::{Args, Subcommand};
use runtime::config::{KafkaArgs, PostgresArgs};

/// The servers that a command connects to.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Postgres.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Consumer group of the workers.
    #[arg(long, env = "STAMPEDE_GROUP", default_value = "stampede-workers")]
    pub group: String,
}

/// Arguments of `workers partitions`.
#[derive(Args, Clone, Debug)]
pub struct PartitionsArgs {
    /// The servers.
    #[command(flatten)]
    pub servers: Servers,
    /// Print one JSON object per line, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Where a partition resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeFrom {
    /// The offset recorded in Postgres: nothing is skipped.
    Recorded,
    /// The first record in the log.
    Earliest,
    /// The end of the log: all pending records are skipped.
    Latest,
    /// This offset.
    Offset(i64),
}

impl FromStr for ResumeFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "recorded" => Ok(Self::Recorded),
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match text.parse() {
                Ok(offset @ 0..) => Ok(Self::Offset(offset)),
                _ => Err("expected recorded, earliest, latest, or an offset".to_owned()),
            },
        }
    }
}

/// Arguments of `workers repair`.
#[derive(Args, Clone, Debug)]
pub struct RepairArgs {
    /// The servers.
    #[command(flatten)]
    pub servers: Servers,

    /// Partitions to repair, as listed by `workers partitions`; separated by commas.
    #[arg(id = "repaired", long = "partition", value_name = "PARTITION", required = true, value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    pub partitions: Vec<i32>,

    /// Where to resume: `recorded` (the offset recorded in Postgres: nothing is skipped, the log is decided again from
    /// there; after a backup was restored), `earliest` (the first record in the log; after retention was too short, or
    /// the topic was recreated), `latest` (the end of the log: all pending records are skipped), or an offset.
    #[arg(long, value_name = "recorded|earliest|latest|OFFSET")]
    pub resume_from: ResumeFrom,

    /// Reason, recorded in the table `stampede.repairs`.
    #[arg(long, value_parser = parse_text)]
    pub reason: String,

    /// Who repairs, recorded in the table `stampede.repairs`.
    #[arg(long, env = "USER", default_value = "unknown", value_parser = parse_text)]
    pub who: String,

    /// Perform the repair. Without it, the command prints what it would do, and fails.
    #[arg(long)]
    pub confirm: bool,

    /// Repair even if this command finds no fault: for a partition that stops at the same record again and again.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `workers reject`.
#[derive(Args, Clone, Debug)]
pub struct RejectArgs {
    /// Postgres.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// The partition that waits.
    #[arg(id = "waiting", long = "partition", value_name = "PARTITION", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: i32,
    /// The record, as reported by /readyz and in the log of the partition's worker.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: i64,
    /// Also the records after it, up to this offset. Default: the one record.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub through: Option<i64>,
    /// Reason, recorded in the table `stampede.rejected_records`.
    #[arg(long, value_parser = parse_text)]
    pub reason: String,
    /// Who has them rejected, recorded in the same table.
    #[arg(long, env = "USER", default_value = "unknown", value_parser = parse_text)]
    pub who: String,
}

fn parse_text(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 1_000 || text.contains('\0') {
        return Err("expected a text of 1 to 1,000 characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Arguments of `workers dead-letters`.
#[derive(Args, Clone, Debug)]
pub struct DeadLettersArgs {
    /// The operation.
    #[command(subcommand)]
    pub command: DeadLetterCommand,
}

/// Operations on dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum DeadLetterCommand {
    /// List the newest dead letters: id, time, reason, origin, whether it can be replayed, key, length, error.
    /// Control and invisible characters are escaped.
    List(ListArgs),
    /// Produce records to coupon.requests again, unchanged, to the partition of their key. They are decided like any
    /// other record; a request that was decided before keeps its stored outcome. Dead letters that were truncated, or
    /// that have no value or no key, are rejected.
    Replay(ReplayArgs),
}

/// Arguments of `workers dead-letters list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Maximum number of dead letters; the newest is last.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Only dead letters with this reason.
    #[arg(long)]
    pub reason: Option<String>,
    /// Print one JSON object per line, for programs.
    #[arg(long)]
    pub json: bool,
}

/// The position of a dead letter: partition and offset in `coupon.dead-letters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(partition, offset)| {
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        parts
            .filter(|id| id.partition >= 0 && id.offset >= 0)
            .ok_or_else(|| "expected PARTITION:OFFSET, as listed by `workers dead-letters list`".to_owned())
    }
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// Arguments of `workers dead-letters replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Postgres, which has the recorded number of partitions.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Dead letters to replay: PARTITION:OFFSET as listed by `list`; separated by commas.
    #[arg(
        long = "offset",
        value_name = "PARTITION:OFFSET",
        value_delimiter = ',',
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub letters: Vec<LetterId>,
    /// Replay all that can be replayed, up to the present end of the topic.
    #[arg(long)]
    pub all: bool,
    /// With --all: only dead letters with this reason.
    #[arg(long, requires = "all")]
    pub reason: Option<String>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_positions_and_letter_ids_are_parsed_or_rejected() {
        for (text, expected) in [
            ("recorded", Some(ResumeFrom::Recorded)),
            ("earliest", Some(ResumeFrom::Earliest)),
            ("latest", Some(ResumeFrom::Latest)),
            ("0", Some(ResumeFrom::Offset(0))),
            ("-1", None),
            ("beginning", None),
        ] {
            assert_eq!(text.parse::<ResumeFrom>().ok(), expected, "{text}");
        }
        assert_eq!("3:42".parse(), Ok(LetterId { partition: 3, offset: 42 }));
        for bad in ["3", "3:", ":4", "-1:4", "3:-4", "3:4:5"] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad}");
        }
    }
}
