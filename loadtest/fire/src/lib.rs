//! Fault runs: the whole stack under load, every fault of a list, and then the checker.
//!
//! Order of a run ([`run_faults`]): coupons ([`fixtures`], [`stocking`]) · load ([`load`], each request a
//! [`client::ClientRequest`]) · the load without faults, for comparison · faults by a seeded [`plan`] ([`injector`],
//! [`scenarios`]), each followed by a [`probe`] that measures recovery · end of the load; everything is healed, and every
//! request gets its outcome · all remaining work is finished · every invariant is checked · the [`verdict`].
//!
//! Beside it: [`args`], [`environment`] (the stack and connections to it), [`stats`] (counters), [`rng`].

pub mod args;
pub mod client;
pub mod environment;
pub mod fixtures;
pub mod injector;
pub mod load;
pub mod plan;
pub mod probe;
pub mod rng;
pub mod scenarios;
pub mod stats;
pub mod stocking;
pub mod verdict;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use local_stack::{Profile, Programs, ProxiedLink, Stack, StackConfig, StackError, shutdown_signal, testing};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use args::{FireArgs, Positive};
use checker::{CheckConfig, CheckError, History, Watch};
use environment::{Environment, FaultError};
use load_support::progress::Console;
use scenarios::Scenario;
pub use scenarios::skew::skewed_clock;
use verdict::{Span, Verdict};

/// Default requests per second: optimised programs, unoptimised programs.
const RATES: [f64; 2] = [400.0, 40.0];
/// Seconds.
const LONGEST_DEFAULT_PAUSE: f64 = 10.0;
/// Until all processes have cached the first coupons.
const WARM_UP: Duration = Duration::from_secs(3);
/// Bounds, not targets: until every client has its outcome once everything is healed, and until the stack is idle.
const FINISHED_WITHIN: Duration = Duration::from_secs(300);
const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// The exit code of a run that could not be performed.
const NO_RUN: u8 = 2;
/// The exit code that a shell reports for SIGINT.
const INTERRUPTED: u8 = 130;

/// Why a run has no verdict.
#[derive(Debug, Error)]
pub enum FireError {
    /// An unknown scenario.
    #[error("no such scenario: {0}; --list prints all")]
    Unknown(String),
    /// No scenario is selected.
    #[error("no scenario is selected; --list prints all")]
    NoScenario,
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The stack could not be prepared.
    #[error("the stack could not be prepared: {0}")]
    Setup(FaultError),
    /// The checker could not check.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// The history cannot be written.
    #[error("the history {}: {error}", path.display())]
    History {
        /// Its file, which must not exist yet.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The figures could not be written, or signals not received.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The settings of a run, without its scenarios.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long faults are injected.
    pub under_fire: Duration,
    /// How long the load runs without faults before.
    pub calm: Duration,
    /// Seeds all random choices.
    pub seed: u64,
    /// Requests per second.
    pub rate: f64,
    /// The average pause between two faults.
    pub every: Duration,
    /// Where the history is written to, if anywhere.
    pub history: Option<PathBuf>,
}

impl Settings {
    fn of(args: &FireArgs, scenarios: usize) -> Self {
        let seconds = |minutes: f64| Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 1e6));
        let under_fire = seconds(args.minutes.get());
        // Half of the time is spent on recovery.
        let in_turn = under_fire.as_secs_f64() / 2.0 / scenarios.max(1) as f64;
        let every = args.every.map_or_else(|| in_turn.min(LONGEST_DEFAULT_PAUSE), Positive::get);
        Self {
            under_fire,
            calm: seconds(args.calm.unwrap_or_else(|| args.minutes.get())),
            seed: args.seed.unwrap_or_else(rand::random),
            rate: args.rate.map_or(RATES[usize::from(args.dev)], Positive::get),
            every: Duration::from_secs_f64(every),
            history: args.history.clone(),
        }
    }
}

/// Runs the program: builds, starts the stack, injects faults, stops, prints.
pub async fn run(args: FireArgs) -> ExitCode {
    match Box::pin(try_run(args)).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest fire: {error}");
            ExitCode::from(NO_RUN)
        }
    }
}

async fn try_run(args: FireArgs) -> Result<ExitCode, FireError> {
    let chosen = choose(scenarios::all(), &args.only, &args.except)?;
    if args.list {
        io::stdout().write_all(verdict::list(&chosen).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::of(&args, chosen.len());
    let console = Console::default();
    console.log(&format!(
        "seed {}: {} scenarios, {:.0} requests/s",
        settings.seed,
        chosen.len(),
        settings.rate
    ));
    let mut interrupt = pin!(shutdown_signal());
    let stack = tokio::select! {
        biased;
        signal = &mut interrupt => {
            console.log(&format!("{}: nothing has been started", signal?));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        started = start(&args, &console) => Arc::new(started?),
    };
    // From here on every path ends with a graceful stop.
    let verdict = tokio::select! {
        biased;
        signal = &mut interrupt => signal.map_err(FireError::from).map(|signal| {
            console.log(&format!("{signal}: stopping everything gracefully"));
            None
        }),
        verdict = run_faults(&settings, &chosen, &stack, &console) => verdict.map(Some),
    };
    let stopped = stack.stop().await;
    let Some(verdict) = verdict? else { return Ok(ExitCode::from(INTERRUPTED)) };
    show(&args, &verdict)?;
    stopped?;
    Ok(ExitCode::from(u8::from(!verdict.is_clean())))
}

/// The scenarios named by `only` (all if empty), without those named by `except`.
fn choose(all: Vec<Scenario>, only: &[String], except: &[String]) -> Result<Vec<Scenario>, FireError> {
    let named = |names: &[String], scenario: &Scenario| names.iter().any(|name| name == scenario.name);
    if let Some(name) = only.iter().chain(except).find(|name| all.iter().all(|known| known.name != **name)) {
        return Err(FireError::Unknown(name.clone()));
    }
    let wanted = |scenario: &Scenario| (only.is_empty() || named(only, scenario)) && !named(except, scenario);
    let chosen: Vec<Scenario> = all.into_iter().filter(wanted).collect();
    if chosen.is_empty() { Err(FireError::NoScenario) } else { Ok(chosen) }
}

async fn start(args: &FireArgs, console: &Console) -> Result<Stack, FireError> {
    let programs = match &args.programs {
        // Children run in directories of their own.
        Some(dir) => Programs::in_dir(&std::path::absolute(dir)?)?,
        None => {
            let profile = if args.dev { Profile::Dev } else { Profile::Release };
            console.log("building the programs, with crash points");
            Programs::build(testing::FEATURES, profile).await?
        }
    };
    console.log("starting the stack");
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let config = StackConfig {
        data_dir: args.data_dir.clone(),
        fresh: true,
        api_instances: count(args.apis),
        workers: count(args.workers),
        brokers: count(args.brokers),
        // Several large heaps would leave too little memory for the other processes.
        kafka_heap_mb: if args.brokers > 1 { 384 } else { 512 },
        partitions: args.partitions,
        report: console.reporter(),
        ..config(programs)
    };
    Ok(Stack::start(config).await?)
}

/// A stack for fault injection: a group session of one second, and a proxy on every link.
#[must_use]
pub fn config(programs: Programs) -> StackConfig {
    StackConfig {
        api_instances: 2,
        workers: 4,
        group_session_timeout: Duration::from_secs(1),
        group_heartbeat: Duration::from_millis(100),
        // Few enough for a scenario to take all of them quickly.
        postgres_settings: vec![("max_connections".to_owned(), "130".to_owned())],
        proxied_links: ProxiedLink::ALL.to_vec(),
        ..StackConfig::full(programs)
    }
}

/// Runs load and faults on a healthy stack and checks it. The stack is healthy again afterwards.
///
/// # Errors
/// When the run could not be performed; violations are part of the verdict.
pub async fn run_faults(
    settings: &Settings,
    scenarios: &[Scenario],
    stack: &Arc<Stack>,
    console: &Console,
) -> Result<Verdict, FireError> {
    let supervisor = stack.supervise();
    let watch = Watch::begin(&stack.endpoints().postgres_url);
    let history = match &settings.history {
        None => History::new(),
        Some(path) => History::recording_to(path).map_err(|error| unwritten(path, error))?,
    };
    let env = Arc::new(Environment::new(Arc::clone(stack), history));
    env.create_fixtures().await.map_err(FireError::Setup)?;
    let load = Load::begin(&env, settings);
    sleep(WARM_UP).await;
    console.log(&format!("{:.0} s without faults", settings.calm.as_secs_f64()));
    let calm = span(&env, sleep(settings.calm)).await.1;
    let (injected, under_fire) = span(&env, injector::inject(&env, scenarios, settings, console)).await;
    console.log("no more faults; waiting until every request has its outcome");
    env.heal().await?;
    load.end(&env).await;
    drop(supervisor);
    let config = CheckConfig::settled(&env.endpoints);
    if let Err(error) = checker::settle(&config, SETTLED_WITHIN).await {
        match error {
            CheckError::NotSettled { .. } => env.stats.complain(error.to_string()),
            other => return Err(other.into()),
        }
    }
    console.log("checking every invariant");
    let mut report = checker::check(&config, Some(&env.history)).await?;
    watch.end(&mut report).await;
    if let Some(path) = &settings.history {
        env.history.finish().map_err(|error| unwritten(path, error))?;
    }
    let verdict = Verdict::new(settings, &env, injected, report, [calm, under_fire]);
    if !verdict.is_clean() {
        match keep_logs(stack, settings.seed) {
            Ok(kept) => console.log(&format!("the stack's logs are kept in {}", kept.display())),
            Err(error) => console.log(&format!("the stack's logs cannot be kept: {error}")),
        }
    }
    Ok(verdict)
}

fn unwritten(path: &Path, error: io::Error) -> FireError {
    FireError::History { path: path.to_owned(), error }
}

/// Copies the logs: a temporary stack deletes them with its directory.
fn keep_logs(stack: &Stack, seed: u64) -> io::Result<PathBuf> {
    let kept = std::env::temp_dir().join(format!("stampede-fire-{seed}-{}", std::process::id()));
    std::fs::create_dir_all(&kept)?;
    for child in stack.children() {
        let log = stack.log_file(child);
        if let Some(name) = log.file_name() {
            std::fs::copy(&log, kept.join(name))?;
        }
    }
    Ok(kept)
}

/// Awaits a future and counts the outcomes during it.
async fn span<T>(env: &Environment, during: impl Future<Output = T>) -> (T, Span) {
    let (began, before) = (Instant::now(), env.stats.decided());
    let done = during.await;
    (done, Span { seconds: began.elapsed().as_secs_f64(), decided: env.stats.decided() - before })
}

/// The load, and the task that refills the coupons.
struct Load {
    stop: CancellationToken,
    users: JoinHandle<()>,
    maintainer: JoinHandle<()>,
}

impl Load {
    fn begin(env: &Arc<Environment>, settings: &Settings) -> Self {
        let stop = CancellationToken::new();
        // Independent of the plan: the users are the same whichever faults are selected.
        let users = load::run(Arc::clone(env), !settings.seed, settings.rate, stop.clone());
        let maintainer = Arc::clone(env);
        Self {
            stop,
            users: tokio::spawn(users),
            maintainer: tokio::spawn(async move { maintainer.maintain_fixtures().await }),
        }
    }

    /// Starts no more users, and lets the active ones finish.
    async fn end(mut self, env: &Environment) {
        self.stop.cancel();
        self.maintainer.abort();
        if timeout(FINISHED_WITHIN, &mut self.users).await.is_err() {
            env.stats.stop_waiting();
            timeout(FINISHED_WITHIN, &mut self.users).await.ok();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.users.abort();
        self.maintainer.abort();
    }
}

fn show(args: &FireArgs, verdict: &Verdict) -> io::Result<()> {
    let text = format!("{verdict}\n");
    if args.json {
        io::stderr().write_all(text.as_bytes())?;
        writeln!(io::stdout(), "{}", serde_json::to_string(verdict)?)?;
    } else {
        io::stdout().write_all(text.as_bytes())?;
    }
    io::stdout().flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &[&str], except: &[&str]) -> Result<Vec<&'static str>, String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let chosen = choose(scenarios::all(), &owned(only), &owned(except));
        chosen
            .map(|chosen| chosen.iter().map(|scenario| scenario.name).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn scenarios_are_selected_by_name_and_an_unknown_name_is_an_error() {
        assert_eq!(names(&[], &[]).map(|all| all.len()), Ok(scenarios::all().len()));
        assert_eq!(names(&["kill-worker", "deep-json"], &[]), Ok(vec!["kill-worker", "deep-json"]));
        assert_eq!(names(&["kill-worker", "deep-json"], &["kill-worker"]), Ok(vec!["deep-json"]));
        assert!(names(&["kill-wroker"], &[]).is_err_and(|error| error.contains("kill-wroker")));
        assert!(names(&["kill-worker"], &["kill-worker"]).is_err());
    }
}
