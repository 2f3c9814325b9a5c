//! The benchmark: Stampede beside what it could be held against, in the same run on the same machine.
//!
//! Machines differ and are noisy: arms are interleaved (A B, B A, …), each round has servers of its own that were just
//! started and warmed up, every arm has a world of its own on them, and what counts is the ratio within a round: its
//! median, and how far the rounds lie apart. Whatever is measured is counted afterwards, or there is no figure.
//!
//! Reading order: [`arm`] (what can be measured), [`ground`] (where), [`drain`], [`scaling`], [`takeover`], [`front`]
//! and [`direct`] (the frames), [`drains`] and one file for each other arm, [`figures`], [`goals`], [`report`], [`html`].

pub mod accept;
pub mod arm;
pub mod backlog;
pub mod claim_to_outcome;
pub mod clients;
pub mod conditional_update;
pub mod cpu;
pub mod direct;
pub mod drain;
pub mod drains;
pub mod echo;
pub mod figures;
pub mod front;
pub mod gate;
pub mod goals;
pub mod ground;
pub mod headline;
pub mod html;
pub mod http_ceiling;
pub mod http_load;
pub mod machine;
pub mod memory;
pub mod overload;
pub mod pg_ceiling;
pub mod redis_lua;
pub mod report;
pub mod row_lock;
pub mod scaling;
pub mod skip_locked;
pub mod svg;
pub mod takeover;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use local_stack::{Profile, Programs, StackError, shutdown_signal};
use rdkafka::error::KafkaError;
use schemas::EncodeError;
use thiserror::Error;

use arm::Arm;
use checker::{CheckError, Report};
use figures::{Figures, Outcome, Rounds};
use ground::{Ground, Kind};
use load_support::progress::Console;

/// A share of the claims, taken before anything is measured.
const WARM_UP: u64 = 20;
/// So many times as many are offered to the arm that is warmed up over HTTP, which takes one in five of them.
const FRONT_WARM_UP: u64 = 10;
/// Fewer warm nothing up: then there is none.
const SMALLEST_WARM_UP: u64 = 20_000;
const INTERRUPTED: u8 = 130;

/// Commits of Postgres for each 1,000 requests.
pub(crate) const MARK_COMMITS: &str = "commits per 1,000";
/// The highest load that was reached.
pub(crate) const MARK_HIGHEST: &str = "highest load, claims/s";
/// Half of the takeovers: from the signal to the first outcome by the next owner, everything included.
pub(crate) const MARK_SIGNAL_TO_OUTCOME: &str = "signal to outcome ms";
/// Half of the takeovers: from the statement that shuts out the previous owner to the first outcome.
pub(crate) const MARK_FENCE_TO_OUTCOME: &str = "takeover to outcome ms";
/// The longest that any claim sent after the signal had to wait.
pub(crate) const MARK_LONGEST_WAIT: &str = "longest wait ms";

/// Stampede beside what it could be held against, in the same run on the same machine.
///
/// Builds the programs, starts real servers for each round on an empty disk with fsync on, takes the arms in turn
/// (A B, B A, …), and prints requests per second, CPU per request, the ratios with their spread, and how the goals stand.
/// A round of all arms with a million claims takes about ten minutes.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    /// What to measure; --list names them all [default: all]
    #[arg(value_name = "ARM")]
    pub arms: Vec<String>,

    /// How often each arm is measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,

    /// Claims, or other requests, in each measurement; slow designs take a share of them.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub claims: u64,

    /// Goes on where an arm fails: its figure is void, the others are shown, and the exit code is 1.
    #[arg(long)]
    pub partial: bool,

    /// Writes the report with its plots to this file, as one page of HTML that loads nothing.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Prints the result as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Names the arms, says what each is and guarantees, and ends.
    #[arg(long)]
    pub list: bool,

    /// Where `workers` and `ingest-api` are, instead of building them in release mode.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p loadtest -- bench --html report.html
  cargo run --release -p loadtest -- bench hot-drain pg-ceiling --rounds 5
  cargo run --release -p loadtest -- bench --partial --claims 200000 --json | tail -n 1";

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
    /// Redis refuses.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// A partition changed hands while nobody had a reason to give it away.
    #[error("a partition changed hands while it was measured; the figure is void")]
    Moved,
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
    /// Answers that there should not be.
    #[error("there were other answers than there should be: {found}; the figure is void")]
    Answers {
        /// What there was.
        found: String,
    },
    /// A token cannot be signed.
    #[error("a token cannot be signed: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
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
    if args.list {
        for arm in arm::ALL {
            writeln!(io::stdout(), "{:<19} {}", arm.name(), arm.about())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let console = Console::default();
    let arms = chosen(&args.arms)?;
    let programs = match &args.programs {
        // They are started elsewhere.
        Some(dir) => Programs::in_dir(&std::fs::canonicalize(dir)?)?,
        None => {
            console.log("building the programs");
            Programs::build(&[], Profile::Release).await?
        }
    };
    let plan = Plan { arms: &arms, rounds: args.rounds, claims: args.claims, partial: args.partial };
    let measured = tokio::select! {
        signal = pin!(shutdown_signal()) => {
            console.log(&format!("{}: no figures", signal?));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        measured = measure(&plan, &programs, &console) => measured?,
    };
    show(&args, &measured)
}

fn show(args: &BenchArgs, measured: &Measured) -> Result<ExitCode, BenchError> {
    let Measured { figures, rounds, ground } = measured;
    let table = report::table(figures, *rounds);
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(figures, *rounds, ground))?;
    }
    if args.json {
        io::stderr().write_all(table.as_bytes())?;
        let json = serde_json::to_string(&report::json(figures)).map_err(io::Error::from)?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(table.as_bytes())?;
    }
    io::stdout().flush()?;
    let void = figures.arms.iter().any(|arm| arm.void.is_some());
    Ok(if void { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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

/// What is to be measured.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// In the order in which they are shown.
    pub arms: &'a [&'static dyn Arm],
    /// How often.
    pub rounds: u64,
    /// Claims in each measurement.
    pub claims: u64,
    /// Whether to go on where an arm fails.
    pub partial: bool,
}

/// What was measured.
pub struct Measured {
    /// Medians and ratios.
    pub figures: Figures,
    /// How often it was measured.
    pub rounds: usize,
    /// On what, a line for each.
    pub ground: Vec<String>,
}

/// Takes every arm in every round.
///
/// # Errors
/// [`BenchError`]; where the plan is to go on, only what concerns all arms.
pub async fn measure(
    plan: &Plan<'_>,
    programs: &Programs,
    console: &Console,
) -> Result<Measured, BenchError> {
    let mut rounds = Rounds::default();
    let mut described = Vec::new();
    for round in 0..plan.rounds {
        console.log(&format!("round {} of {}", round + 1, plan.rounds));
        rounds.0.push(one_round(plan, round, programs, console, &mut described).await?);
    }
    let figures = Figures::of(plan.arms, &rounds);
    Ok(Measured { figures, rounds: rounds.0.len(), ground: described })
}

async fn one_round(
    plan: &Plan<'_>,
    round: u64,
    programs: &Programs,
    console: &Console,
    described: &mut Vec<String>,
) -> Result<Vec<Outcome>, BenchError> {
    // Arms that need the same servers follow each other.
    let of_kind = |kind| (0..plan.arms.len()).filter(move |at| plan.arms[*at].kind() == kind);
    let mut order: Vec<usize> = Kind::ALL.into_iter().flat_map(of_kind).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    let mut outcomes: Vec<Outcome> = vec![Err(String::new()); plan.arms.len()];
    let mut standing: Option<Ground> = None;
    for at in order {
        let arm = plan.arms[at];
        let mut ground = match standing.take() {
            Some(ground) if ground.kind == arm.kind() => ground,
            other => {
                if let Some(ground) = other {
                    ground.stack.stop().await?;
                }
                prepared(plan, arm.kind(), programs, console, described).await?
            }
        };
        match Box::pin(once(arm, &mut ground, plan.claims)).await {
            Ok(sample) => {
                console.log(&format!("{}: {}", arm.name(), report::line(&sample)));
                outcomes[at] = Ok(sample);
                standing = Some(ground);
            }
            Err(error) if plan.partial => {
                console.log(&format!("{}: no figure: {error}", arm.name()));
                outcomes[at] = Err(error.to_string());
                // What failed may have hurt the servers: the next arm gets others.
                ground.stack.stop().await.ok();
            }
            Err(error) => {
                console.log(&format!("{}: no figure", arm.name()));
                ground.stack.stop().await.ok();
                return Err(error);
            }
        }
    }
    if let Some(ground) = standing {
        ground.stack.stop().await?;
    }
    Ok(outcomes)
}

async fn once(arm: &'static dyn Arm, ground: &mut Ground, claims: u64) -> Result<arm::Sample, BenchError> {
    ground.renew(arm.partitions()).await?;
    arm.run(ground, arm.requests(claims)).await
}

/// Servers that have worked before anything is measured on them: Kafka's compiler has seen its code, Postgres has made
/// the files of its log.
async fn prepared(
    plan: &Plan<'_>,
    kind: Kind,
    programs: &Programs,
    console: &Console,
    described: &mut Vec<String>,
) -> Result<Ground, BenchError> {
    let mut ground = Ground::start(programs, kind).await?;
    if described.is_empty() {
        *described = ground.describe().await?;
        console.print(&described.join("\n"));
    }
    if kind == Kind::Calm && plan.claims >= SMALLEST_WARM_UP {
        let claims = (plan.claims / WARM_UP).max(SMALLEST_WARM_UP);
        let arms: [(&dyn Arm, u64); 3] = [
            (&drains::HOT_DRAIN, claims),
            (&pg_ceiling::PG_CEILING, claims),
            // What Kafka does for small batches it does seldom, and its compiler notices late.
            (&accept::ACCEPT, claims * FRONT_WARM_UP),
        ];
        for (arm, claims) in arms {
            let sample = Box::pin(once(arm, &mut ground, claims)).await?;
            console.log(&format!("warming up with {}: {}", arm.name(), report::line(&sample)));
        }
    }
    Ok(ground)
}
