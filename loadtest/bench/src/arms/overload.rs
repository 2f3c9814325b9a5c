//! `overload`: the latency of accepted claims when ten times as many arrive as can be served. The others are rejected
//! immediately: 503, with Retry-After.
//!
//! The latency of an accepted claim depends on how many are before it. Behind the API that is the bound on pending requests
//! of a partition (`STAMPEDE_MAX_PENDING_PER_PARTITION`), set here to what is decided in some 10 ms. A higher bound is
//! decided slightly faster and waits much longer; the default suits a rush. The highest load is measured with as many
//! requests in flight as the bound allows. In front of the API it is every client that has sent: a rejection takes time too.
//! Requests are due at a fixed rate; one that finds no connection within a few milliseconds is not sent (two cores cannot
//! both send and reject that many; the number sent is reported).

use std::time::Duration;

use futures::FutureExt as _;

use crate::arm::{Sample, millis};
use crate::arms::claim_to_outcome::{highest, steady, whole};
use crate::frames::http::{ApiUnderTest, HttpArm, only, sample};
use crate::host::environment::Environment;
use crate::{BenchError, METRIC_HIGHEST};

/// The bound on pending requests of the one partition.
const MAX_PENDING: usize = 128;
const TIMES: f64 = 10.0;
const SECONDS: f64 = 3.0;
/// Connections: half of those who have sent can be let in.
const MANY: usize = 2 * MAX_PENDING;
const MAX_DELAY: Duration = Duration::from_millis(5);

/// The arm.
pub const OVERLOAD: HttpArm = HttpArm {
    name: "overload",
    about: "Stampede: ten times the highest load, at most 128 pending, twice as many clients; accepted claims to their outcome",
    share: 10,
    measure: |env, requests| measure(env, requests).boxed_local(),
};

async fn measure(env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
    let limits = [
        ("STAMPEDE_MAX_PENDING", 2 * MAX_PENDING as u64),
        ("STAMPEDE_MAX_PENDING_PER_PARTITION", MAX_PENDING as u64),
    ];
    let mut api = ApiUnderTest::open(env, requests * 5, true, &limits).await?;
    let highest = highest(&mut api, MAX_PENDING, requests / 4).await?;
    let half = highest / 2.0;
    let count = whole(half * SECONDS).min(requests / 2);
    let calm = api.send(MANY, steady(half, Duration::from_secs(60), count), count).await?;
    only(&calm, &[200, 503])?;
    let offered = highest * TIMES;
    let count = whole(offered * SECONDS).min(requests * 4);
    let pace = steady(offered, MAX_DELAY, count);
    let (responses, cpu) = api.send_and_measure(env, MANY, pace, count).await?;
    only(&responses, &[200, 503])?;
    api.close(env).await?;
    let metrics = vec![
        (METRIC_HIGHEST, highest),
        ("p99 at half of it, ms", millis(calm.percentile(200, 99))),
        ("sent, requests/s", responses.sent_per_second()),
        ("refused, p50 ms", millis(responses.percentile(503, 50))),
        ("refused, p99 ms", millis(responses.percentile(503, 99))),
    ];
    Ok(Sample { metrics, ..sample(&responses, 200, cpu) })
}
