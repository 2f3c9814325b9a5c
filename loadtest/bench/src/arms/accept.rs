//! `accept`: how many claims per second an API accepts. Each gets its 202 when every in-sync replica has it.
//!
//! The worker does not run meanwhile: the cost of deciding is measured by other arms. It decides all claims afterwards, and
//! the checker reads the outcome of each.

use futures::FutureExt as _;

use crate::BenchError;
use crate::arm::Sample;
use crate::frames::http::{ApiUnderTest, CONNECTIONS, HttpArm, only, sample};
use crate::host::environment::Environment;
use crate::load::http_load::Pace;

/// The arm.
pub const ACCEPT: HttpArm = HttpArm {
    name: "accept",
    about: "Stampede: claims over HTTP, 256 connections, each received 202 once Kafka has it (acks = all)",
    share: 5,
    measure: |env, requests| measure(env, requests).boxed_local(),
};

async fn measure(env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
    // No worker runs meanwhile: the bounds must admit all claims.
    let limits =
        [("STAMPEDE_MAX_PENDING", requests * 2), ("STAMPEDE_MAX_PENDING_PER_PARTITION", requests * 2)];
    let mut api = ApiUnderTest::open(env, requests, false, &limits).await?;
    env.stop_workers().await?;
    let (responses, cpu) = api.send_and_measure(env, CONNECTIONS, Pace::Closed, requests).await?;
    only(&responses, &[202])?;
    env.start_worker().await?;
    api.close(env).await?;
    Ok(sample(&responses, 202, cpu))
}
