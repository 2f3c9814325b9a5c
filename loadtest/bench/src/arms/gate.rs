//! `gate`: how many claims per second of a sold-out coupon an API rejects by itself. One per second passes and renews the
//! lease.

use futures::FutureExt as _;

use crate::BenchError;
use crate::arm::Sample;
use crate::frames::http::{ApiUnderTest, CONNECTIONS, HttpArm, only, sample};
use crate::host::environment::Environment;
use crate::load::http_load::Pace;
use crate::load::worker_run::SETTLE_WITHIN;

/// Claims until the API has seen that the one code is gone.
const FIRST: u64 = 100;

/// The arm.
pub const GATE: HttpArm = HttpArm {
    name: "gate",
    about: "Stampede: claims over HTTP of a coupon that is sold out, 256 connections, rejected with 409 by the gate",
    share: 5,
    measure: |env, requests| measure(env, requests).boxed_local(),
};

async fn measure(env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
    let mut api = ApiUnderTest::open(env, 1, false, &[]).await?;
    api.send(1, Pace::Closed, FIRST).await?;
    env.settle(SETTLE_WITHIN).await?;
    let (responses, cpu) = api.send_and_measure(env, CONNECTIONS, Pace::Closed, requests).await?;
    only(&responses, &[202, 409])?;
    api.close(env).await?;
    Ok(sample(&responses, 409, cpu))
}
