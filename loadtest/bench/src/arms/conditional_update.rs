//! `conditional-update`: the counter of the row is incremented if a code is left, and the same statement inserts the claim:
//! one round trip, and the row is locked no longer than the commit takes.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::BenchError;
use crate::arms::row_lock::{DIFFERENT, one_row};
use crate::frames::baseline::{BaselineArm, Count, Work};
use crate::host::environment::Environment;
use crate::load::backlog::{request_id, user_name};
use crate::load::closed_loop;

const CONNECTIONS: usize = 4;
const CLAIM: &str = "
    with counted as (
        update bench.coupon set claimed = claimed + 1 where coupon_no = 1 and claimed < total returning claimed)
    insert into bench.claims (request_id, coupon_no, user_id, code)
    select $1, 1, $2, code from counted join bench.codes on coupon_no = 1 and number = claimed";

/// The arm.
pub const CONDITIONAL_UPDATE: BaselineArm = BaselineArm {
    name: "conditional-update",
    about: "Postgres: UPDATE … WHERE claimed < total and the insert in one prepared statement; 4 connections; durable, one a user, no response event",
    prepare: |env, claims| prepare(env, claims).boxed_local(),
    share: 50,
    what: "claims of different users with different codes",
    count: Count::Sql(DIFFERENT),
};

async fn prepare(env: &mut Environment, claims: u64) -> Result<Work, BenchError> {
    one_row(env, claims).await?;
    closed_loop::postgres_clients(env, CONNECTIONS, claims, claim).await
}

fn claim(connection: &mut PgConnection, n: u64) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    let claim = sqlx::query(CLAIM).bind(Uuid::from_u128(request_id(0, n).identity)).bind(user_name(n));
    async move { claim.execute(connection).await.map(drop) }.boxed()
}
