//! The benchmark: Stampede beside what it could be held against, in the same run on the same machine.
//!
//! Machines differ and are noisy: arms are interleaved (A B, B A, …), each round has servers of its own that were just
//! started, every arm is warmed up there with fewer claims, and what counts is the ratio within a round: its median,
//! and how far the rounds lie apart. Whatever is measured is counted afterwards, or there is no figure.
//!
//! Reading order: [`arm`] (what can be measured), [`ground`] (where), [`drain`] and [`direct`] (the frames), one file
//! per arm, [`report`].

pub mod arm;
pub mod backlog;
pub mod cpu;
pub mod direct;
pub mod drain;
pub mod ground;
pub mod hot_drain;
pub mod machine;
pub mod pg_ceiling;
pub mod redeem_drain;
pub mod report;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use local_stack::{Profile, Programs, StackError, interrupted};
use rdkafka::error::KafkaError;
use schemas::EncodeError;
use thiserror::Error;

use crate::checker::{CheckError, Report};
use crate::screen::Screen;
use arm::{Arm, Sample};
use ground::Ground;
use report::Rounds;

/// A share of the requests, taken before anything is measured.
const WARM_UP: u64 = 20;
const SMALLEST_WARM_UP: u64 = 20_000;
const INTERRUPTED: u8 = 130;

/// Stampede beside what it could be held against, in the same run on the same machine.
///
/// Builds the programs, starts real servers for each round on an empty disk with fsync on, takes the arms in turn
/// (A B, B A, …), and prints requests per second, CPU per request, and the ratios with their spread. Takes a few minutes
/// for a round of a million requests.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    /// What to measure: hot-drain, redeem-drain, pg-ceiling [default: all]
    #[arg(value_name = "ARM")]
    pub arms: Vec<String>,

    /// How often each arm is measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,

    /// Claims, or other requests, in each measurement.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub claims: u64,

    /// Prints the result as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Where `workers` and `ingest-api` are, instead of building them in release mode.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p loadtest -- bench
  cargo run --release -p loadtest -- bench hot-drain pg-ceiling --rounds 5
  cargo run --release -p loadtest -- bench redeem-drain --claims 200000 --json | tail -n 1";

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The name of no arm.
    #[error("there is no arm {name:?}; there are {known}")]
    UnknownArm {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The servers.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// Nothing is durable there.
    #[error("{} lies on {name}, where nothing is durable: set TMPDIR to a directory on a disk", path.display())]
    InMemory {
        /// The data directory.
        path: PathBuf,
        /// The file system.
        name: &'static str,
    },
    /// A commit is not durable.
    #[error("Postgres has {name} = {value}: with that, no figure means anything")]
    NotDurable {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Postgres refuses.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Kafka refuses.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// A request cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Not as many as there should be.
    #[error("{what}: {found} where there should be {wanted}; the figure is void")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there should be.
        wanted: u64,
        /// How many there are.
        found: i64,
    },
    /// Something that should happen does not.
    #[error("{what} within {} s", after.as_secs())]
    Stuck {
        /// What.
        what: &'static str,
        /// For how long it was waited for.
        after: Duration,
    },
    /// The worker stands still, or has ended.
    #[error("the worker stopped at {told} of {requests} requests; its last line was \"{last_line}\"")]
    Stopped {
        /// Responses until then.
        told: u64,
        /// Requests there were.
        requests: u64,
        /// Last line of its log.
        last_line: String,
    },
    /// The checker could not do its work.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// An invariant is broken: whatever was measured, it was not Stampede.
    #[error("an invariant is broken; the figure is void\n{0}")]
    Broken(Box<Report>),
    /// A task was lost.
    #[error("a task of the benchmark was lost")]
    Lost,
    /// Reading /proc, or printing.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs it.
///
/// # Errors
/// [`BenchError`]; then no figure is printed.
pub async fn run(args: BenchArgs) -> Result<ExitCode, BenchError> {
    let screen = Screen::default();
    let arms = chosen(&args.arms)?;
    let measured = tokio::select! {
        signal = pin!(interrupted()) => {
            screen.say(&format!("{}: no figures", signal?));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        measured = measure(&args, &arms, &screen) => measured?,
    };
    let table = report::table(&arms, &measured);
    if args.json {
        io::stderr().write_all(table.as_bytes())?;
        let json = serde_json::to_string(&report::figures(&arms, &measured)).map_err(io::Error::from)?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(table.as_bytes())?;
    }
    io::stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> Result<Vec<&'static dyn Arm>, BenchError> {
    if names.is_empty() {
        return Ok(arm::ALL.to_vec());
    }
    let find = |name: &String| {
        arm::ALL.iter().copied().find(|arm| arm.name() == name).ok_or_else(|| BenchError::UnknownArm {
            name: name.clone(),
            known: arm::ALL.iter().map(|arm| arm.name()).collect::<Vec<_>>().join(", "),
        })
    };
    names.iter().map(find).collect()
}

/// One sample of every arm for every round.
async fn measure(args: &BenchArgs, arms: &[&'static dyn Arm], screen: &Screen) -> Result<Rounds, BenchError> {
    let programs = match &args.programs {
        Some(dir) => Programs::in_dir(dir)?,
        None => {
            screen.say("building the programs");
            Programs::build(&[], Profile::Release).await?
        }
    };
    let mut rounds = Rounds::default();
    for round in 0..args.rounds {
        screen.say(&format!("round {} of {}: starting servers", round + 1, args.rounds));
        let mut ground = Ground::start(&programs).await?;
        if round == 0 {
            screen.print(&ground.describe().await?);
        }
        let done = one_round(args, arms, round, &mut ground, screen).await;
        ground.stack.stop().await?;
        rounds.0.push(done?);
    }
    Ok(rounds)
}

async fn one_round(
    args: &BenchArgs,
    arms: &[&'static dyn Arm],
    round: u64,
    ground: &mut Ground,
    screen: &Screen,
) -> Result<Vec<Sample>, BenchError> {
    let warm_up = (args.claims / WARM_UP).max(SMALLEST_WARM_UP).min(args.claims);
    for arm in arms {
        let sample = arm.run(ground, warm_up).await?;
        screen.say(&format!("{}, warming up: {:.0} requests/s", arm.name(), sample.per_second()));
    }
    let mut order: Vec<usize> = (0..arms.len()).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    let mut samples: Vec<(usize, Sample)> = Vec::new();
    for at in order {
        let sample = arms[at].run(ground, args.claims).await?;
        screen.say(&format!("{}: {}", arms[at].name(), report::line(&sample)));
        samples.push((at, sample));
    }
    samples.sort_by_key(|(at, _)| *at);
    Ok(samples.into_iter().map(|(_, sample)| sample).collect())
}
