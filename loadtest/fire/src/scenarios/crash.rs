//! Programs that die at a chosen line: at the n-th passing of one of their crash points.

use std::time::Duration;

use futures::future::join_all;
use local_stack::Child;
use tokio::time::sleep;

use super::overload::concurrent_claims;
use super::worker::{any_api, any_worker};
use crate::environment::{Environment, FaultError};
use crate::fixtures::Kind;
use crate::rng::Rng;

const VARIABLE: &str = "STAMPEDE_CRASH_AT";
/// Bound on the time until the crash point is passed for the n-th time.
const CRASHES_WITHIN: Duration = Duration::from_secs(30);
/// Until a worker that was just started owns partitions.
const OWNS_AFTER: Duration = Duration::from_millis(2_500);
/// Users who claim from one coupon, so that its owner keeps a list in Redis.
const DEMAND: usize = 12;
/// Crash points that are tried, where one is not passed.
const TRIES: usize = 3;

const BEFORE_THE_WRITE: &[&str] =
    &["after-lookup", "after-pop", "before-refill", "amid-refill", "after-refill", "before-write"];
const AFTER_THE_WRITE: &[&str] = &[
    "after-write",
    "amid-publish",
    "after-publish-sent",
    "after-publish-acknowledged",
    "before-watermark",
    "before-commit-offset",
    "after-commit-offset",
];
const AT_TAKEOVER: &[&str] = &["before-takeover", "after-takeover", "after-check-log", "before-republish"];
const AT_LOADING: &[&str] = &["after-load-chunk", "after-load-sealed", "before-announce"];

/// With codes popped, or a list partly filled, and nothing durable.
pub(super) async fn before_the_write(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    worker_at(env, rng, BEFORE_THE_WRITE, 20).await
}

/// With everything durable, and part of it published.
pub(super) async fn after_the_write(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    worker_at(env, rng, AFTER_THE_WRITE, 20).await
}

/// During the takeover after its restart.
pub(super) async fn at_takeover(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    worker_at(env, rng, AT_TAKEOVER, 2).await
}

/// During a graceful stop, with everything published and no partition released.
pub(super) async fn at_hand_over(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let worker = any_worker(env, rng)?;
    env.restart_once_with(worker, &[(VARIABLE, "before-release")]).await?;
    env.stack.wait_healthy(worker).await?;
    // Until it owns partitions.
    sleep(Duration::from_millis(rng.between(500, 2_000))).await;
    env.stack.terminate(worker)?;
    let ended = env.stack.wait_exit(worker, CRASHES_WITHIN).await;
    env.restart_in_background(worker);
    ended.map(drop).map_err(FaultError::from)
}

async fn worker_at(
    env: &Environment,
    rng: &mut Rng,
    places: &[&str],
    passings: u64,
) -> Result<(), FaultError> {
    let worker = any_worker(env, rng)?;
    for _ in 0..TRIES {
        let place = armed(rng, places, passings);
        env.restart_once_with(worker, &[(VARIABLE, &place)]).await?;
        let (crashed, ()) = tokio::join!(env.stack.wait_exit(worker, CRASHES_WITHIN), demand(env, rng));
        if crashed.is_ok() {
            env.restart_in_background(worker);
            return Ok(());
        }
    }
    // Disarmed: it would die during another fault.
    env.restart_once_with(worker, &[]).await?;
    Err("no crash point was passed; were the programs built with crash points?".into())
}

/// Claims from coupons of all partitions, several at once.
async fn demand(env: &Environment, rng: &mut Rng) {
    sleep(OWNS_AFTER).await;
    let coupons = env.fixtures.all(Kind::Cool);
    let mut all = Vec::new();
    for coupon in &coupons {
        let mut chance = rng.fork();
        all.push(async move { concurrent_claims(env, coupon, DEMAND, &mut chance).await });
    }
    join_all(all).await;
}

/// Between the broker's acknowledgement and the response.
pub(super) async fn api(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let place = armed(rng, &["after-produce-acknowledged"], 40);
    let api = any_api(env, rng);
    env.restart_once_with(api, &[(VARIABLE, &place)]).await?;
    crashed(env, api, &place).await
}

/// While it stores codes, or before it announces them to their owner.
pub(super) async fn api_while_loading(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let api = any_api(env, rng);
    let place = armed(rng, AT_LOADING, 1);
    let coupon = env.fixtures.any(Kind::Cool, rng).ok_or("there is no coupon")?;
    env.restart_once_with(api, &[(VARIABLE, &place)]).await?;
    let process = env.stack.pid(api);
    env.stack.wait_healthy(api).await?;
    if env.stack.pid(api) != process {
        // It crashed already, during a load of the fixtures, and was restarted.
        return Ok(());
    }
    let (crashed, ()) = tokio::join!(crashed(env, api, &place), async {
        for _ in 0..4 {
            // To all instances in rotation, so one of the loads is its own.
            env.load(&coupon, 50).await.ok();
        }
    });
    crashed
}

/// Waits for the crash, and restarts the instance.
async fn crashed(env: &Environment, api: Child, place: &str) -> Result<(), FaultError> {
    let ended = env.stack.wait_exit(api, CRASHES_WITHIN).await;
    if ended.is_err() {
        env.restart_once_with(api, &[]).await?;
        return Err(format!("{place} was not passed; were the programs built with crash points?").into());
    }
    env.restart_in_background(api);
    Ok(())
}

fn armed(rng: &mut Rng, places: &[&str], passings: u64) -> String {
    let place = rng.pick(places).copied().unwrap_or_default();
    format!("{place}:{}", rng.between(1, passings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_point_exists_in_the_programs() {
        let workers = include_str!("../../../../workers/src/crash_points.rs");
        let api = include_str!("../../../../ingest-api/src/crash_points.rs");
        for place in [BEFORE_THE_WRITE, AFTER_THE_WRITE, AT_TAKEOVER, &["before-release"]].concat() {
            assert!(workers.contains(&format!("\"{place}\"")), "{place}");
        }
        for place in AT_LOADING.iter().chain(&["after-produce-acknowledged"]) {
            assert!(api.contains(&format!("\"{place}\"")), "{place}");
        }
    }
}
