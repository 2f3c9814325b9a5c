//! `pg-ceiling`: what this Postgres can take, whatever Stampede writes.
//!
//! One connection, one call after the other, a thousand claims in each; while Postgres works on one call, the next one
//! is put together. p50 and p99 are those of a call.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::{Arguments as _, ConnectOptions as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::arm::{Arm, Sample};
use super::backlog::{request_id, user_name};
use super::ground::{Ground, used};
use super::{BenchError, cpu};

const SCHEMA: &str = include_str!("pg_ceiling.sql");
const CALL: &str = "select bench_ceiling.write_claims($1, $2, $3, $4, $5, $6, $7)";
const CLAIMS_PER_CALL: u64 = 1_000;
const EPOCH: i64 = 1;
const COUPON: i64 = 1;

/// The arm.
pub struct PgCeiling;

impl Arm for PgCeiling {
    fn name(&self) -> &'static str {
        "pg-ceiling"
    }

    fn about(&self) -> &'static str {
        "bare inserts of lean claim rows, 1,000 a fenced call, one connection: durable, no decisions, nobody is told"
    }

    fn run<'a>(
        &'a self,
        ground: &'a mut Ground,
        claims: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        measure(ground, claims).boxed_local()
    }
}

async fn measure(ground: &mut Ground, claims: u64) -> Result<Sample, BenchError> {
    ground.connection.execute(SCHEMA).await?;
    ground.calm().await?;
    let mut connection = pinned(ground).await?;
    let (before, own_before) = (ground.cpu(), cpu::of_this_process());
    let begun = Instant::now();
    let calls = write_all(&mut connection, claims).await?;
    let took = begun.elapsed();
    let mut cpu = used(&before, &ground.cpu());
    cpu.push(("caller", cpu::of_this_process().saturating_sub(own_before)));
    let counted: i64 = sqlx::query_scalar("select count(*) from bench_ceiling.claims")
        .fetch_one(&mut ground.connection)
        .await?;
    if u64::try_from(counted) != Ok(claims) {
        return Err(BenchError::Count {
            what: "rows of bench_ceiling.claims",
            wanted: claims,
            found: counted,
        });
    }
    Ok(Sample { claims, took, p50: rank(&calls, 50), p99: rank(&calls, 99), cpu })
}

/// With the same settings as Stampede's own connections.
async fn pinned(ground: &Ground) -> Result<PgConnection, BenchError> {
    let options: PgConnectOptions = ground.stack.endpoints().postgres_url.parse()?;
    let options = runtime::postgres::pinned(options).options([("jit", "off")]);
    Ok(runtime::postgres::connect(&options.disable_statement_logging()).await?)
}

/// Sorted times of all calls.
async fn write_all(connection: &mut PgConnection, claims: u64) -> Result<Vec<Duration>, BenchError> {
    let calls = claims.div_ceil(CLAIMS_PER_CALL);
    let mut times = Vec::with_capacity(usize::try_from(calls).unwrap_or(0));
    let mut next = Some(arguments(0, claims)?);
    for call in 1..=calls {
        let Some(this) = next.take() else { break };
        let begun = Instant::now();
        let write = async {
            sqlx::query_with(CALL, this).execute(&mut *connection).await?;
            Ok::<_, BenchError>(begun.elapsed())
        };
        // Polled first, so the call is on its way when the next one is put together.
        let prepare = async { if call < calls { arguments(call, claims).map(Some) } else { Ok(None) } };
        let (time, prepared) = futures::try_join!(write, prepare)?;
        times.push(time);
        next = prepared;
    }
    times.sort_unstable();
    Ok(times)
}

fn arguments(call: u64, claims: u64) -> Result<PgArguments, BenchError> {
    let first = call * CLAIMS_PER_CALL;
    let numbers = first..claims.min(first + CLAIMS_PER_CALL);
    let ids: Vec<Uuid> = numbers.clone().map(|n| Uuid::from_u128(request_id(0, n).identity)).collect();
    let users: Vec<String> = numbers.map(user_name).collect();
    let mut arguments = PgArguments::default();
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for number in [EPOCH, signed(call + 1), COUPON, signed(first), 0] {
        arguments.add(number).map_err(sqlx::Error::Encode)?;
    }
    arguments.add(ids).map_err(sqlx::Error::Encode)?;
    arguments.add(users).map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

fn rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}
