//! Faults on purpose: the whole stack under load, everything that can go wrong, and then the checker.
//!
//! Order of a run ([`burn`]): coupons ([`shop`]) · load ([`load`], each request a [`client`]'s) · the same load without
//! faults, to compare with · faults by a seeded [`plan`] ([`injector`], [`scenarios`]), after each of which a [`probe`]
//! says when the system does its work again · the load ends, everything is healed, whoever waits gets an answer · what
//! is left to do is waited for · every invariant is checked · the [`verdict`].
//!
//! Around it: [`args`], [`field`] (the stack and the way to it), [`score`] (what is counted), [`dice`].

pub mod args;
pub mod client;
pub mod dice;
pub mod field;
pub mod injector;
pub mod load;
pub mod plan;
pub mod probe;
pub mod scenarios;
pub mod score;
pub mod shop;
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
use field::{Field, Trouble};
use load_support::progress::Console;
use scenarios::Scenario;
pub use scenarios::skew::skewed_clock;
use verdict::{Span, Verdict};

/// Requests per second of optimised programs, and of unoptimised ones.
const RATES: [f64; 2] = [400.0, 40.0];
const LONGEST_USUAL_PAUSE: f64 = 10.0;
/// Until the first coupons are in everybody's memory.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long whoever still waits may wait once everything is healed, and what is left to do may take. Bounds, not goals.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
const SETTLED_WITHIN: Duration = Duration::from_secs(300);
/// The run could not be made.
const NO_RUN: u8 = 2;
/// As a shell reports a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum FireError {
    /// No such scenario.
    #[error("there is no scenario {0}; --list tells them")]
    Unknown(String),
    /// Nothing is left to inject.
    #[error("no scenario is left; --list tells them")]
    NoScenario,
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The stack could not be prepared.
    #[error("the stack could not be prepared: {0}")]
    Setup(Trouble),
    /// The checker could not do its work.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// The history cannot be written.
    #[error("the history {}: {error}", path.display())]
    History {
        /// Its file, which must not be there yet.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The figures, or signals.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a run is like, besides its scenarios.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long faults are injected.
    pub under_fire: Duration,
    /// How long the load runs without faults before.
    pub calm: Duration,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Requests per second.
    pub rate: f64,
    /// The usual pause between two faults.
    pub every: Duration,
    /// Where the history is written to, if anywhere.
    pub history: Option<PathBuf>,
}

impl Settings {
    fn of(args: &FireArgs, scenarios: usize) -> Self {
        let seconds = |minutes: f64| Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 1e6));
        let under_fire = seconds(args.minutes.get());
        // Half of the time goes by while the system recovers.
        let in_turn = under_fire.as_secs_f64() / 2.0 / scenarios.max(1) as f64;
        let every = args.every.map_or_else(|| in_turn.min(LONGEST_USUAL_PAUSE), Positive::get);
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

/// Runs it as a program: builds, starts, burns, stops, prints.
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
            console.log(&format!("{}: nothing was started", signal?));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        started = start(&args, &console) => Arc::new(started?),
    };
    // Whatever happens from here on, it ends with the orderly stop.
    let verdict = tokio::select! {
        biased;
        signal = &mut interrupt => signal.map_err(FireError::from).map(|signal| {
            console.log(&format!("{signal}: stopping everything in order"));
            None
        }),
        verdict = burn(&settings, &chosen, &stack, &console) => verdict.map(Some),
    };
    let stopped = stack.stop().await;
    let Some(verdict) = verdict? else { return Ok(ExitCode::from(INTERRUPTED)) };
    show(&args, &verdict)?;
    stopped?;
    Ok(ExitCode::from(u8::from(!verdict.is_clean())))
}

/// The scenarios of a list, without those of another one.
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
        // Three large heaps would leave no memory for anybody else.
        kafka_heap_mb: if args.brokers > 1 { 384 } else { 512 },
        partitions: args.partitions,
        report: console.reporter(),
        ..config(programs)
    };
    Ok(Stack::start(config).await?)
}

/// A stack that is fit to be hurt: a group that notices within a second, and a proxy on every line.
#[must_use]
pub fn config(programs: Programs) -> StackConfig {
    StackConfig {
        api_instances: 2,
        workers: 4,
        group_session_timeout: Duration::from_secs(1),
        group_heartbeat: Duration::from_millis(100),
        // Few enough to be taken, all of them, within a moment.
        postgres_settings: vec![("max_connections".to_owned(), "130".to_owned())],
        proxied_links: ProxiedLink::ALL.to_vec(),
        ..StackConfig::full(programs)
    }
}

/// Everything between "healthy" and the verdict. The stack runs on, whole.
///
/// # Errors
/// When the run could not be made; whatever is broken is in the verdict.
pub async fn burn(
    settings: &Settings,
    scenarios: &[Scenario],
    stack: &Arc<Stack>,
    console: &Console,
) -> Result<Verdict, FireError> {
    let supervisor = stack.supervise();
    let watch = Watch::begin(&stack.endpoints().postgres_url);
    let history = match &settings.history {
        None => History::new(),
        Some(path) => History::recorded(path).map_err(|error| unwritten(path, error))?,
    };
    let field = Arc::new(Field::around(Arc::clone(stack), history));
    field.open_shop().await.map_err(FireError::Setup)?;
    let load = Load::begin(&field, settings);
    sleep(WARM_UP).await;
    console.log(&format!("{:.0} s without faults", settings.calm.as_secs_f64()));
    let calm = span(&field, sleep(settings.calm)).await.1;
    let (injected, under_fire) = span(&field, injector::inject(&field, scenarios, settings, console)).await;
    console.log("the fire is out; waiting until everybody has an answer");
    field.heal().await?;
    load.end(&field).await;
    drop(supervisor);
    let config = CheckConfig::settled(&field.endpoints);
    if let Err(error) = checker::settle(&config, SETTLED_WITHIN).await {
        match error {
            CheckError::NotSettled { .. } => field.score.complain(error.to_string()),
            other => return Err(other.into()),
        }
    }
    console.log("checking every invariant");
    let mut report = checker::check(&config, Some(&field.history)).await?;
    watch.end(&mut report).await;
    if let Some(path) = &settings.history {
        field.history.finish().map_err(|error| unwritten(path, error))?;
    }
    let verdict = Verdict::new(settings, &field, injected, report, [calm, under_fire]);
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

/// Whoever looks for the cause needs them, and a temporary stack takes them along.
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

/// Runs something, and counts what was decided meanwhile.
async fn span<T>(field: &Field, meanwhile: impl Future<Output = T>) -> (T, Span) {
    let (began, before) = (Instant::now(), field.score.decided());
    let done = meanwhile.await;
    (done, Span { seconds: began.elapsed().as_secs_f64(), decided: field.score.decided() - before })
}

/// The load, and who keeps the shop.
struct Load {
    stop: CancellationToken,
    users: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Load {
    fn begin(field: &Arc<Field>, settings: &Settings) -> Self {
        let stop = CancellationToken::new();
        // Not the plan's numbers: the same users come whichever faults are chosen.
        let users = load::run(Arc::clone(field), !settings.seed, settings.rate, stop.clone());
        let keeper = Arc::clone(field);
        Self {
            stop,
            users: tokio::spawn(users),
            keeper: tokio::spawn(async move { keeper.keep_shop().await }),
        }
    }

    /// Nobody comes any more; whoever is there is given time to get an answer.
    async fn end(mut self, field: &Field) {
        self.stop.cancel();
        self.keeper.abort();
        if timeout(ANSWERED_WITHIN, &mut self.users).await.is_err() {
            field.score.give_up();
            timeout(ANSWERED_WITHIN, &mut self.users).await.ok();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.users.abort();
        self.keeper.abort();
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
    fn scenarios_are_chosen_by_name_and_a_wrong_name_is_told() {
        assert_eq!(names(&[], &[]).map(|all| all.len()), Ok(scenarios::all().len()));
        assert_eq!(names(&["kill-worker", "deep-json"], &[]), Ok(vec!["kill-worker", "deep-json"]));
        assert_eq!(names(&["kill-worker", "deep-json"], &["kill-worker"]), Ok(vec!["deep-json"]));
        assert!(names(&["kill-wroker"], &[]).is_err_and(|error| error.contains("kill-wroker")));
        assert!(names(&["kill-worker"], &["kill-worker"]).is_err());
    }
}
