//! The ledger's tables, as embedded migrations. Safe to run from any number of workers at once: whoever comes first
//! makes them, the others wait and find them made. Everything of ours, sqlx's own table too, is in schema `stampede`.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};

/// The schema is made, and sqlx's table named in full, because `search_path` points to a schema that does not exist
/// before the first migration: the table would end up in `public`, or nowhere.
static MIGRATOR: Migrator = Migrator {
    table_name: Cow::Borrowed("stampede._sqlx_migrations"),
    create_schemas: Cow::Borrowed(&[Cow::Borrowed("stampede")]),
    ..sqlx::migrate!("./migrations")
};

/// Runs what has not run yet, under a lock of the whole database.
///
/// # Errors
/// What Postgres reports, or a migration that was changed after it had run.
pub async fn run(pool: &PgPool) -> Result<(), MigrateError> {
    // A connection of its own: a migration sets its search_path, and waiting for the lock must not time out
    // because statements of the pool's connections do.
    let options = pool.connect_options().as_ref().clone();
    let options = options.options([("lock_timeout", "0"), ("statement_timeout", "0")]);
    let mut connection = options.application_name("stampede-migrate").connect().await?;
    let done = MIGRATOR.run_direct(None, &mut connection, false).await;
    let closed = connection.close().await;
    done.and(closed.map_err(MigrateError::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_programs_wait_for_is_the_newest() {
        assert_eq!(MIGRATOR.iter().map(|m| m.version).max(), Some(runtime::postgres::SCHEMA_VERSION));
    }
}
