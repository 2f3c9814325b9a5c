//! Runs a k6 script against a stack that is started for it, and checks every invariant afterwards.
//!
//! The script verifies what users see; the checker verifies Postgres and the topics.

use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use local_stack::{Programs, Stack, StackConfig, StackError, shutdown_signal};
use thiserror::Error;
use tokio::process::Command;

use checker::{CheckConfig, CheckError};
use load_support::progress::Console;

const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
const INTERRUPTED: u8 = 130;

/// A k6 script against a stack that is started for it with empty data, then a check of every invariant.
#[derive(Args, Clone, Debug)]
pub struct K6Args {
    /// The script; Stampede's own are in loadtest/k6.
    #[arg(value_name = "SCRIPT")]
    pub script: PathBuf,

    /// The k6 program.
    #[arg(long, value_name = "FILE", default_value = "k6", env = "STAMPEDE_K6")]
    pub k6: PathBuf,

    /// A variable for the script (CODES=1000); may be repeated.
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// The file for the HTML report.
    #[arg(long, value_name = "FILE", default_value = "k6-report.html")]
    pub report: PathBuf,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,
}

/// Why the script did not run.
#[derive(Debug, Error)]
pub enum K6Error {
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The script is not a file.
    #[error("no such script: {}", .0.display())]
    NoScript(PathBuf),
    /// k6 cannot be started.
    #[error("{}: {error}; `deploy/provision k6` installs k6", k6.display())]
    NotStarted {
        /// The program.
        k6: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The checker could not run.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// Signals cannot be received.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the script. The exit code is 0 if every threshold is met and no invariant is violated.
///
/// # Errors
/// [`K6Error`], in one line.
pub async fn run(args: K6Args) -> Result<ExitCode, K6Error> {
    if !args.script.is_file() {
        return Err(K6Error::NoScript(args.script));
    }
    let console = Console::default();
    let mut interrupt = pin!(shutdown_signal());
    let config = StackConfig {
        workers: usize::try_from(args.workers).unwrap_or(usize::MAX),
        report: console.reporter(),
        ..StackConfig::full(Programs::beside_current_exe()?)
    };
    let stack = tokio::select! {
        biased;
        signal = &mut interrupt => return Ok(interrupted_by(&console, signal?)),
        started = Stack::start(config) => started?,
    };
    let clean = tokio::select! {
        biased;
        signal = &mut interrupt => signal.map(|signal| interrupted_by(&console, signal)).map_err(K6Error::from),
        clean = run_script(&args, &stack, &console) => clean.map(|clean| ExitCode::from(u8::from(!clean))),
    };
    let stopped = stack.stop().await;
    let code = clean?;
    stopped?;
    Ok(code)
}

fn interrupted_by(console: &Console, signal: &str) -> ExitCode {
    console.log(&format!("{signal}: stopping everything in order"));
    ExitCode::from(INTERRUPTED)
}

async fn run_script(args: &K6Args, stack: &Stack, console: &Console) -> Result<bool, K6Error> {
    let endpoints = stack.endpoints();
    console.log(&format!("k6 runs {}", args.script.display()));
    let status = k6(args, stack, endpoints.apis.first().map(String::as_str).unwrap_or_default()).await?;
    console.log(&format!("k6: {status}; the report is {}", args.report.display()));
    let check = CheckConfig::settled(&endpoints);
    checker::settle(&check, SETTLE_TIMEOUT).await?;
    let report = checker::check(&check, None).await?;
    console.print(&report.to_string());
    Ok(status.success() && report.is_clean())
}

/// Killed when this program ends, whatever the reason: it is not a child of the stack.
async fn k6(args: &K6Args, stack: &Stack, api: &str) -> Result<ExitStatus, K6Error> {
    let mut command = Command::new(&args.k6);
    command
        .args(["run", "--no-usage-report", "--quiet"])
        .args(args.env.iter().flat_map(|pair| ["-e", pair]))
        .arg(&args.script)
        .env("STAMPEDE_API", api)
        .env("STAMPEDE_JWT_SECRET", stack.jwt_secret())
        .env("STAMPEDE_REPORT", &args.report)
        .kill_on_drop(true);
    command.status().await.map_err(|error| K6Error::NotStarted { k6: args.k6.clone(), error })
}
