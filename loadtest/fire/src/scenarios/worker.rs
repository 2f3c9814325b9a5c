//! Faults of our own programs: kill, freeze, restart, slow execution, late takeovers.

use std::time::Duration;

use local_stack::Child;
use tokio::time::{Instant, sleep};

use crate::environment::{Environment, FaultError};
use crate::rng::Rng;

/// Longer than a session of the group in a fault run.
const PAST_THE_SESSION: Duration = Duration::from_millis(1_800);

pub(super) fn any_worker(env: &Environment, rng: &mut Rng) -> Result<Child, FaultError> {
    let running: Vec<Child> =
        env.workers().into_iter().filter(|worker| env.stack.is_running(*worker)).collect();
    rng.pick(&running).copied().ok_or_else(|| "no worker runs".into())
}

pub(super) fn any_api(env: &Environment, rng: &mut Rng) -> Child {
    Child::Api(rng.below(env.apis()))
}

pub(super) async fn kill(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let worker = any_worker(env, rng)?;
    env.stack.kill(worker)?;
    env.restart_in_background(worker);
    Ok(())
}

/// Kills a worker for longer than its session: another one must take over.
pub(super) async fn remove(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let worker = any_worker(env, rng)?;
    env.stack.kill_permanently(worker)?;
    sleep(Duration::from_millis(rng.between(2_500, 5_000))).await;
    env.restart_in_background(worker);
    Ok(())
}

/// Kills all workers: none is left to take over.
pub(super) async fn kill_all(env: &Environment, _: &mut Rng) -> Result<(), FaultError> {
    let workers = env.workers();
    for worker in &workers {
        // Fails for a worker that is not running.
        env.stack.kill(*worker).ok();
    }
    for worker in workers {
        env.restart_in_background(worker);
    }
    Ok(())
}

pub(super) async fn kill_api(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let api = any_api(env, rng);
    env.stack.kill(api)?;
    env.restart_in_background(api);
    Ok(())
}

/// Freezes a worker past its session: it continues with the state of a previous owner.
pub(super) async fn freeze(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let worker = any_worker(env, rng)?;
    env.stack.freeze(worker)?;
    sleep(PAST_THE_SESSION + Duration::from_millis(rng.between(0, 2_000))).await;
    env.stack.resume(worker)?;
    Ok(())
}

/// Locks the row that a write needs and freezes the worker while its write waits; then the write succeeds, and another
/// worker takes over before the writer receives the result.
pub(super) async fn freeze_in_mid_write(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut holder = env.postgres().await?;
    let mut observer = env.postgres().await?;
    let partition = i32::try_from(rng.below(usize::try_from(env.partitions)?))?;
    sqlx::raw_sql("begin").execute(&mut holder).await?;
    let owner: Option<String> =
        sqlx::query_scalar("select owner from stampede.partitions where partition = $1 for update")
            .bind(partition)
            .fetch_one(&mut holder)
            .await?;
    let owner = env.workers().into_iter().find(|worker| Some(worker.to_string()) == owner);
    let owner = owner.ok_or("the partition has no owner")?;
    let waiting = "select count(*) from pg_stat_activity
                    where application_name = $1 and wait_event_type = 'Lock'";
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let waiting: i64 = sqlx::query_scalar(waiting)
            .bind(format!("stampede-partition-{partition}"))
            .fetch_one(&mut observer)
            .await?;
        if waiting > 0 {
            break;
        }
        if Instant::now() > until {
            return Err(format!("nothing was written to partition {partition}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    env.stack.freeze(owner)?;
    let released = sqlx::raw_sql("commit").execute(&mut holder).await;
    sleep(PAST_THE_SESSION).await;
    env.stack.resume(owner)?;
    released?;
    Ok(())
}

/// Workers stop and start, half of them gracefully.
pub(super) async fn storm(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut gone: Option<Child> = None;
    for round in 0..5 {
        let worker = any_worker(env, rng)?;
        if Some(worker) != gone && env.stack.is_running(worker) {
            if round % 2 == 0 { env.stack.terminate(worker)? } else { env.stack.kill_permanently(worker)? }
        }
        if let Some(back) = gone.replace(worker) {
            env.restart_in_background(back);
        }
        sleep(Duration::from_millis(rng.between(400, 1_000))).await;
    }
    env.workers().into_iter().for_each(|worker| env.restart_in_background(worker));
    Ok(())
}

/// Freezes a worker repeatedly, so that it runs a fifth of the time.
pub(super) async fn slow(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let worker = any_worker(env, rng)?;
    for _ in 0..15 {
        env.stack.freeze(worker)?;
        sleep(Duration::from_millis(rng.between(100, 300))).await;
        env.stack.resume(worker)?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Restarts all programs gracefully, one after another.
pub(super) async fn rolling_restart(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut programs = env.workers();
    programs.extend((0..env.apis()).map(Child::Api));
    rng.shuffle(&mut programs);
    for child in programs {
        if let Err(error) = env.stack.stop_child(child).await {
            env.stats.complain(error.to_string());
        }
        env.stack.restart(child).await?;
    }
    Ok(())
}

/// Takeovers of a process that died long ago arrive late: they fence the owners, to which the group still assigns the
/// partitions.
pub(super) async fn late_takeover(env: &Environment, _: &mut Rng) -> Result<(), FaultError> {
    let late =
        "select stampede.take_over(partition, 'late-takeover', gen_random_uuid()) from stampede.partitions";
    sqlx::raw_sql(late).execute(&mut env.postgres().await?).await?;
    Ok(())
}
