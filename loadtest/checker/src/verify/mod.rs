//! The checker as a program. It finds the servers, checks once, and returns an exit code: clean (0), violated (1), or
//! incomplete (2).
//!
//! Work in progress is never reported as a violation. Without `--live` the program waits for the stack to settle, and
//! checks a stack that stays busy as it is. Violations of a settled stack are final only if no request arrived during
//! the check; otherwise the stack is checked again, as a busy one.

pub mod args;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use local_stack::{Endpoints, StackError, default_data_dir};
use thiserror::Error;

use crate::check::check;
use crate::config::CheckConfig;
use crate::error::CheckError;
use crate::history::{History, HistoryError};
use crate::report::{Invariant, Report};
use crate::settle::{StackState, end_offsets, stack_state};
use crate::watch::Watch;
use args::VerifyArgs;

const VIOLATED: u8 = 1;
const INCOMPLETE: u8 = 2;

/// Why nothing was checked.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Only one of the two servers is given.
    #[error("{given} is given without {missing}: add {flag}, or name a stack with --data-dir")]
    MissingServer {
        /// The server that is given.
        given: &'static str,
        /// The server that is missing.
        missing: &'static str,
        /// The flag of the missing server.
        flag: &'static str,
    },
    /// The stack was not found.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The history cannot be read.
    #[error("the history cannot be read: {0}")]
    History(#[from] HistoryError),
    /// A server cannot be read.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A task of the check panicked.
    #[error("the check itself failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Checks everything once, prints the report, and returns the exit code.
pub async fn run(args: VerifyArgs) -> ExitCode {
    let json = args.json;
    let report = match Box::pin(verify(args)).await {
        Ok(report) => report,
        Err(error) => Report::incomplete(error.to_string()),
    };
    let code = if !report.is_clean() {
        VIOLATED
    } else if report.unchecked.is_empty() {
        0
    } else {
        INCOMPLETE
    };
    match print(&report, code, json) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            eprintln!("loadtest: the report cannot be written: {error}");
            ExitCode::from(if code == VIOLATED { VIOLATED } else { INCOMPLETE })
        }
    }
}

async fn verify(args: VerifyArgs) -> Result<Report, VerifyError> {
    let mut config = check_config(&args)?;
    // Read first: what clients received by now is durable when Postgres is read.
    let history = match args.history.clone() {
        Some(path) => Some(tokio::task::spawn_blocking(move || History::read(&path)).await??),
        None => None,
    };
    let watch = Watch::begin(&config.postgres_url);
    let mut report = check_stack(&args, &mut config, history.as_ref()).await?;
    watch.end(&mut report).await;
    Ok(report)
}

/// Checks a stack, settled or busy.
async fn check_stack(
    args: &VerifyArgs,
    config: &mut CheckConfig,
    history: Option<&History>,
) -> Result<Report, VerifyError> {
    if args.live {
        return Ok(check(config, history).await?);
    }
    let limit = Duration::from_secs(args.settle_timeout);
    match stack_state(config, limit).await? {
        StackState::Settled { end_offsets: before } => {
            config.settled = true;
            let report = check(config, history).await?;
            if report.is_clean() || end_offsets(config).await? == before {
                return Ok(report);
            }
            // A request arrived during the check.
            config.settled = false;
            Ok(check(config, history).await?)
        }
        StackState::Busy { remaining } => {
            let mut report = check(config, history).await?;
            report.note(format!("busy after {limit:?} ({remaining}): checked as it is"));
            Ok(report)
        }
        StackState::Stalled { remaining } => {
            let mut report = check(config, history).await?;
            report.unchecked(format!(
                "I3: whether every accepted request is decided: {remaining}, without progress for {limit:?}; check that \
                 workers run, and their logs"
            ));
            Ok(report)
        }
    }
}

/// The servers to check.
fn check_config(args: &VerifyArgs) -> Result<CheckConfig, VerifyError> {
    let (postgres, kafka) = (args.postgres.as_ref(), args.kafka.as_ref());
    let found = match (&args.data_dir, postgres, kafka) {
        (Some(dir), ..) => Endpoints::of_data_dir(dir)?,
        (None, None, None) => Endpoints::of_data_dir(&default_data_dir())?,
        (None, Some(postgres), Some(kafka)) => {
            return Ok(CheckConfig {
                kafka: kafka.clone(),
                postgres_url: postgres.clone(),
                redis_url: args.redis.clone(),
                group: args.group.clone(),
                worker_probes: args.probes.clone(),
                api_probes: Vec::new(),
                settled: false,
            });
        }
        (None, Some(_), None) => {
            return Err(VerifyError::MissingServer { given: "Postgres", missing: "Kafka", flag: "--kafka" });
        }
        (None, None, Some(_)) => {
            return Err(VerifyError::MissingServer {
                given: "Kafka",
                missing: "Postgres",
                flag: "--postgres",
            });
        }
    };
    let mut config = CheckConfig { group: args.group.clone(), ..CheckConfig::running(&found) };
    config.worker_probes.extend(args.probes.iter().cloned());
    Ok(config)
}

/// Prints the table and the summary. With `--json` they go to standard error, and one line of JSON to standard output.
fn print(report: &Report, code: u8, json: bool) -> io::Result<()> {
    let text = format!("{report}\n{}\n", summary(report, code));
    if !json {
        io::stdout().write_all(text.as_bytes())?;
        return io::stdout().flush();
    }
    io::stderr().write_all(text.as_bytes())?;
    let line = report.to_json().map_err(io::Error::from)?;
    writeln!(io::stdout(), "{line}")?;
    io::stdout().flush()
}

fn summary(report: &Report, code: u8) -> String {
    let mut text = String::new();
    for what in &report.unchecked {
        text += &format!("not checked: {what}\n");
    }
    let checked: u64 = report.lines.iter().map(|line| line.checked).sum();
    text + &match code {
        0 => format!("clean: {checked} checks, no violation"),
        VIOLATED => {
            let violated = report.lines.iter().filter(|line| line.violations > 0);
            let names: Vec<String> = violated.map(|line| format!("{:?}", line.invariant)).collect();
            format!("VIOLATED: {} of {checked} checks violate {}", report.violations(), names.join(", "))
        }
        _ => "incomplete: something could not be checked; the rest has no violation".to_owned(),
    }
}

impl Report {
    /// The report when nothing could be checked.
    fn incomplete(reason: String) -> Self {
        let mut report = Self::default();
        for invariant in Invariant::ALL {
            report.not_applicable(invariant, "unchecked");
        }
        report.unchecked(reason);
        report
    }
}
