//! The Postgres client: settings of every connection, pools, and waiting for the server and its schema.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool};
use thiserror::Error;

use crate::config::PostgresArgs;
use crate::lifecycle::Readiness;
use crate::nodelay;
use crate::retry::{Failure, STARTUP_TIMEOUT, TimedOut, wait_for};

/// The newest migration that this version of the programs requires; a test in `workers` compares it with the files.
pub const SCHEMA_VERSION: i64 = 11;

/// The level of this version's owners; see `workers/migrations/0005_upgrades.sql`. Raised with every record kind, rule
/// or state that an older owner would read or decide wrongly.
pub const LEVEL: i32 = 1;

/// The readiness component of the schema: not ready while a program waits for migrations.
pub const SCHEMA: &str = "schema";

/// Includes opening a connection. On a server that all clients reconnect to, opening one may take seconds; a shorter
/// timeout would add retries to that load.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection counts as tested after its last use: a busy one is not tested for every call.
const TESTED_FOR: Duration = Duration::from_millis(100);
/// An idle connection that does not respond within this time is replaced. A response takes less than a millisecond; on a
/// busy machine, some hundred.
const TEST_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection whose caller has stopped waiting is replaced if the response does not come within this time.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The URL is invalid.
#[derive(Debug, Error)]
#[error("STAMPEDE_POSTGRES_URL is invalid: {0}; expected postgres://user:password@host:5432/database")]
pub struct PostgresUrlError(#[source] sqlx::Error);

/// Settings of every connection of a program: its application name, the schema `stampede` first in the search path, and
/// no JIT (compiling takes longer than any statement here).
///
/// # Errors
/// [`PostgresUrlError`] when the URL is invalid.
pub fn options(args: &PostgresArgs, application_name: &str) -> Result<PgConnectOptions, PostgresUrlError> {
    let options: PgConnectOptions = args.postgres_url.expose_secret().parse().map_err(PostgresUrlError)?;
    Ok(options
        .application_name(application_name)
        .options([("search_path", "stampede"), ("jit", "off")])
        // Log lines about slow statements would contain user ids; Postgres' own log reports them.
        .disable_statement_logging())
}

/// Restricts the plans of a connection to index scans. A plan made while a table is nearly empty is a sequential scan, a
/// prepared statement keeps it, and a flash sale then becomes four times slower within a second.
#[must_use]
pub fn force_index_plans(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("enable_seqscan", "off"), ("plan_cache_mode", "force_generic_plan")])
}

/// A single connection, outside of any pool.
///
/// # Errors
/// When the connection cannot be opened.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let connection = options.connect().await?;
    nodelay::set(options.get_port()).await;
    Ok(connection)
}

/// A pool that opens connections when they are first used.
#[must_use]
pub fn pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    pool_with(PgPoolOptions::new(), options, max_connections)
}

/// A pool that opens all its connections in the background at start and keeps them, so that no request waits for a
/// connection to be opened.
#[must_use]
pub fn eager_pool(options: PgConnectOptions, connections: u32) -> PgPool {
    let eager = PgPoolOptions::new().min_connections(connections).idle_timeout(None);
    pool_with(eager, options, connections)
}

fn pool_with(pool: PgPoolOptions, options: PgConnectOptions, max_connections: u32) -> PgPool {
    let port = options.get_port();
    pool.max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(None)
        // sqlx's own test of an idle connection has no time limit.
        .test_before_acquire(false)
        .before_acquire(|connection, used| Box::pin(test_before_use(connection, used.idle_for)))
        .after_release(|connection, _| Box::pin(test_after_use(connection)))
        .after_connect(move |_, _| {
            Box::pin(async move {
                nodelay::set(port).await;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}

/// Tests a connection that was idle. One that does not respond is dropped, and the caller gets a new one.
async fn test_before_use(connection: &mut PgConnection, idle_for: Duration) -> Result<bool, sqlx::Error> {
    if idle_for < TESTED_FOR {
        return Ok(true);
    }
    respond_within(TEST_TIMEOUT, connection).await
}

/// Waits for the response to a call that its caller no longer waits for. A connection without one is dropped: it would
/// occupy its place in the pool until the server's host responds again.
async fn test_after_use(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    respond_within(RELEASE_TIMEOUT, connection).await
}

async fn respond_within(limit: Duration, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let silent = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    tokio::time::timeout(limit, connection.ping()).await.map_err(silent)?.map(|()| true)
}

/// Waits until Postgres accepts a query.
///
/// # Errors
/// [`TimedOut`] after [`STARTUP_TIMEOUT`], or at once when the credentials or the database are wrong.
pub async fn wait_for_server(pool: &PgPool) -> Result<(), TimedOut<sqlx::Error>> {
    wait_for("Postgres", STARTUP_TIMEOUT, async || {
        sqlx::query("select 1").execute(pool).await.map(drop).map_err(classify)
    })
    .await
}

/// Why a program cannot use the schema yet.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// Postgres cannot be read.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// Migrations are pending.
    #[error(
        "the schema in Postgres has {}, this program needs version {SCHEMA_VERSION}: run `workers migrate` of this release",
        .found.map_or("no tables".to_owned(), |found| format!("version {found}"))
    )]
    Older {
        /// The newest applied migration.
        found: Option<i64>,
    },
}

/// Waits until the migrations that this program requires have run, and reports the wait as [`SCHEMA`]. There is no time
/// limit: in a rolling upgrade an operator runs `workers migrate`.
///
/// # Errors
/// [`TimedOut`] at once when the credentials or the database are wrong.
pub async fn wait_for_schema(pool: &PgPool, readiness: &Readiness) -> Result<(), TimedOut<SchemaError>> {
    wait_for("the schema in Postgres", Duration::MAX, async || {
        let checked = check_schema(pool).await;
        let state = checked.as_ref().map(|&()| ()).map_err(|failure| failure.error().to_string());
        readiness.set(SCHEMA, state);
        checked
    })
    .await
}

async fn check_schema(pool: &PgPool) -> Result<(), Failure<SchemaError>> {
    match schema_version(pool).await {
        Ok(Some(version)) if version >= SCHEMA_VERSION => Ok(()),
        Ok(found) => Err(Failure::Transient(SchemaError::Older { found })),
        Err(error) => Err(classify(error).map(SchemaError::Postgres)),
    }
}

async fn schema_version(pool: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass('stampede._sqlx_migrations') is not null")
        .fetch_one(pool)
        .await?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from stampede._sqlx_migrations where success")
        .fetch_one(pool)
        .await
}

/// Wrong credentials and a missing database are permanent; every other error may be transient.
fn classify(error: sqlx::Error) -> Failure<sqlx::Error> {
    let code = error.as_database_error().and_then(|error| error.code());
    if code.is_some_and(|code| code.starts_with("28") || code == "3D000") {
        Failure::Permanent(error)
    } else {
        Failure::Transient(error)
    }
}
