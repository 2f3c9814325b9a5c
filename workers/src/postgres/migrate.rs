//! The ledger's tables, as embedded migrations. Any number of workers may run them at the same time: the first one
//! applies them, the others wait for its lock. All tables, including sqlx's own, are in schema `stampede`.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, PgPool};

/// The schema is created first and sqlx's table is qualified, because `search_path` names a schema that does not exist
/// before the first migration: the table would be created in `public`, or not at all.
static MIGRATOR: Migrator = Migrator {
    table_name: Cow::Borrowed("stampede._sqlx_migrations"),
    create_schemas: Cow::Borrowed(&[Cow::Borrowed("stampede")]),
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
    let result = MIGRATOR.run_direct(None, &mut connection, false).await;
    let closed = connection.close().await;
    result.and(closed.map_err(MigrateError::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_version_that_programs_wait_for_is_the_newest() {
        assert_eq!(MIGRATOR.iter().map(|m| m.version).max(), Some(runtime::postgres::SCHEMA_VERSION));
    }
}
