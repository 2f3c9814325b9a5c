//! `skip-locked`: one row for each code; a claim takes any free row that no other transaction has locked.
//!
//! Tuned: no ORDER BY (with it every claim scans the dead entries of the claims before it), a partial index of free codes,
//! the limit per user by a unique index, one statement and one round trip, and a vacuum once per second.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::{Executor as _, PgConnection};
use uuid::Uuid;

use crate::BenchError;
use crate::frames::baseline::{BaselineArm, Count, Work};
use crate::host::environment::Environment;
use crate::load::backlog::{request_id, user_name};
use crate::load::closed_loop;

const CONNECTIONS: usize = 16;
const BETWEEN_VACUUMS: Duration = Duration::from_secs(1);
const SCHEMA: &str = include_str!("skip_locked.sql");
const FILL: &str = "
    insert into bench.codes (coupon_no, code)
    select 1, upper(substr(md5(n::text), 1, 12)) || n from generate_series(1, $1) n";
const CLAIM: &str = "
    with free as (
        select ctid from bench.codes where coupon_no = 1 and user_id is null limit 1 for update skip locked)
    update bench.codes c set user_id = $2, request_id = $1, claimed_at = now()
      from free where c.ctid = free.ctid";

/// The arm.
pub const SKIP_LOCKED: BaselineArm = BaselineArm {
    name: "skip-locked",
    about: "Postgres: a row for each code, taken with FOR UPDATE SKIP LOCKED, no ORDER BY, vacuumed every second; 16 connections; durable, one a user, no response event",
    prepare: |env, claims| prepare(env, claims).boxed_local(),
    share: 10,
    what: "codes with users of their own",
    count: Count::Sql("select count(distinct user_id) from bench.codes where user_id is not null"),
};

async fn prepare(env: &mut Environment, claims: u64) -> Result<Work, BenchError> {
    env.connection.execute(SCHEMA).await?;
    let total = i64::try_from(claims).unwrap_or(i64::MAX);
    sqlx::query(FILL).bind(total).execute(&mut env.connection).await?;
    let mut vacuum = env.connect().await?;
    // Planned while every row is free, a scan of the table from its start samples like the quickest way to one, and
    // passes over everything taken: half as many claims.
    env.connection.execute("alter role current_user set enable_seqscan = off").await?;
    let work = closed_loop::postgres_clients(env, CONNECTIONS, claims, claim).await?;
    env.connection.execute("alter role current_user reset enable_seqscan").await?;
    Ok(async move {
        let cleaning = async {
            loop {
                tokio::time::sleep(BETWEEN_VACUUMS).await;
                if let Err(error) = vacuum.execute("vacuum bench.codes").await {
                    return BenchError::from(error);
                }
            }
        };
        tokio::select! {
            times = work => times,
            error = cleaning => Err(error),
        }
    }
    .boxed_local())
}

fn claim(connection: &mut PgConnection, n: u64) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    async move {
        // No row if all that it saw were locked by others. There is a code for every claim, so it repeats.
        loop {
            let claim =
                sqlx::query(CLAIM).bind(Uuid::from_u128(request_id(0, n).identity)).bind(user_name(n));
            if claim.execute(&mut *connection).await?.rows_affected() > 0 {
                return Ok(());
            }
        }
    }
    .boxed()
}
