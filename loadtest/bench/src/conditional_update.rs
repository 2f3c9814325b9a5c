//! `conditional-update`: the row counts itself up if something is left, and the claim is inserted by the same statement:
//! one round trip, and the row is locked no longer than its commit takes.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::PgConnection;
use uuid::Uuid;

use super::BenchError;
use super::backlog::{request_id, user_name};
use super::clients;
use super::direct::{Count, Direct, Work};
use super::ground::Ground;
use super::row_lock::{DIFFERENT, one_row};

const CONNECTIONS: usize = 4;
const CLAIM: &str = "
    with counted as (
        update bench.coupon set claimed = claimed + 1 where coupon_no = 1 and claimed < total returning claimed)
    insert into bench.claims (request_id, coupon_no, user_id, code)
    select $1, 1, $2, code from counted join bench.codes on coupon_no = 1 and number = claimed";

/// The arm.
pub const CONDITIONAL_UPDATE: Direct = Direct {
    name: "conditional-update",
    about: "Postgres: UPDATE … WHERE claimed < total and the insert in one prepared statement; 4 connections; durable, one a user, nobody else is told",
    prepare: |ground, claims| prepare(ground, claims).boxed_local(),
    share: 50,
    what: "claims of different users with different codes",
    count: Count::Sql(DIFFERENT),
};

async fn prepare(ground: &mut Ground, claims: u64) -> Result<Work, BenchError> {
    one_row(ground, claims).await?;
    clients::of_postgres(ground, CONNECTIONS, claims, claim).await
}

fn claim(connection: &mut PgConnection, n: u64) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    let claim = sqlx::query(CLAIM).bind(Uuid::from_u128(request_id(0, n).identity)).bind(user_name(n));
    async move { claim.execute(connection).await.map(drop) }.boxed()
}
