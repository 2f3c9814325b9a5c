//! The checker as a program, for anybody: what to look at is found or told, everything is looked at once, and the exit
//! code says which of three it is: clean (0), violated (1), or not to be told (2).
//!
//! A stack is never accused of what it is about to do. Unless it is asked to look at once, the program waits for rest; a
//! stack that does not come to rest is looked at as it is. What it finds at rest is final only if nothing came
//! meanwhile: else it looks once more, as at a stack at work.

pub mod args;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use local_stack::{Endpoints, StackError, default_data_dir};
use thiserror::Error;

use crate::{CheckConfig, CheckError, History, HistoryUnreadable, Invariant, Report, Rest, Watch};
use args::VerifyArgs;

const VIOLATED: u8 = 1;
const UNCHECKED: u8 = 2;

/// Why nothing was checked.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// It is not known where to look.
    #[error("{named} is given, and not where {missing} is: name it with {flag}, or a stack with --data-dir")]
    HalfTold {
        /// What is known.
        named: &'static str,
        /// What is not.
        missing: &'static str,
        /// How to tell it.
        flag: &'static str,
    },
    /// There is no stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The clients' history.
    #[error("the history cannot be read: {0}")]
    History(#[from] HistoryUnreadable),
    /// The truth.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A part of the check was lost.
    #[error("the check itself broke: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Checks everything once, prints what was found, and answers the exit code.
pub async fn run(args: VerifyArgs) -> ExitCode {
    let json = args.json;
    let report = match Box::pin(verify(args)).await {
        Ok(report) => report,
        Err(error) => Report::of_nothing(error.to_string()),
    };
    let code = if !report.is_clean() {
        VIOLATED
    } else if report.unchecked.is_empty() {
        0
    } else {
        UNCHECKED
    };
    match show(&report, code, json) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            eprintln!("loadtest: the report cannot be written: {error}");
            ExitCode::from(if code == VIOLATED { VIOLATED } else { UNCHECKED })
        }
    }
}

async fn verify(args: VerifyArgs) -> Result<Report, VerifyError> {
    let mut config = place(&args)?;
    // First of all: what clients were told by now is durable when Postgres is read.
    let history = match args.history.clone() {
        Some(path) => Some(tokio::task::spawn_blocking(move || History::read(&path)).await??),
        None => None,
    };
    let watch = Watch::begin(&config.postgres_url);
    let mut report = look(&args, &mut config, history.as_ref()).await?;
    watch.end(&mut report).await;
    Ok(report)
}

/// Looks at a stack at rest, or at work.
async fn look(
    args: &VerifyArgs,
    config: &mut CheckConfig,
    history: Option<&History>,
) -> Result<Report, VerifyError> {
    if args.live {
        return Ok(crate::check(config, history).await?);
    }
    let patience = Duration::from_secs(args.patience);
    match crate::rest(config, patience).await? {
        Rest::Resting { ends } => {
            config.settled = true;
            let report = crate::check(config, history).await?;
            if report.is_clean() || crate::ends(config).await? == ends {
                return Ok(report);
            }
            // Somebody asked for something in between.
            config.settled = false;
            Ok(crate::check(config, history).await?)
        }
        Rest::AtWork { left } => {
            let mut report = crate::check(config, history).await?;
            report.note(format!("at work, also after {patience:?} ({left}): looked at as it is"));
            Ok(report)
        }
        Rest::Stuck { left } => {
            let mut report = crate::check(config, history).await?;
            report.unchecked(format!(
                "I3: whether what was accepted is decided: {left}, and nothing has moved for {patience:?}; see whether \
                 workers run, and what they log"
            ));
            Ok(report)
        }
    }
}

/// Where to look.
fn place(args: &VerifyArgs) -> Result<CheckConfig, VerifyError> {
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
            return Err(VerifyError::HalfTold { named: "Postgres", missing: "Kafka", flag: "--kafka" });
        }
        (None, None, Some(_)) => {
            return Err(VerifyError::HalfTold { named: "Kafka", missing: "Postgres", flag: "--postgres" });
        }
    };
    let mut config = CheckConfig { group: args.group.clone(), ..CheckConfig::running(&found) };
    config.worker_probes.extend(args.probes.iter().cloned());
    Ok(config)
}

/// The table and the verdict; with `--json` these on standard error, and one line for a program on standard output.
fn show(report: &Report, code: u8, json: bool) -> io::Result<()> {
    let text = format!("{report}\n{}\n", verdict(report, code));
    if !json {
        io::stdout().write_all(text.as_bytes())?;
        return io::stdout().flush();
    }
    io::stderr().write_all(text.as_bytes())?;
    let line = report.to_json().map_err(io::Error::from)?;
    writeln!(io::stdout(), "{line}")?;
    io::stdout().flush()
}

fn verdict(report: &Report, code: u8) -> String {
    let mut text = String::new();
    for what in &report.unchecked {
        text += &format!("not checked: {what}\n");
    }
    let looked_at: u64 = report.lines.iter().map(|line| line.checked).sum();
    text + &match code {
        0 => format!("clean: {looked_at} things looked at, and all are as they must be"),
        VIOLATED => {
            let broken = report.lines.iter().filter(|line| line.violations > 0);
            let names: Vec<String> = broken.map(|line| format!("{:?}", line.invariant)).collect();
            format!(
                "VIOLATED: {} of {looked_at} things looked at break {}",
                report.violations(),
                names.join(", ")
            )
        }
        _ => "not to be told: something could not be checked; what was looked at is as it must be".to_owned(),
    }
}

impl Report {
    /// Nothing could be looked at, and why.
    fn of_nothing(why: String) -> Self {
        let mut report = Self::default();
        for invariant in Invariant::ALL {
            report.not_applicable(invariant, "unchecked");
        }
        report.unchecked(why);
        report
    }
}
