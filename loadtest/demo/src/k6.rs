//! A k6 script against a stack that is started for it, and afterwards the checker: what users were told is the script's
//! business, what Postgres and the topics say is ours.

use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use local_stack::{Programs, Stack, StackConfig, StackError, shutdown_signal};
use thiserror::Error;
use tokio::process::Command;

use checker::{CheckConfig, CheckError};
use load_support::screen::Screen;

const SETTLE_WITHIN: Duration = Duration::from_secs(120);
const INTERRUPTED: u8 = 130;

/// Runs a k6 script against a stack that is started for it, with empty data, and then checks every invariant.
#[derive(Args, Clone, Debug)]
pub struct K6Args {
    /// The script; those of Stampede are in loadtest/k6.
    #[arg(value_name = "SCRIPT")]
    pub script: PathBuf,

    /// The k6 to run it with.
    #[arg(long, value_name = "FILE", default_value = "k6", env = "STAMPEDE_K6")]
    pub k6: PathBuf,

    /// What the script is told, as often as needed: CODES=1000.
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// Where the HTML report goes.
    #[arg(long, value_name = "FILE", default_value = "k6-report.html")]
    pub report: PathBuf,

    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,
}

/// Why it could not be run.
#[derive(Debug, Error)]
pub enum K6Error {
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// There is no such script.
    #[error("there is no script {}", .0.display())]
    NoScript(PathBuf),
    /// k6 cannot be started, or no signal can be listened to.
    #[error("{}: {error}; `deploy/provision k6` installs k6", k6.display())]
    NotStarted {
        /// Which k6.
        k6: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The checker could not do its work.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// No signal can be listened to.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs it. The exit code is 0 if every threshold was met and no invariant is broken.
///
/// # Errors
/// [`K6Error`], in one line.
pub async fn run(args: K6Args) -> Result<ExitCode, K6Error> {
    if !args.script.is_file() {
        return Err(K6Error::NoScript(args.script));
    }
    let screen = Screen::default();
    let mut interrupt = pin!(shutdown_signal());
    let config = StackConfig {
        workers: usize::try_from(args.workers).unwrap_or(usize::MAX),
        report: screen.reporter(),
        ..StackConfig::full(Programs::beside_current_exe()?)
    };
    let stack = tokio::select! {
        biased;
        signal = &mut interrupt => return Ok(left(&screen, signal?)),
        started = Stack::start(config) => started?,
    };
    let clean = tokio::select! {
        biased;
        signal = &mut interrupt => signal.map(|signal| left(&screen, signal)).map_err(K6Error::from),
        clean = play(&args, &stack, &screen) => clean.map(|clean| ExitCode::from(u8::from(!clean))),
    };
    let stopped = stack.stop().await;
    let code = clean?;
    stopped?;
    Ok(code)
}

fn left(screen: &Screen, signal: &str) -> ExitCode {
    screen.say(&format!("{signal}: stopping everything in order"));
    ExitCode::from(INTERRUPTED)
}

async fn play(args: &K6Args, stack: &Stack, screen: &Screen) -> Result<bool, K6Error> {
    let endpoints = stack.endpoints();
    screen.say(&format!("k6 plays {}", args.script.display()));
    let status = k6(args, stack, endpoints.apis.first().map(String::as_str).unwrap_or_default()).await?;
    screen.say(&format!("k6: {status}; the report is {}", args.report.display()));
    let check = CheckConfig::settled(&endpoints);
    checker::settle(&check, SETTLE_WITHIN).await?;
    let report = checker::check(&check, None).await?;
    screen.print(&report.to_string());
    Ok(status.success() && report.is_clean())
}

/// Ended with this program, whatever happens: it is no child of the stack.
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
