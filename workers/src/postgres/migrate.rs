//! The ledger's tables, as embedded migrations. Any number of programs may run them at the same time: the first one
//! applies them, the others wait for its lock. All tables, including sqlx's own, are in schema `stampede`.
//!
//! Migrations run while workers of the previous release write. So they only add: new columns are nullable or have a
//! default, the functions that workers call keep signature and meaning (a new meaning gets a new function, as
//! `take_over_2`), and what is no longer used is dropped a release later. An index of a filled table is built
//! `concurrently if not exists`, alone in a file that begins with `-- no-transaction`. `tests/ledger/upgrades.rs` holds
//! the calls of release 0.1.0 against every later schema.

use std::borrow::Cow;
use std::time::Duration;

use runtime::postgres::LEVEL;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};

const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The schema is created first and sqlx's table is qualified, because `search_path` names a schema that does not exist
/// before the first migration: the table would be created in `public`, or not at all.
static MIGRATOR: Migrator = Migrator {
    table_name: Cow::Borrowed("stampede._sqlx_migrations"),
    create_schemas: Cow::Borrowed(&[Cow::Borrowed("stampede")]),
    // A program of an older release starts on a newer schema.
    ignore_missing: true,
    // sqlx waits for its lock in a statement, and building an index concurrently waits for the end of every statement.
    locking: false,
    ..sqlx::migrate!("./migrations")
};

/// Applies pending migrations, under a lock of the whole database.
///
/// # Errors
/// What Postgres reports, or a migration that was changed after it was applied.
pub async fn run(pool: &PgPool) -> Result<(), MigrateError> {
    // A connection outside the pool: a migration sets its search_path, and the wait for the lock must not be cut
    // short by the pool's statement timeout.
    let options = pool.connect_options().as_ref().clone();
    let options = options.options([("lock_timeout", "0"), ("statement_timeout", "0")]);
    let mut connection = options.application_name("stampede-migrate").connect().await?;
    let result = migrate(&mut connection).await;
    // Releases the lock, too.
    let closed = connection.close().await;
    result.and(closed.map_err(MigrateError::from))
}

async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    while !sqlx::query_scalar::<_, bool>(
        "select pg_try_advisory_lock(hashtextextended('stampede.migrate', 0))",
    )
    .fetch_one(&mut *connection)
    .await?
    {
        tokio::time::sleep(LOCK_POLL_INTERVAL).await;
    }
    drop_invalid_indexes(connection).await?;
    MIGRATOR.run_direct(None, connection, false).await
}

/// A concurrent build that was interrupted leaves an invalid index, which `if not exists` would keep.
async fn drop_invalid_indexes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let invalid: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', c.relnamespace::regnamespace, c.relname)
           from pg_index i join pg_class c on c.oid = i.indexrelid
          where not i.indisvalid and c.relkind = 'i' and c.relnamespace = to_regnamespace('stampede')",
    )
    .fetch_all(&mut *connection)
    .await?;
    for index in invalid {
        tracing::warn!(index, "dropping an index whose build was interrupted; it is built again");
        let drop = AssertSqlSafe(format!("drop index concurrently if exists {index}"));
        sqlx::raw_sql(drop).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Finishes an upgrade: owners of older releases are fenced and cannot take over again. Returns the partitions whose
/// owners were fenced; workers of this release take them over within seconds.
///
/// # Errors
/// What Postgres reports.
pub async fn finish(pool: &PgPool) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar("select * from stampede.finish_upgrade($1) p order by p")
        .bind(LEVEL)
        .fetch_all(pool)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_version_that_programs_wait_for_is_the_newest() {
        assert_eq!(MIGRATOR.iter().map(|m| m.version).max(), Some(runtime::postgres::SCHEMA_VERSION));
    }
}
