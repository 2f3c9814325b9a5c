//! `pg-ceiling`: what this Postgres sustains, whatever Stampede writes.
//!
//! One connection, one call after the other, a thousand claims in each; the next call is assembled while Postgres executes
//! the present one.

use std::time::Instant;

use futures::FutureExt as _;
use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::{Arguments as _, ConnectOptions as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::BenchError;
use crate::frames::baseline::{BaselineArm, Count, Work};
use crate::host::environment::Environment;
use crate::load::backlog::{request_id, user_name};
use crate::load::latencies::Latencies;

const SCHEMA: &str = include_str!("pg_ceiling.sql");
const CALL: &str = "select bench.write_claims($1, $2, $3, $4, $5, $6, $7)";
const CLAIMS_PER_CALL: u64 = 1_000;
const EPOCH: i64 = 1;
const COUPON: i64 = 1;

/// The arm.
pub const PG_CEILING: BaselineArm = BaselineArm {
    name: "pg-ceiling",
    about: "bare inserts of lean claim rows, 1,000 a fenced call, one connection: durable, no decisions, no response events",
    prepare: |env, claims| prepare(env, claims).boxed_local(),
    share: 1,
    what: "rows of bench.claims",
    count: Count::Sql("select count(*) from bench.claims"),
};

async fn prepare(env: &mut Environment, claims: u64) -> Result<Work, BenchError> {
    env.connection.execute(SCHEMA).await?;
    let mut connection = pinned(env).await?;
    Ok(async move { write_all(&mut connection, claims).await }.boxed_local())
}

/// With the same settings as Stampede's own connections.
async fn pinned(env: &Environment) -> Result<PgConnection, BenchError> {
    let options: PgConnectOptions = env.stack.endpoints().postgres_url.parse()?;
    let options = runtime::postgres::force_index_plans(options).options([("jit", "off")]);
    Ok(runtime::postgres::connect(&options.disable_statement_logging()).await?)
}

/// Times of all calls.
async fn write_all(connection: &mut PgConnection, claims: u64) -> Result<Latencies, BenchError> {
    let calls = claims.div_ceil(CLAIMS_PER_CALL);
    let mut times = Latencies::default();
    let mut next = Some(arguments(0, claims)?);
    for call in 1..=calls {
        let Some(this) = next.take() else { break };
        let started = Instant::now();
        let write = async {
            sqlx::query_with(CALL, this).execute(&mut *connection).await?;
            Ok::<_, BenchError>(started.elapsed())
        };
        // Polled first, so the call is on its way when the next one is put together.
        let prepare = async { if call < calls { arguments(call, claims).map(Some) } else { Ok(None) } };
        let (time, prepared) = futures::try_join!(write, prepare)?;
        times.record(time);
        next = prepared;
    }
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
