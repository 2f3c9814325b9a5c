//! Faults of Redis: data loss, eviction, freeze; and foreign changes of the lists.

use std::time::Duration;

use local_stack::Child;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::overload::concurrent_claims;
use crate::environment::{Environment, FaultError};
use crate::fixtures::Kind;
use crate::rng::Rng;

/// Users that claim during the fault.
const DEMAND: usize = 120;
/// Rounds of claims, until a list exists.
const ROUNDS: usize = 10;

async fn connect(env: &Environment) -> Result<MultiplexedConnection, FaultError> {
    let client = redis::Client::open(env.endpoints.redis_url.as_str())?;
    Ok(client.get_multiplexed_async_connection().await?)
}

/// Names of the lists of codes. There may be none: an owner with few codes to give reads them from Postgres.
async fn lists(redis: &mut MultiplexedConnection) -> Result<Vec<String>, FaultError> {
    Ok(redis.keys("stampede:stock:*").await?)
}

/// Injects a fault while many users claim, so that lists exist and are in use.
pub(super) async fn during_claims<T>(
    env: &Environment,
    rng: &mut Rng,
    fault: impl Future<Output = Result<T, FaultError>>,
) -> Result<T, FaultError> {
    let coupon = env.fixtures.any(Kind::Hot, rng).ok_or("there is no coupon")?;
    tokio::join!(concurrent_claims(env, &coupon, DEMAND, rng), fault).1
}

/// A fault of a list.
#[derive(Clone, Copy)]
enum Fault {
    Corrupt,
    Pop,
    OtherType,
}

/// Applies a fault to every list, several times. An owner has no list until many codes are claimed.
async fn to_lists(env: &Environment, rng: &mut Rng, fault: Fault) -> Result<(), FaultError> {
    for _ in 0..ROUNDS {
        let mut fault_rng = rng.fork();
        if during_claims(env, rng, fault.to_all(env, &mut fault_rng)).await? > 0 {
            return Ok(());
        }
    }
    Err("there was no list".into())
}

impl Fault {
    /// Applies it to every list, and returns how often.
    async fn to_all(self, env: &Environment, rng: &mut Rng) -> Result<u32, FaultError> {
        let mut redis = connect(env).await?;
        let mut applied = 0_u32;
        for _ in 0..8 {
            let all = lists(&mut redis).await?;
            for list in &all {
                applied += 1;
                let done = match self {
                    Fault::Corrupt => corrupt_list(&mut redis, &all, list).await,
                    Fault::Pop => redis::cmd("LPOP").arg(list).arg(3).exec_async(&mut redis).await,
                    Fault::OtherType => {
                        redis::pipe().del(list).set_ex(list, "not a list", 60).exec_async(&mut redis).await
                    }
                };
                // An earlier fault may have changed the type of the key.
                done.ok();
            }
            sleep(Duration::from_millis(rng.between(50, 300))).await;
        }
        Ok(applied)
    }
}

/// Repeats entries at the head of a list, adds entries of another list, and a forged one.
async fn corrupt_list(
    redis: &mut MultiplexedConnection,
    all: &[String],
    list: &String,
) -> redis::RedisResult<()> {
    let mut entries: Vec<String> = redis.lrange(list, 0, 1).await?;
    if let Some(other) = all.iter().rev().find(|other| *other != list) {
        let foreign: Vec<String> = redis.lrange(other, 0, 1).await?;
        entries.extend(foreign);
    }
    let next = entries.first().and_then(|entry| entry.split('|').next()).unwrap_or("1").to_owned();
    entries.push(format!("{next}|FORGED"));
    for entry in entries {
        redis.lpush_exists::<_, _, i64>(list, entry).await?;
    }
    Ok(())
}

pub(super) async fn flush(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut redis = connect(env).await?;
    let mut chance = rng.fork();
    let fault = async {
        for _ in 0..5 {
            sleep(Duration::from_millis(chance.between(50, 300))).await;
            redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
        }
        Ok(())
    };
    during_claims(env, rng, fault).await
}

/// Kills Redis, which restarts empty.
pub(super) async fn kill(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let [before, after] = [rng.between(50, 300), rng.between(200, 1_500)].map(Duration::from_millis);
    let fault = async {
        sleep(before).await;
        env.stack.kill_permanently(Child::Redis)?;
        sleep(after).await;
        env.restart_children(&[Child::Redis]).await?;
        Ok(())
    };
    during_claims(env, rng, fault).await
}

/// Sets a memory limit, so that Redis evicts keys or rejects writes.
pub(super) async fn evict(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut redis = connect(env).await?;
    let policy = *rng.pick(&["allkeys-random", "noeviction"]).unwrap_or(&"allkeys-random");
    let length = Duration::from_millis(rng.between(1_500, 3_000));
    let fault = async {
        configure(&mut redis, "maxmemory-policy", policy).await?;
        configure(&mut redis, "maxmemory", "1mb").await?;
        sleep(length).await;
        configure(&mut redis, "maxmemory", "0").await?;
        configure(&mut redis, "maxmemory-policy", "noeviction").await?;
        Ok(())
    };
    during_claims(env, rng, fault).await
}

async fn configure(redis: &mut MultiplexedConnection, name: &str, value: &str) -> redis::RedisResult<()> {
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(redis).await
}

/// Duplicate, foreign and forged codes at the heads of lists.
pub(super) async fn corrupt_lists(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    to_lists(env, rng, Fault::Corrupt).await
}

/// Commands are executed after their callers have timed out.
pub(super) async fn freeze(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let [before, length] = [rng.between(50, 300), rng.between(800, 2_500)].map(Duration::from_millis);
    let fault = async {
        sleep(before).await;
        env.stack.freeze(Child::Redis)?;
        sleep(length).await;
        env.stack.resume(Child::Redis)?;
        Ok(())
    };
    during_claims(env, rng, fault).await
}

/// Pops codes, as a previous owner would that has not noticed its revocation.
pub(super) async fn pop(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    to_lists(env, rng, Fault::Pop).await
}

/// Replaces lists by values of another type.
pub(super) async fn wrong_types(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    to_lists(env, rng, Fault::OtherType).await
}
