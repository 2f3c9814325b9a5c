//! `skip-locked`: one row for each code; a claim takes any free one that nobody else is just taking.
//!
//! Tuned: no ORDER BY (with it every claim walks over the dead entries of those before it), a partial index of what is
//! free, the check of the user by a unique index, one statement and one round trip, and a vacuum once a second.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::{Executor as _, PgConnection};
use uuid::Uuid;

use super::BenchError;
use super::backlog::{request_id, user_name};
use super::clients;
use super::direct::{Count, Direct, Work};
use super::ground::Ground;

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
pub const SKIP_LOCKED: Direct = Direct {
    name: "skip-locked",
    about: "Postgres: a row for each code, taken with FOR UPDATE SKIP LOCKED, no ORDER BY, vacuumed every second; 16 connections; durable, one a user, nobody else is told",
    prepare: |ground, claims| prepare(ground, claims).boxed_local(),
    share: 10,
    what: "codes with users of their own",
    count: Count::Sql("select count(distinct user_id) from bench.codes where user_id is not null"),
};

async fn prepare(ground: &mut Ground, claims: u64) -> Result<Work, BenchError> {
    ground.connection.execute(SCHEMA).await?;
    let total = i64::try_from(claims).unwrap_or(i64::MAX);
    sqlx::query(FILL).bind(total).execute(&mut ground.connection).await?;
    let mut vacuum = ground.connect().await?;
    // Planned while every row is free, a scan of the table from its start looks like the quickest way to one, and
    // passes over everything taken: half as many claims.
    ground.connection.execute("alter role current_user set enable_seqscan = off").await?;
    let work = clients::of_postgres(ground, CONNECTIONS, claims, claim).await?;
    ground.connection.execute("alter role current_user reset enable_seqscan").await?;
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
        // None where all that it saw were just being taken by others; there is a code for everybody, so it asks again.
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
