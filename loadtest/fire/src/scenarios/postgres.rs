//! Postgres dies, sleeps, cuts its connections, has none left, or waits for somebody else.

use std::time::Duration;

use local_stack::Child;
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::field::{Field, Trouble};

const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Connections are cut, nothing is flushed.
pub(super) async fn immediate(field: &Field, _: &mut Dice) -> Result<(), Trouble> {
    field.stack.stop_postgres_immediately()?;
    field.stack.wait_exit(Child::Postgres, ENDS_WITHIN).await?;
    field.revive(&[Child::Postgres]).await?;
    Ok(())
}

pub(super) async fn kill(field: &Field, _: &mut Dice) -> Result<(), Trouble> {
    field.stack.kill(Child::Postgres)?;
    field.stack.wait_exit(Child::Postgres, ENDS_WITHIN).await?;
    field.revive(&[Child::Postgres]).await?;
    Ok(())
}

/// It hears everything and answers nothing for a while; whoever waited may have gone.
pub(super) async fn freeze(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    field.stack.freeze(Child::Postgres)?;
    sleep(Duration::from_millis(dice.between(1_000, 4_000))).await;
    field.stack.resume(Child::Postgres)?;
    Ok(())
}

/// Cuts connections that are at work, writes among them, again and again: some before the commit, some after it.
pub(super) async fn cut_connections(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut postgres = field.postgres().await?;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
                where pid <> pg_backend_pid() and backend_type = 'client backend'
                  and (state = 'active' or application_name like 'stampede-partition-%')";
    for _ in 0..12 {
        sqlx::raw_sql(cut).execute(&mut postgres).await?;
        sleep(Duration::from_millis(dice.between(20, 250))).await;
    }
    Ok(())
}

/// Somebody holds the rows of all partitions, for longer than a takeover waits.
pub(super) async fn lock_rows(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut holder = field.postgres().await?;
    sqlx::raw_sql("begin; select 1 from stampede.partitions order by partition for update")
        .execute(&mut holder)
        .await?;
    sleep(Duration::from_millis(dice.between(1_000, 4_000))).await;
    sqlx::raw_sql("rollback").execute(&mut holder).await?;
    Ok(())
}

/// Somebody takes every connection that there is; then ours are cut, and have to find new ones.
pub(super) async fn exhaust_connections(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut cutter = field.postgres().await?;
    let mut taken: Vec<PgConnection> = Vec::new();
    take_all(field, &mut taken).await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
                where application_name like 'stampede-partition-%'";
    sqlx::raw_sql(cut).execute(&mut cutter).await?;
    take_all(field, &mut taken).await;
    sleep(Duration::from_millis(dice.between(500, 2_500))).await;
    for connection in taken {
        connection.close().await.ok();
    }
    Ok(())
}

async fn take_all(field: &Field, taken: &mut Vec<PgConnection>) {
    while taken.len() < 1_000
        && let Ok(connection) = field.postgres().await
    {
        taken.push(connection);
    }
}

/// Some writes fail in their middle, late enough for the next batch to be decided meanwhile: a count that does not
/// match, and a deadlock.
pub(super) async fn fail_batches(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut postgres = field.postgres().await?;
    let [first, second, third] = [3, 20, 40].map(|from| from + dice.below(15));
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
    sleep(Duration::from_millis(dice.between(1_500, 3_000))).await;
    let remove =
        "drop trigger if exists planted on stampede.claims; drop function if exists stampede.planted;
                  drop sequence if exists stampede.planted_calls";
    sqlx::raw_sql(remove).execute(&mut postgres).await?;
    Ok(())
}
