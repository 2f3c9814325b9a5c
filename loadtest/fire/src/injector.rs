//! Carries out the plan: one fault, then a probe until the system does its work again, then a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Settings;
use super::dice::Dice;
use super::field::{Field, Trouble};
use super::plan::{Plan, Step};
use super::probe::{RECOVERED_WITHIN, recovery};
use super::scenarios::Scenario;
use load_support::progress::Console;

/// Doing harm takes no longer than this; only starting many programs on a busy machine comes near it.
const INJECTED_WITHIN: Duration = Duration::from_secs(300);
/// So often one scenario is tried that cannot be injected, then it counts as skipped.
const TRIES: u32 = 3;
/// Beyond its time a run goes on until every scenario had its turn; not for ever.
const LONGEST_OVERTIME: Duration = Duration::from_secs(1_800);

/// What was injected, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// How often each scenario was injected.
    pub times: BTreeMap<&'static str, u64>,
    /// Scenarios that never were, and why.
    pub skipped: BTreeMap<&'static str, String>,
    /// By scenario, the longest time from its end until a claim on every partition was answered.
    pub recovery_seconds: BTreeMap<&'static str, f64>,
}

/// What is known of one scenario on the way.
#[derive(Clone, Debug, Default)]
struct Standing {
    times: u64,
    failures: u32,
    why: String,
}

impl Standing {
    const fn had_its_turn(&self) -> bool {
        self.times > 0 || self.failures >= TRIES
    }
}

/// Injects faults until the time is over and every scenario had its turn.
pub async fn inject(
    field: &Arc<Field>,
    scenarios: &[Scenario],
    settings: &Settings,
    console: &Console,
) -> Injected {
    let mut injected = Injected::default();
    let usable = usable(field, scenarios, &mut injected);
    let mut standings = vec![Standing::default(); usable.len()];
    let over = Instant::now() + settings.under_fire;
    for step in Plan::new(settings.seed, usable.len()) {
        let now = Instant::now();
        let overtime = now >= over;
        let all_had = standings.iter().all(Standing::had_its_turn);
        if (overtime && all_had) || now >= over + LONGEST_OVERTIME {
            break;
        }
        let (scenario, standing) = (&usable[step.which], &mut standings[step.which]);
        if (overtime && standing.had_its_turn()) || (standing.times == 0 && standing.failures >= TRIES) {
            // A list of which nothing can be injected must not spin.
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        sleep(settings.every.mul_f64(step.pause)).await;
        match one(field, scenario, &step).await {
            Ok(took) => {
                standing.times += 1;
                note_recovery(field, scenario, took, &mut injected, console).await;
            }
            Err(trouble) => {
                standing.failures += 1;
                standing.why = trouble.to_string();
                console.log(&format!("{} could not be injected: {trouble}", scenario.name));
                if let Err(error) = field.heal().await {
                    field.score.complain(format!("after {}: {error}", scenario.name));
                }
            }
        }
    }
    for (scenario, standing) in usable.iter().zip(standings) {
        injected.times.insert(scenario.name, standing.times);
        if standing.times == 0 {
            injected.skipped.insert(scenario.name, standing.why);
        }
    }
    injected
}

fn usable(field: &Field, scenarios: &[Scenario], injected: &mut Injected) -> Vec<Scenario> {
    let (workers, apis) = (field.workers().len(), field.apis());
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

/// Answers how long the harm took.
async fn one(field: &Field, scenario: &Scenario, step: &Step) -> Result<Duration, Trouble> {
    let (began, mut dice) = (Instant::now(), Dice::new(step.seed));
    match timeout(INJECTED_WITHIN, (scenario.inject)(field, &mut dice)).await {
        Ok(done) => done.map(|()| began.elapsed()),
        Err(_) => Err(format!("not done after {INJECTED_WITHIN:?}").into()),
    }
}

async fn note_recovery(
    field: &Field,
    scenario: &Scenario,
    took: Duration,
    injected: &mut Injected,
    console: &Console,
) {
    let name = scenario.name;
    match recovery(field).await {
        Some(recovered) => {
            let (took, recovered) = (took.as_secs_f64(), recovered.as_secs_f64());
            console.log(&format!("{name} took {took:.1} s, and {recovered:.2} s to recover from"));
            let longest = injected.recovery_seconds.entry(name).or_default();
            *longest = longest.max(recovered);
        }
        None => {
            let what = format!("{RECOVERED_WITHIN:?} after {name} not every partition answers");
            console.log(&what);
            field.score.complain(what);
        }
    }
}
