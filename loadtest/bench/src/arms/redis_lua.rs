//! `redis-lua`: the usual design for a flash sale. A script checks the user, pops a code, and records its holder. Nothing is
//! durable: a lost Redis loses everything, and there is no order in which it could be replayed.
//!
//! Each client has a connection of its own and waits for the response before the next call, as servers with one user per
//! request do; the script is loaded once and called by its digest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::FutureExt as _;

use crate::BenchError;
use crate::frames::baseline::{BaselineArm, Count, Work};
use crate::host::environment::Environment;
use crate::load::backlog::user_name;
use crate::load::latencies::Latencies;
use crate::load::worker_run::blocking;

const CLIENTS: usize = 50;
const CODES_PER_PUSH: u64 = 10_000;
const SCRIPT: &str = "
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return 'user_limit_reached' end
local code = redis.call('LPOP', KEYS[2])
if not code then redis.call('SREM', KEYS[1], ARGV[1]) return 'sold_out' end
redis.call('HSET', KEYS[3], code, ARGV[1])
return code";
const USERS: &str = "bench:users";
const CODES: &str = "bench:codes";
const CLAIMS: &str = "bench:claims";

/// The arm.
pub const REDIS_LUA: BaselineArm = BaselineArm {
    name: "redis-lua",
    about: "Redis: a script checks the user, pops a code, records its holder; 50 connections, not pipelined; nothing is durable, no response event",
    prepare: |env, claims| prepare(env, claims).boxed_local(),
    share: 1,
    what: "codes with users of their own",
    count: Count::By(|env| count(env).boxed_local()),
};

async fn prepare(env: &mut Environment, claims: u64) -> Result<Work, BenchError> {
    let client = redis::Client::open(env.stack.endpoints().redis_url)?;
    let (connections, digest) = blocking(move || {
        let mut first = client.get_connection()?;
        for from in (0..claims).step_by(usize::try_from(CODES_PER_PUSH).unwrap_or(1)) {
            let codes: Vec<String> =
                (from..claims.min(from + CODES_PER_PUSH)).map(|n| format!("CODE-{n:012}")).collect();
            redis::cmd("RPUSH").arg(CODES).arg(codes).exec(&mut first)?;
        }
        let digest: String = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut first)?;
        let connections: Result<Vec<_>, _> = (0..CLIENTS).map(|_| client.get_connection()).collect();
        Ok((connections?, digest))
    })
    .await?;
    Ok(blocking(move || call(connections, &digest, claims)).boxed_local())
}

/// A thread for each client: nothing between a caller and its response but the kernel.
fn call(connections: Vec<redis::Connection>, digest: &str, claims: u64) -> Result<Latencies, BenchError> {
    let next = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (next, digest) = (Arc::clone(&next), digest.to_owned());
            std::thread::spawn(move || {
                let mut times = Latencies::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= claims {
                        return Ok::<_, redis::RedisError>(times);
                    }
                    let started = Instant::now();
                    redis::cmd("EVALSHA")
                        .arg(&digest)
                        .arg(3)
                        .arg(&[USERS, CODES, CLAIMS])
                        .arg(user_name(n))
                        .exec(&mut connection)?;
                    times.record(started.elapsed());
                }
            })
        })
        .collect();
    let mut all = Latencies::default();
    for thread in threads {
        all += thread.join().map_err(|_| BenchError::Lost)??;
    }
    Ok(all)
}

/// Codes that were given, if as many users have one.
async fn count(env: &mut Environment) -> Result<i64, BenchError> {
    let client = redis::Client::open(env.stack.endpoints().redis_url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let given: i64 = redis::cmd("HLEN").arg(CLAIMS).query_async(&mut connection).await?;
    let users: i64 = redis::cmd("SCARD").arg(USERS).query_async(&mut connection).await?;
    Ok(given.min(users))
}
