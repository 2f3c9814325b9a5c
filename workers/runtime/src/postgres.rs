//! The client of Postgres: settings that every connection has, pools, and waiting for the schema.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool};
use thiserror::Error;

use crate::config::PostgresArgs;
use crate::nodelay;
use crate::patience::{Failure, GaveUp, PATIENCE, wait_for};

/// The newest migration that this version of the programs relies on; `workers` has a test that they agree.
pub const SCHEMA_VERSION: i64 = 4;

/// Opening a connection included. Not much less: on a server that is busy with everybody who comes back, opening one may
/// take seconds, and whoever gives up and begins anew makes it busier.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

/// The address is none.
#[derive(Debug, Error)]
#[error(
    "STAMPEDE_POSTGRES_URL cannot be used: {0}; it looks like postgres://user:password@host:5432/database"
)]
pub struct PostgresUrlError(#[source] sqlx::Error);

/// What every connection of a program has: its name, the schema `stampede` first, and no JIT (it costs more than
/// any statement here).
///
/// # Errors
/// [`PostgresUrlError`] for an address that is none.
pub fn options(args: &PostgresArgs, application_name: &str) -> Result<PgConnectOptions, PostgresUrlError> {
    let options: PgConnectOptions = args.postgres_url.expose_secret().parse().map_err(PostgresUrlError)?;
    Ok(options
        .application_name(application_name)
        .options([("search_path", "stampede"), ("jit", "off")])
        // Lines about slow statements would carry users' ids; Postgres' own log is the place for them.
        .disable_statement_logging())
}

/// Pins the plans of a connection to indexes. A plan made while a table is young is a sequential scan, a prepared
/// statement keeps it, and a flash sale then slows down fourfold within a second.
#[must_use]
pub fn pinned(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("enable_seqscan", "off"), ("plan_cache_mode", "force_generic_plan")])
}

/// A connection of its own, outside of any pool.
///
/// # Errors
/// What Postgres, or the way to it, reports.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let connection = options.connect().await?;
    nodelay::set(options.get_port()).await;
    Ok(connection)
}

/// A pool that connects when first used.
#[must_use]
pub fn pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    pool_with(PgPoolOptions::new(), options, max_connections)
}

/// A pool that opens all its connections at once, beside whatever else is done, and keeps them: nobody who is in a
/// hurry waits for one.
#[must_use]
pub fn open_pool(options: PgConnectOptions, connections: u32) -> PgPool {
    let kept = PgPoolOptions::new().min_connections(connections).idle_timeout(None);
    pool_with(kept, options, connections)
}

fn pool_with(pool: PgPoolOptions, options: PgConnectOptions, max_connections: u32) -> PgPool {
    let port = options.get_port();
    pool.max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(None)
        .after_connect(move |_, _| {
            Box::pin(async move {
                nodelay::set(port).await;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}

/// Waits until Postgres answers at all.
///
/// # Errors
/// When it does not, for as long as a start waits.
pub async fn wait_for_server(pool: &PgPool) -> Result<(), GaveUp<sqlx::Error>> {
    wait_for("Postgres", PATIENCE, async || {
        sqlx::query("select 1").execute(pool).await.map(drop).map_err(lasting_or_not)
    })
    .await
}

/// Waits until the migrations that this program relies on are there; `workers` makes them.
///
/// # Errors
/// When they do not come, for as long as a start waits.
pub async fn wait_for_schema(pool: &PgPool) -> Result<(), GaveUp<sqlx::Error>> {
    wait_for(
        "the tables in Postgres (any worker makes them at its start, or `workers migrate`)",
        PATIENCE,
        async || match schema_version(pool).await {
            Ok(Some(version)) if version >= SCHEMA_VERSION => Ok(()),
            Ok(_) => Err(Failure::Transient(sqlx::Error::RowNotFound)),
            Err(error) => Err(lasting_or_not(error)),
        },
    )
    .await
}

async fn schema_version(pool: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    let there: bool = sqlx::query_scalar("select to_regclass('stampede._sqlx_migrations') is not null")
        .fetch_one(pool)
        .await?;
    if !there {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from stampede._sqlx_migrations where success")
        .fetch_one(pool)
        .await
}

/// Wrong credentials and a database that does not exist will not mend while somebody waits.
fn lasting_or_not(error: sqlx::Error) -> Failure<sqlx::Error> {
    let code = error.as_database_error().and_then(|error| error.code());
    if code.is_some_and(|code| code.starts_with("28") || code == "3D000") {
        Failure::Lasting(error)
    } else {
        Failure::Transient(error)
    }
}
