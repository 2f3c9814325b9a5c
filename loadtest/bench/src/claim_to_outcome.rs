//! `claim-to-outcome`: how long it takes from a claim to its outcome, decided and durable, in one answer (`wait=`).
//!
//! The highest load is found first, with as many clients as it takes; then clients come at a fixed rate, whatever
//! becomes of those before them: at several shares of the highest load, which is the curve, and at half of it for
//! longest, which is the figure.

use std::time::Duration;

use futures::FutureExt as _;

use super::arm::{CurvePoint, Sample, millis, precise, rank};
use super::front::{CONNECTIONS, Door, Front, only, sample};
use super::ground::Ground;
use super::http_load::{Answers, Pace};
use super::{BenchError, MARK_HIGHEST};

/// Shares of the highest load (growing), each for so many seconds at most.
const CURVE: [(f64, f64); 5] = [(0.1, 4.0), (0.25, 4.0), (0.5, 10.0), (0.75, 4.0), (0.9, 4.0)];
const HALF: f64 = 0.5;
/// No rate is sent for longer than this before times are kept of it; nor for more than its first quarter.
const LEAD_IN: Duration = Duration::from_secs(1);
/// Clients wait as long as it takes: what comes late is charged, not left out.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough that hardly anybody has to wait for a connection.
const MANY: usize = 1_000;

/// The arm.
pub const CLAIM_TO_OUTCOME: Front = Front {
    name: "claim-to-outcome",
    about: "Stampede: claims over HTTP that wait for their durable outcome, at a fixed rate: half of the highest",
    share: 5,
    measure: |ground, requests| measure(ground, requests).boxed_local(),
};

/// The arm with one client.
pub const CLAIM_ALONE: Front = Front {
    name: "claim-alone",
    about: "Stampede: the same, one claim after the other: each finds everything idle",
    share: 400,
    measure: |ground, requests| alone(ground, requests).boxed_local(),
};

async fn alone(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    let mut door = Door::open(ground, requests * 2, true, &[]).await?;
    // The first ones find everything cold.
    only(&door.ask(1, Pace::Closed, requests / 4).await?, &[200])?;
    let (answers, cpu) = door.ask_and_look(ground, 1, Pace::Closed, requests).await?;
    only(&answers, &[200])?;
    door.close(ground).await?;
    Ok(sample(&answers, 200, cpu))
}

async fn measure(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    let mut door = Door::open(ground, requests * 2, true, &[]).await?;
    let highest = highest(&mut door, CONNECTIONS, requests / 4).await?;
    let mut figure = Sample::default();
    let mut curve = Vec::new();
    for (share, seconds) in CURVE {
        let offered = highest * share;
        let count = whole(offered * seconds).min(requests / 3);
        let (answers, cpu) = door.ask_and_look(ground, MANY, steady(offered, PATIENCE, count), count).await?;
        only(&answers, &[200])?;
        curve.push(point(offered, &answers));
        if (share - HALF).abs() < f64::EPSILON {
            figure = sample(&answers, 200, cpu);
        }
    }
    door.close(ground).await?;
    Ok(Sample { curve, marks: vec![(MARK_HIGHEST, highest)], ..figure })
}

/// How many claims a second are decided when there are always so many under way.
///
/// # Errors
/// When one is not decided.
pub async fn highest(door: &mut Door, under_way: usize, requests: u64) -> Result<f64, BenchError> {
    // The first ones find everything cold.
    only(&door.ask(under_way, Pace::Closed, requests / 4).await?, &[200])?;
    let answers = door.ask(under_way, Pace::Closed, requests - requests / 4).await?;
    only(&answers, &[200])?;
    Ok(precise(answers.count(200)) / answers.took.as_secs_f64())
}

/// So many at this rate, with a lead-in.
pub fn steady(per_second: f64, patience: Duration, count: u64) -> Pace {
    let quarter = Duration::from_secs_f64(precise(count) / per_second / 4.0);
    Pace::Open { per_second, patience, lead_in: LEAD_IN.min(quarter) }
}

fn point(offered: f64, answers: &Answers) -> CurvePoint {
    let times = answers.times(200);
    CurvePoint {
        offered,
        per_second: precise(answers.count(200)) / answers.took.as_secs_f64(),
        p50_ms: millis(rank(times, 50)),
        p99_ms: millis(rank(times, 99)),
    }
}

/// A number of requests.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of requests")]
pub fn whole(count: f64) -> u64 {
    count.max(1.0) as u64
}
