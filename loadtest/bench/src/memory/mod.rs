//! Whether a worker's memory stays bounded: millions of codes in its coupon, and a full topic before it starts.
//!
//! Both could be what memory grows with, and neither may: codes are a number and a window, a backlog is read as fast as
//! it is decided. It also reports how long a worker takes to start, on an empty database and in front of all of that.

pub mod peaks;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use local_stack::{Child, Profile, Programs, shutdown_signal};
use serde::Serialize;

use crate::BenchError;
use crate::host::environment::{Environment, Kind};
use crate::load::backlog::{Requests, claim};
use crate::load::worker_run::{blocking, stocked};
use checker::CheckConfig;
use load_support::progress::Console;
use peaks::most_resident;

const SETTLE_WITHIN: Duration = Duration::from_secs(1_800);
const KIB_PER_MIB: u64 = 1024;
const INTERRUPTED: u8 = 130;

/// Measures whether a worker's memory stays bounded, with millions of codes in stock and a full topic before it starts.
///
/// Loads a coupon with codes, fills the topic with claims of it while no worker runs, and lets one worker work it off.
/// Prints how long it takes to start and the most memory it has had. The exit code is 0 only if that stays below
/// --limit-mib and no invariant is broken.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    /// Codes of the coupon.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    pub codes: u64,

    /// Claims in the topic before the worker starts, each by another user.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub backlog: u64,

    /// What the worker may have resident at most.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub limit_mib: u64,

    /// Prints the result as one JSON object on the last line of standard output; all else goes to standard error.
    #[arg(long)]
    pub json: bool,

    /// Where `workers` and `ingest-api` are, instead of building them in release mode.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Codes of the coupon.
    pub codes: u64,
    /// Claims that waited.
    pub backlog: u64,
    /// From the start of the process to its being ready, on an almost empty database.
    pub start_ms: u128,
    /// The same with all of the codes and claims.
    pub start_full_ms: u128,
    /// The most that the worker had resident before there was anything.
    pub idle_mib: u64,
    /// The most that it had resident at all.
    pub peak_mib: u64,
    /// Until the last claim was decided and published.
    pub seconds: f64,
    /// Whether no invariant is broken.
    pub clean: bool,
}

/// Runs it.
///
/// # Errors
/// [`BenchError`], in one line.
pub async fn run(args: MemoryArgs) -> Result<ExitCode, BenchError> {
    let console = Console::default();
    let mut interrupt = pin!(shutdown_signal());
    let memory = tokio::select! {
        biased;
        signal = &mut interrupt => {
            console.log(&format!("{}: stopping", signal?));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        measured = prepare_and_measure(&args, &console) => measured?,
    };
    let Memory { codes, backlog, start_ms, start_full_ms, idle_mib, peak_mib, seconds, clean } = &memory;
    let text = format!(
        "a worker with {codes} codes in its coupon and {backlog} claims before it: {peak_mib} MiB at most \
         ({idle_mib} MiB before), ready after {start_full_ms} ms ({start_ms} ms on an empty database), all published after \
         {seconds:.1} s, {}\n",
        if *clean { "no invariant broken" } else { "INVARIANTS BROKEN" },
    );
    if args.json {
        io::stderr().write_all(text.as_bytes())?;
        let json = serde_json::to_string(&memory).map_err(io::Error::from)?;
        writeln!(io::stdout(), "{json}")?;
    } else {
        io::stdout().write_all(text.as_bytes())?;
    }
    io::stdout().flush()?;
    Ok(ExitCode::from(u8::from(!(memory.clean && memory.peak_mib <= args.limit_mib))))
}

async fn prepare_and_measure(args: &MemoryArgs, console: &Console) -> Result<Memory, BenchError> {
    let programs = match &args.programs {
        Some(dir) => Programs::in_dir(dir)?,
        None => {
            console.log("building the programs in release mode");
            Programs::build(&[], Profile::Release).await?
        }
    };
    measure(args, &programs, console).await
}

/// The whole run, with these programs.
///
/// # Errors
/// [`BenchError`]: there is no result.
pub async fn measure(
    args: &MemoryArgs,
    programs: &Programs,
    console: &Console,
) -> Result<Memory, BenchError> {
    let &MemoryArgs { codes, backlog, .. } = args;
    let mut env = Environment::start(programs, Kind::LongSession).await?;
    // Makes tables, topics and schemas.
    env.start_worker().await?;
    env.stop_workers().await?;
    let start_ms = start_time(&mut env).await?;
    let idle_mib = most_mib(&env);
    env.stop_workers().await?;

    console.log(&format!("loading {codes} codes, then {backlog} claims"));
    let coupon = env.name();
    stocked(&mut env, vec![coupon.clone()], codes).await?;
    env.stop_workers().await?;
    let requests = Requests::open(&env.kafka(), &mut env.connection).await?;
    blocking(move || requests.fill((0..backlog).map(|n| claim(&coupon, n)))).await?;

    console.log("the worker works through the backlog");
    let started = Instant::now();
    let start_full_ms = start_time(&mut env).await?;
    env.settle(SETTLE_WITHIN).await?;
    let seconds = started.elapsed().as_secs_f64();
    let peak_mib = most_mib(&env);
    let report = checker::check(&CheckConfig::settled(&env.stack.endpoints()), None).await?;
    if !report.is_clean() {
        console.print(&report.to_string());
    }
    env.stop_workers().await?;
    let clean = report.is_clean();
    Ok(Memory { codes, backlog, start_ms, start_full_ms, idle_mib, peak_mib, seconds, clean })
}

/// Starts the worker; responses after how many milliseconds it was ready.
async fn start_time(env: &mut Environment) -> Result<u128, BenchError> {
    let started = Instant::now();
    env.start_worker().await?;
    Ok(started.elapsed().as_millis())
}

fn most_mib(env: &Environment) -> u64 {
    env.stack.pid(Child::Worker(0)).and_then(most_resident).unwrap_or(0) / KIB_PER_MIB
}
