//! Faults of Postgres: shutdown, kill, freeze, cut or exhausted connections, foreign row locks, failing batches.

use std::time::Duration;

use local_stack::Child;
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

use crate::environment::{Environment, FaultError};
use crate::rng::Rng;

const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// An immediate shutdown: connections are cut, nothing is flushed.
pub(super) async fn immediate(env: &Environment, _: &mut Rng) -> Result<(), FaultError> {
    env.stack.stop_postgres_immediately()?;
    env.stack.wait_exit(Child::Postgres, ENDS_WITHIN).await?;
    env.restart_children(&[Child::Postgres]).await?;
    Ok(())
}

pub(super) async fn kill(env: &Environment, _: &mut Rng) -> Result<(), FaultError> {
    env.stack.kill(Child::Postgres)?;
    env.stack.wait_exit(Child::Postgres, ENDS_WITHIN).await?;
    env.restart_children(&[Child::Postgres]).await?;
    Ok(())
}

/// Requests arrive and get no response for a while; callers may have timed out when they are executed.
pub(super) async fn freeze(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    env.stack.freeze(Child::Postgres)?;
    sleep(Duration::from_millis(rng.between(1_000, 4_000))).await;
    env.stack.resume(Child::Postgres)?;
    Ok(())
}

/// Cuts active connections repeatedly, some of them before and some after a commit.
pub(super) async fn cut_connections(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut postgres = env.postgres().await?;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
                where pid <> pg_backend_pid() and backend_type = 'client backend'
                  and (state = 'active' or application_name like 'stampede-partition-%')";
    for _ in 0..12 {
        sqlx::raw_sql(cut).execute(&mut postgres).await?;
        sleep(Duration::from_millis(rng.between(20, 250))).await;
    }
    Ok(())
}

/// Locks the rows of all partitions for longer than the lock timeout of a takeover.
pub(super) async fn lock_rows(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut holder = env.postgres().await?;
    sqlx::raw_sql("begin; select 1 from stampede.partitions order by partition for update")
        .execute(&mut holder)
        .await?;
    sleep(Duration::from_millis(rng.between(1_000, 4_000))).await;
    sqlx::raw_sql("rollback").execute(&mut holder).await?;
    Ok(())
}

/// Takes every free connection, then cuts those of the owners, which have to reconnect.
pub(super) async fn exhaust_connections(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut cutter = env.postgres().await?;
    let mut taken: Vec<PgConnection> = Vec::new();
    take_all(env, &mut taken).await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
                where application_name like 'stampede-partition-%'";
    sqlx::raw_sql(cut).execute(&mut cutter).await?;
    take_all(env, &mut taken).await;
    sleep(Duration::from_millis(rng.between(500, 2_500))).await;
    for connection in taken {
        connection.close().await.ok();
    }
    Ok(())
}

async fn take_all(env: &Environment, taken: &mut Vec<PgConnection>) {
    while taken.len() < 1_000
        && let Ok(connection) = env.postgres().await
    {
        taken.push(connection);
    }
}

/// Makes some writes fail late, after the next batch was executed: a count that does not match, and a deadlock.
pub(super) async fn fail_batches(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut postgres = env.postgres().await?;
    let [first, second, third] = [3, 20, 40].map(|from| from + rng.below(15));
    let plant = format!(
        "set lock_timeout = '5s';
         create sequence if not exists stampede.planted_calls;
         alter sequence stampede.planted_calls restart;
         create or replace function stampede.planted() returns trigger language plpgsql as $$ begin
             case nextval('stampede.planted_calls')
                 when {first} then perform pg_sleep(0.2); raise exception 'planted' using errcode = 'SP002';
                 when {second} then perform pg_sleep(0.2); raise exception 'planted' using errcode = '40P01';
                 when {third} then perform pg_sleep(0.2); raise exception 'planted' using errcode = 'SP002';
                 else null; end case;
             return new; end $$;
         create trigger planted before insert on stampede.claims
             for each row execute function stampede.planted()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(plant)).execute(&mut postgres).await?;
    sleep(Duration::from_millis(rng.between(1_500, 3_000))).await;
    let remove =
        "drop trigger if exists planted on stampede.claims; drop function if exists stampede.planted;
                  drop sequence if exists stampede.planted_calls";
    sqlx::raw_sql(remove).execute(&mut postgres).await?;
    Ok(())
}
