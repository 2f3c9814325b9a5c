//! `claim-to-outcome`: the time from a claim to its durable outcome, in one response (`wait=`).
//!
//! The highest load is measured first, with a closed loop of clients. Then requests are due at a fixed rate, independent of
//! earlier responses: at several shares of the highest load, which gives the curve, and at half of it for longest, which
//! gives the figure.

use std::time::Duration;

use futures::FutureExt as _;

use crate::arm::{CurvePoint, Sample, millis, precise};
use crate::frames::http::{ApiUnderTest, CONNECTIONS, HttpArm, only, sample};
use crate::host::environment::Environment;
use crate::load::http_load::{Pace, Responses};
use crate::{BenchError, METRIC_HIGHEST};

/// Shares of the highest load (growing), each for so many seconds at most.
const CURVE: [(f64, f64); 5] = [(0.1, 4.0), (0.25, 4.0), (0.5, 10.0), (0.75, 4.0), (0.9, 4.0)];
const HALF: f64 = 0.5;
/// Bound on the lead-in, which is at most the first quarter of a load.
const LEAD_IN: Duration = Duration::from_secs(1);
/// Clients wait for late responses: they count, and are not left out.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Enough connections that a request hardly ever waits for one.
const MANY: usize = 1_000;

/// The arm.
pub const CLAIM_TO_OUTCOME: HttpArm = HttpArm {
    name: "claim-to-outcome",
    about: "Stampede: claims over HTTP that wait for their durable outcome, at a fixed rate: half of the highest",
    share: 5,
    measure: |env, requests| measure(env, requests).boxed_local(),
};

/// The arm with one client.
pub const CLAIM_ALONE: HttpArm = HttpArm {
    name: "claim-alone",
    about: "Stampede: the same, one claim after the other: each finds everything idle",
    share: 400,
    measure: |env, requests| alone(env, requests).boxed_local(),
};

async fn alone(env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
    let mut api = ApiUnderTest::open(env, requests * 2, true, &[]).await?;
    // The first requests find everything cold.
    only(&api.send(1, Pace::Closed, requests / 4).await?, &[200])?;
    let (responses, cpu) = api.send_and_measure(env, 1, Pace::Closed, requests).await?;
    only(&responses, &[200])?;
    api.close(env).await?;
    Ok(sample(&responses, 200, cpu))
}

async fn measure(env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
    let mut api = ApiUnderTest::open(env, requests * 2, true, &[]).await?;
    let highest = highest(&mut api, CONNECTIONS, requests / 4).await?;
    let mut figure = Sample::default();
    let mut curve = Vec::new();
    for (share, seconds) in CURVE {
        let offered = highest * share;
        let count = whole(offered * seconds).min(requests / 3);
        let (responses, cpu) =
            api.send_and_measure(env, MANY, steady(offered, MAX_DELAY, count), count).await?;
        only(&responses, &[200])?;
        curve.push(point(offered, &responses));
        if (share - HALF).abs() < f64::EPSILON {
            figure = sample(&responses, 200, cpu);
        }
    }
    api.close(env).await?;
    Ok(Sample { curve, metrics: vec![(METRIC_HIGHEST, highest)], ..figure })
}

/// How many claims a second are decided when there are always so many under way.
///
/// # Errors
/// When one is not decided.
pub async fn highest(api: &mut ApiUnderTest, under_way: usize, requests: u64) -> Result<f64, BenchError> {
    // The first requests find everything cold.
    only(&api.send(under_way, Pace::Closed, requests / 4).await?, &[200])?;
    let responses = api.send(under_way, Pace::Closed, requests - requests / 4).await?;
    only(&responses, &[200])?;
    Ok(precise(responses.count(200)) / responses.took.as_secs_f64())
}

/// So many at this rate, with a lead-in.
pub fn steady(per_second: f64, max_delay: Duration, count: u64) -> Pace {
    let quarter = Duration::from_secs_f64(precise(count) / per_second / 4.0);
    Pace::Open { per_second, max_delay, lead_in: LEAD_IN.min(quarter) }
}

fn point(offered: f64, responses: &Responses) -> CurvePoint {
    CurvePoint {
        offered,
        per_second: precise(responses.count(200)) / responses.took.as_secs_f64(),
        p50_ms: millis(responses.percentile(200, 50)),
        p99_ms: millis(responses.percentile(200, 99)),
    }
}

/// A number of requests.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of requests")]
pub fn whole(count: f64) -> u64 {
    count.max(1.0) as u64
}
