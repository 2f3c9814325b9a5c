//! Executes the plan: one fault, a probe that measures recovery, a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Settings;
use super::environment::{Environment, FaultError};
use super::plan::{Plan, Step};
use super::probe::{RECOVERED_WITHIN, recovery};
use super::rng::Rng;
use super::scenarios::Scenario;
use load_support::progress::Console;

/// Bound on one injection; only starting many programs on a busy machine comes near it.
const INJECTED_WITHIN: Duration = Duration::from_secs(300);
/// Attempts at a scenario that cannot be injected, before it counts as skipped.
const TRIES: u32 = 3;
/// Bound on the time that a run continues past its end until every scenario was injected once.
const LONGEST_OVERTIME: Duration = Duration::from_secs(1_800);

/// What was injected, with the results.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// How often each scenario was injected.
    pub times: BTreeMap<&'static str, u64>,
    /// Scenarios that were never injected, with the reason.
    pub skipped: BTreeMap<&'static str, String>,
    /// By scenario, the longest time from its end until a claim in every partition had an outcome.
    pub recovery_seconds: BTreeMap<&'static str, f64>,
}

/// The progress of one scenario.
#[derive(Clone, Debug, Default)]
struct Progress {
    times: u64,
    failures: u32,
    why: String,
}

impl Progress {
    const fn is_done(&self) -> bool {
        self.times > 0 || self.failures >= TRIES
    }
}

/// Injects faults until the time has passed and every scenario was injected once.
pub async fn inject(
    env: &Arc<Environment>,
    scenarios: &[Scenario],
    settings: &Settings,
    console: &Console,
) -> Injected {
    let mut injected = Injected::default();
    let usable = usable(env, scenarios, &mut injected);
    let mut progress = vec![Progress::default(); usable.len()];
    let end = Instant::now() + settings.under_fire;
    for step in Plan::new(settings.seed, usable.len()) {
        let now = Instant::now();
        let overtime = now >= end;
        let all_done = progress.iter().all(Progress::is_done);
        if (overtime && all_done) || now >= end + LONGEST_OVERTIME {
            break;
        }
        let (scenario, state) = (&usable[step.which], &mut progress[step.which]);
        if (overtime && state.is_done()) || (state.times == 0 && state.failures >= TRIES) {
            // A list in which no scenario can be injected must not spin.
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        sleep(settings.every.mul_f64(step.pause)).await;
        match inject_one(env, scenario, &step).await {
            Ok(took) => {
                state.times += 1;
                note_recovery(env, scenario, took, &mut injected, console).await;
            }
            Err(trouble) => {
                state.failures += 1;
                state.why = trouble.to_string();
                console.log(&format!("{} could not be injected: {trouble}", scenario.name));
                if let Err(error) = env.heal().await {
                    env.stats.complain(format!("after {}: {error}", scenario.name));
                }
            }
        }
    }
    for (scenario, state) in usable.iter().zip(progress) {
        injected.times.insert(scenario.name, state.times);
        if state.times == 0 {
            injected.skipped.insert(scenario.name, state.why);
        }
    }
    injected
}

fn usable(env: &Environment, scenarios: &[Scenario], injected: &mut Injected) -> Vec<Scenario> {
    let (workers, apis) = (env.workers().len(), env.apis());
    let mut usable = Vec::new();
    for scenario in scenarios {
        match scenario.needs.iter().find_map(|need| need.missing(workers, apis)) {
            None => usable.push(*scenario),
            Some(why) => {
                injected.times.insert(scenario.name, 0);
                injected.skipped.insert(scenario.name, why.to_owned());
            }
        }
    }
    usable
}

/// Injects one fault and returns how long that took.
async fn inject_one(env: &Environment, scenario: &Scenario, step: &Step) -> Result<Duration, FaultError> {
    let (began, mut rng) = (Instant::now(), Rng::new(step.seed));
    match timeout(INJECTED_WITHIN, (scenario.inject)(env, &mut rng)).await {
        Ok(done) => done.map(|()| began.elapsed()),
        Err(_) => Err(format!("not finished after {INJECTED_WITHIN:?}").into()),
    }
}

async fn note_recovery(
    env: &Environment,
    scenario: &Scenario,
    took: Duration,
    injected: &mut Injected,
    console: &Console,
) {
    let name = scenario.name;
    match recovery(env).await {
        Some(recovered) => {
            let (took, recovered) = (took.as_secs_f64(), recovered.as_secs_f64());
            console.log(&format!("{name}: injected in {took:.1} s, recovered in {recovered:.2} s"));
            let longest = injected.recovery_seconds.entry(name).or_default();
            *longest = longest.max(recovered);
        }
        None => {
            let what = format!("{RECOVERED_WITHIN:?} after {name} a partition still returns no outcome");
            console.log(&what);
            env.stats.complain(what);
        }
    }
}
