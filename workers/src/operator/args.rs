//! What the operator's commands are told.

use std::str::FromStr;

use clap::{Args, Subcommand};
use runtime::config::{KafkaArgs, PostgresArgs};

/// Where things are.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where Postgres is.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// The workers' consumer group.
    #[arg(long, env = "STAMPEDE_GROUP", default_value = "stampede-workers")]
    pub group: String,
}

/// Arguments of `workers partitions`.
#[derive(Args, Clone, Debug)]
pub struct PartitionsArgs {
    /// Where things are.
    #[command(flatten)]
    pub servers: Servers,
    /// One JSON object a line, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Where a partition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOnFrom {
    /// At the offset that Postgres has recorded: nothing is skipped.
    Recorded,
    /// At the first record that is still there.
    Earliest,
    /// Behind the last record: everything that is there now and not decided is skipped.
    Latest,
    /// At this offset.
    Offset(i64),
}

impl FromStr for GoOnFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "recorded" => Ok(Self::Recorded),
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => match text.parse() {
                Ok(offset @ 0..) => Ok(Self::Offset(offset)),
                _ => Err("recorded, earliest, latest, or an offset".to_owned()),
            },
        }
    }
}

/// Arguments of `workers repair`.
#[derive(Args, Clone, Debug)]
pub struct RepairArgs {
    /// Where things are.
    #[command(flatten)]
    pub servers: Servers,

    /// Which partitions, as `workers partitions` shows them; several with commas.
    #[arg(id = "repaired", long = "partition", value_name = "PARTITION", required = true, value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    pub partitions: Vec<i32>,

    /// Where to go on: `recorded` (where Postgres stands: nothing is skipped, the log is decided again from there;
    /// right after a restored backup), `earliest` (the first record that is still there; right after retention was
    /// too short, or the topic was recreated), `latest` (behind the last: all that is there is skipped), or an offset.
    #[arg(long, value_name = "recorded|earliest|latest|OFFSET")]
    pub go_on_from: GoOnFrom,

    /// Why, for those who read the record of it (table `stampede.repairs`) later.
    #[arg(long, value_parser = said)]
    pub reason: String,

    /// Who, for the same.
    #[arg(long, env = "USER", default_value = "unknown", value_parser = said)]
    pub who: String,

    /// Do it. Without this the command says what it would do, and fails.
    #[arg(long)]
    pub confirm: bool,

    /// Also if nothing is wrong that this command can see: for a partition that stops at one record again and again.
    #[arg(long)]
    pub although_in_order: bool,
}

fn said(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 1_000 || text.contains('\0') {
        return Err("a text of 1 to 1,000 characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Arguments of `workers dead-letters`.
#[derive(Args, Clone, Debug)]
pub struct DeadLettersArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub command: DeadLetterCommand,
}

/// What can be done with dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum DeadLetterCommand {
    /// Show the newest: id, time, reason, where it came from, whether it can be replayed, key, length, error.
    /// Control characters and the like are shown as escapes.
    List(ListArgs),
    /// Put records back on coupon.requests as they were, where their key belongs; they are decided like any other, and
    /// one that was decided before is answered with its stored outcome. Refuses what was cut when it became a dead
    /// letter, and what has no value or no key.
    Replay(ReplayArgs),
}

/// Arguments of `workers dead-letters list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How many, the newest last.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Only those with this reason.
    #[arg(long)]
    pub reason: Option<String>,
    /// One JSON object a line, for programs.
    #[arg(long)]
    pub json: bool,
}

/// Where a dead letter stands: partition and offset in `coupon.dead-letters`.
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
            .ok_or_else(|| "PARTITION:OFFSET, as `workers dead-letters list` shows it".to_owned())
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
    /// Where Kafka is.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where Postgres is: it knows how many partitions there are.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Which: PARTITION:OFFSET as `list` shows it; several with commas.
    #[arg(
        long = "offset",
        value_name = "PARTITION:OFFSET",
        value_delimiter = ',',
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub letters: Vec<LetterId>,
    /// All that can be replayed, up to what is there now.
    #[arg(long)]
    pub all: bool,
    /// With --all: only those with this reason.
    #[arg(long, requires = "all")]
    pub reason: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_go_on_and_which_letter_are_read_or_refused_in_words() {
        for (text, expected) in [
            ("recorded", Some(GoOnFrom::Recorded)),
            ("earliest", Some(GoOnFrom::Earliest)),
            ("latest", Some(GoOnFrom::Latest)),
            ("0", Some(GoOnFrom::Offset(0))),
            ("-1", None),
            ("beginning", None),
        ] {
            assert_eq!(text.parse::<GoOnFrom>().ok(), expected, "{text}");
        }
        assert_eq!("3:42".parse(), Ok(LetterId { partition: 3, offset: 42 }));
        for bad in ["3", "3:", ":4", "-1:4", "3:-4", "3:4:5"] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad}");
        }
    }
}
