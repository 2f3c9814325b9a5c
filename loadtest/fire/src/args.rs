//! The options of a fault run.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Injects faults into the whole stack under mixed load, in an order that a seed determines. Then the checker compares what
/// clients received, the topics and Postgres with the invariants.
///
/// A run continues until every scenario was injected once. Exit code 0: clean; 1: an invariant is violated, or a request has
/// no outcome; 2: the run could not be performed.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct FireArgs {
    /// How long faults are injected.
    #[arg(long, value_name = "M", default_value = "5")]
    pub minutes: Positive,

    /// Seeds the order of faults and the actions of clients. Random if absent; it is printed.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Only these scenarios, with commas between them.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub only: Vec<String>,

    /// All scenarios but these.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub except: Vec<String>,

    /// Requests per second, independent of outstanding requests [default: 400, with --dev 40].
    #[arg(long, value_name = "N/s")]
    pub rate: Option<Positive>,

    /// Seconds between recovery from one fault and the next fault, on average [default: such that every scenario is injected,
    /// at most 10].
    #[arg(long, value_name = "SECONDS")]
    pub every: Option<Positive>,

    /// How long the load runs without faults first, for comparison; 0: not at all [default: --minutes].
    #[arg(long, value_name = "MINUTES")]
    pub calm: Option<f64>,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,

    /// API processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    pub apis: u64,

    /// Kafka brokers; with three, every record has three replicas, of which two must acknowledge it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=5))]
    pub brokers: u64,

    /// Partitions of every topic.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: u32,

    /// Directory of `workers` and `ingest-api`, built with the crash-point features. They are built first if absent.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,

    /// Builds unoptimised programs, as the tests do.
    #[arg(long, conflicts_with = "programs")]
    pub dev: bool,

    /// Keeps data and logs here; those of an earlier run are deleted. Temporary if absent.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Writes what every client sent and received to this file, one JSON object per line, for `loadtest verify`.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// Lists the scenarios, the faults that each covers, and its requirements.
    #[arg(long)]
    pub list: bool,

    /// Prints the figures as one JSON object in the last line of standard output, and everything else to standard
    /// error.
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "Examples:
  loadtest fire --minutes 5 --seed 1
  loadtest fire --minutes 1 --only kill-worker,flush-redis --rate 200/s --calm 0.5
  loadtest fire --minutes 30 --every 10 --json | tail -n 1";

/// A number above 0, with or without the suffix `/s`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Positive(f64);

impl Positive {
    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Positive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 =
            text.trim_end_matches("/s").parse().map_err(|_| format!("{text} is not a number"))?;
        if number > 0.0 && number <= 1e9 { Ok(Self(number)) } else { Err(format!("{text} is not above 0")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_above_zero_with_or_without_its_unit() {
        assert_eq!(Positive::from_str("500/s"), Ok(Positive(500.0)));
        assert_eq!(Positive::from_str("2.5"), Ok(Positive(2.5)));
        for wrong in ["0", "-1", "NaN", "inf", "fast", "/s", ""] {
            assert!(Positive::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
