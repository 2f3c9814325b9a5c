//! The transaction: read-only, with one snapshot for all queries.

use std::io::ErrorKind;
use std::time::Duration;

use runtime::postgres::SCHEMA_VERSION;
use sqlx::{Connection as _, PgConnection, Row as _};
use thiserror::Error;
use tokio::time::timeout;

use super::context::{self, fetch};
use super::ledger::Ledger;
use super::rows;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Postgres cannot be read.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The tables have another schema version than this checker reads.
    #[error(
        "Postgres has {}, but this checker reads version {SCHEMA_VERSION}: use the checker of the deployed release",
        .found.map_or("no tables of Stampede".to_owned(), |found| format!("tables of version {found}"))
    )]
    SchemaVersion {
        /// The newest applied migration.
        found: Option<i64>,
    },
}

/// A writer's schema. Without it, the records that it wrote cannot be decoded.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredSchema {
    pub(crate) id: i32,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) definition: String,
}

/// An open snapshot: it contains nothing that is committed after it was opened.
#[derive(Debug)]
pub(crate) struct Snapshot(PgConnection);

impl Snapshot {
    pub(crate) async fn open(postgres_url: &str) -> Result<Self, SnapshotError> {
        let connected = timeout(CONNECT_TIMEOUT, PgConnection::connect(postgres_url)).await;
        let mut connection =
            connected.map_err(|_| sqlx::Error::from(std::io::Error::from(ErrorKind::TimedOut)))??;
        sqlx::raw_sql("begin isolation level repeatable read read only").execute(&mut connection).await?;
        // The first query takes the snapshot.
        let has_migrations = "select to_regclass('stampede._sqlx_migrations') is not null";
        let newest = "select max(version) from stampede._sqlx_migrations where success";
        let found: Option<i64> = if sqlx::query_scalar(has_migrations).fetch_one(&mut connection).await? {
            sqlx::query_scalar(newest).fetch_one(&mut connection).await?
        } else {
            None
        };
        match found {
            Some(SCHEMA_VERSION) => Ok(Self(connection)),
            found => Err(SnapshotError::SchemaVersion { found }),
        }
    }

    /// The registered schemas.
    pub(crate) async fn schemas(&mut self) -> Result<Vec<RegisteredSchema>, sqlx::Error> {
        let sql = "select schema_id, fingerprint, definition from stampede.schemas";
        fetch(&mut self.0, sql, |row| {
            let (id, fingerprint, definition) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(RegisteredSchema { id, fingerprint, definition })
        })
        .await
    }

    /// Reads everything else, and ends the transaction.
    pub(crate) async fn read(mut self) -> Result<Ledger, sqlx::Error> {
        let connection = &mut self.0;
        let mut ledger = Ledger::default();
        context::read(connection, &mut ledger).await?;
        rows::read(connection, &mut ledger).await?;
        self.0.close().await?;
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_version_is_that_of_the_newest_migration() {
        let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workers/migrations");
        let names =
            std::fs::read_dir(migrations).expect("migrations").map(|entry| entry.expect("one").file_name());
        let version = |name: std::ffi::OsString| name.to_str()?.split('_').next()?.parse::<i64>().ok();
        let newest = names.filter_map(version).max();
        let advice = "adapt the checker to the newest migration, then raise SCHEMA_VERSION";
        assert_eq!(newest, Some(SCHEMA_VERSION), "{advice}");
    }
}
