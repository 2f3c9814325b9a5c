//! The benchmark: Stampede beside other designs and beside the limits of the machine, in the same run.
//!
//! Machines differ and are noisy. So arms are interleaved (A B, B A, …), each round has servers of its own that are
//! started and warmed up for it, every arm has tables and topics of its own, and what counts is the ratio within a round:
//! its median and its spread. Everything measured is counted and checked afterwards, or there is no figure.
//!
//! Reading order: [`arm`] (what an arm is), [`arms`] (all of them), [`frames`] (what several arms have in common),
//! [`load`] (backlogs and generators), [`host`] (servers, CPU time, the machine), [`results`] (figures, ratios, targets,
//! reports). [`headline`] and [`memory`] are large runs of their own.

pub mod arm;
pub mod arms;
mod error;
pub mod frames;
pub mod headline;
pub mod host;
pub mod load;
pub mod memory;
pub mod results;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use clap::Args;
use local_stack::{Profile, Programs, shutdown_signal};

use arm::Arm;
pub use error::BenchError;
use host::environment::{Environment, Kind};
use load_support::progress::Console;
use results::figures::{Figures, Outcome, Rounds};
use results::{html, readme_plot, report};

/// A share of the claims, taken before anything is measured.
const WARM_UP: u64 = 20;
/// So many times as many are offered to the arm that is warmed up over HTTP, which takes one in five of them.
const FRONT_WARM_UP: u64 = 10;
/// Below this number of claims a warm-up has no effect, and there is none.
const SMALLEST_WARM_UP: u64 = 20_000;
const INTERRUPTED: u8 = 130;

/// Commits of Postgres for each 1,000 requests.
pub(crate) const METRIC_COMMITS: &str = "commits per 1,000";
/// The highest load that was reached.
pub(crate) const METRIC_HIGHEST: &str = "highest load, claims/s";
/// Half of the takeovers: from the signal to the first outcome by the next owner, everything included.
pub(crate) const METRIC_SIGNAL_TO_OUTCOME: &str = "signal to outcome ms";
/// Half of the takeovers: from the statement that shuts out the previous owner to the first outcome.
pub(crate) const METRIC_FENCE_TO_OUTCOME: &str = "takeover to outcome ms";
/// The longest that any claim sent after the signal had to wait.
pub(crate) const METRIC_LONGEST_WAIT: &str = "longest wait ms";

/// Compares Stampede with other designs and with the limits of the machine, in the same run.
///
/// Builds the programs, starts real servers for each round on an empty disk with fsync on, measures the arms alternately
/// (A B, B A, …), and prints requests per second, CPU per request, the ratios with their spread, and which targets are reached.
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

    /// Writes the plot of the README, claims per second beside other designs, to this file as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Measures nothing: --plot draws the result of an earlier run, the JSON in this file.
    #[arg(long, value_name = "FILE", requires = "plot", conflicts_with_all = ["arms", "html", "json", "list"])]
    pub from: Option<PathBuf>,

    /// Prints the result as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Lists the arms with their guarantees.
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
  cargo run --release -p loadtest -- bench --partial --claims 200000 --json | tail -n 1

The plot of the README, measured and drawn again from the stored result:
  cargo run --release -p loadtest -- bench --json | tail -n 1 > deploy/docs/benchmark.json
  cargo run --release -p loadtest -- bench --from deploy/docs/benchmark.json --plot deploy/docs/benchmark.svg";

/// Runs it.
///
/// # Errors
/// [`BenchError`]; then no figure is printed.
pub async fn run(args: BenchArgs) -> Result<ExitCode, BenchError> {
    if args.list {
        for arm in arms::ALL {
            writeln!(io::stdout(), "{:<19} {}", arm.name(), arm.about())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(result), Some(file)) = (&args.from, &args.plot) {
        std::fs::write(file, readme_plot::from_json(&std::fs::read_to_string(result)?)?)?;
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
    let Measured { figures, rounds, env } = measured;
    let table = report::table(figures, *rounds);
    if let Some(file) = &args.html {
        std::fs::write(file, html::page(figures, *rounds, env))?;
    }
    let json = serde_json::to_string(&report::json(figures)).map_err(io::Error::from)?;
    if args.json {
        io::stderr().write_all(table.as_bytes())?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(table.as_bytes())?;
    }
    io::stdout().flush()?;
    // Last: a run without the arms of the plot has figures all the same.
    if let Some(file) = &args.plot {
        std::fs::write(file, readme_plot::from_json(&json)?)?;
    }
    let void = figures.arms.iter().any(|arm| arm.void.is_some());
    Ok(if void { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(names: &[String]) -> Result<Vec<&'static dyn Arm>, BenchError> {
    if names.is_empty() {
        return Ok(arms::ALL.to_vec());
    }
    let find = |name: &String| {
        arms::ALL.iter().copied().find(|arm| arm.name() == name).ok_or_else(|| BenchError::UnknownArm {
            name: name.clone(),
            known: arms::ALL.iter().map(|arm| arm.name()).collect::<Vec<_>>().join(", "),
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
    pub env: Vec<String>,
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
    Ok(Measured { figures, rounds: rounds.0.len(), env: described })
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
    let mut status: Option<Environment> = None;
    for at in order {
        let arm = plan.arms[at];
        let mut env = match status.take() {
            Some(env) if env.kind == arm.kind() => env,
            other => {
                if let Some(env) = other {
                    env.stack.stop().await?;
                }
                prepared(plan, arm.kind(), programs, console, described).await?
            }
        };
        match Box::pin(once(arm, &mut env, plan.claims)).await {
            Ok(sample) => {
                console.log(&format!("{}: {}", arm.name(), report::line(&sample)));
                outcomes[at] = Ok(sample);
                status = Some(env);
            }
            Err(error) if plan.partial => {
                console.log(&format!("{}: no figure: {error}", arm.name()));
                outcomes[at] = Err(error.to_string());
                // What failed may have hurt the servers: the next arm gets others.
                env.stack.stop().await.ok();
            }
            Err(error) => {
                console.log(&format!("{}: no figure", arm.name()));
                env.stack.stop().await.ok();
                return Err(error);
            }
        }
    }
    if let Some(env) = status {
        env.stack.stop().await?;
    }
    Ok(outcomes)
}

async fn once(arm: &'static dyn Arm, env: &mut Environment, claims: u64) -> Result<arm::Sample, BenchError> {
    env.renew(arm.partitions()).await?;
    arm.run(env, arm.requests(claims)).await
}

/// Servers that have worked before anything is measured on them: Kafka's compiler has seen its code, Postgres has made
/// the files of its log.
async fn prepared(
    plan: &Plan<'_>,
    kind: Kind,
    programs: &Programs,
    console: &Console,
    described: &mut Vec<String>,
) -> Result<Environment, BenchError> {
    let mut env = Environment::start(programs, kind).await?;
    if described.is_empty() {
        *described = env.describe().await?;
        console.print(&described.join("\n"));
    }
    if kind == Kind::LongSession && plan.claims >= SMALLEST_WARM_UP {
        let claims = (plan.claims / WARM_UP).max(SMALLEST_WARM_UP);
        let arms: [(&dyn Arm, u64); 3] = [
            (&arms::drains::HOT_DRAIN, claims),
            (&arms::pg_ceiling::PG_CEILING, claims),
            // What Kafka does for small batches it does seldom, and its compiler notices late.
            (&arms::accept::ACCEPT, claims * FRONT_WARM_UP),
        ];
        for (arm, claims) in arms {
            let sample = Box::pin(once(arm, &mut env, claims)).await?;
            console.log(&format!("warming up with {}: {}", arm.name(), report::line(&sample)));
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    #[test]
    fn a_stored_result_is_only_drawn() {
        for (arguments, fine) in [
            (&["--from", "result.json", "--plot", "plot.svg"][..], true),
            (&["--plot", "plot.svg", "--html", "report.html", "hot-drain"], true),
            (&["--from", "result.json"], false),
            (&["--from", "result.json", "--plot", "plot.svg", "--html", "report.html"], false),
            (&["--from", "result.json", "--plot", "plot.svg", "hot-drain"], false),
        ] {
            let parsed = Cli::try_parse_from([&["bench"], arguments].concat());
            assert_eq!(parsed.is_ok(), fine, "{arguments:?}");
        }
    }
}
