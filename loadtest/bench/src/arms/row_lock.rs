//! `row-lock`: the textbook design. A transaction locks the coupon's row, checks that a code is left, inserts the claim with
//! the next code, increments the counter, and commits.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::{Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::BenchError;
use crate::frames::baseline::{BaselineArm, Count, Work};
use crate::host::environment::Environment;
use crate::load::backlog::{request_id, user_name};
use crate::load::closed_loop;

/// A pool of this size is the fastest: with more, they wait for the one row, and for each other's turn at it.
const CONNECTIONS: usize = 4;
const SCHEMA: &str = include_str!("one_row.sql");
const LOCK: &str = "begin; select total - claimed, claimed from bench.coupon where coupon_no = 1 for update";
const CLAIM: &str = "
    with counted as (update bench.coupon set claimed = claimed + 1 where coupon_no = 1)
    insert into bench.claims (request_id, coupon_no, user_id, code)
    select $1, 1, $2, code from bench.codes where coupon_no = 1 and number = $3";

/// The arm.
pub const ROW_LOCK: BaselineArm = BaselineArm {
    name: "row-lock",
    about: "Postgres, the textbook: a transaction locks the coupon's row, inserts the user's code, counts up, commits, in three round trips; 4 connections, prepared statements; durable, one a user, no response event",
    prepare: |env, claims| prepare(env, claims).boxed_local(),
    share: 50,
    what: "claims of different users with different codes",
    count: Count::Sql(DIFFERENT),
};
/// Every claim has a user and a code of its own, and the counter is equal.
pub const DIFFERENT: &str = "
    select least(count(distinct user_id), count(distinct code), (select claimed from bench.coupon))
      from bench.claims";

async fn prepare(env: &mut Environment, claims: u64) -> Result<Work, BenchError> {
    one_row(env, claims).await?;
    closed_loop::postgres_clients(env, CONNECTIONS, claims, claim).await
}

/// A coupon with a row that counts, and numbered codes.
///
/// # Errors
/// When Postgres refuses.
pub(super) async fn one_row(env: &mut Environment, claims: u64) -> Result<(), BenchError> {
    env.connection.execute(SCHEMA).await?;
    let total = i64::try_from(claims).unwrap_or(i64::MAX);
    sqlx::query("insert into bench.coupon values (1, $1, 0)")
        .bind(total)
        .execute(&mut env.connection)
        .await?;
    sqlx::query(
        "insert into bench.codes select 1, n, upper(substr(md5(n::text), 1, 12)) || n from generate_series(1, $1) n",
    )
    .bind(total)
    .execute(&mut env.connection)
    .await?;
    Ok(())
}

/// Three round trips: the row is locked for two of them and for the commit.
fn claim(connection: &mut PgConnection, n: u64) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    async move {
        let row = connection.fetch_one(sqlx::raw_sql(LOCK)).await?;
        let (left, claimed): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if left > 0 {
            sqlx::query(CLAIM)
                .bind(Uuid::from_u128(request_id(0, n).identity))
                .bind(user_name(n))
                .bind(claimed + 1)
                .execute(&mut *connection)
                .await?;
        }
        connection.execute("commit").await?;
        Ok(())
    }
    .boxed()
}
