//! Queries on behalf of requests, bounded in time and in number.
//!
//! Guarantees: whatever Postgres does (hangs, is full, is down), a request continues within its timeout; at most
//! [`MAX_WAITING`] requests wait for Postgres, so memory stays bounded; a missing response is never taken for an absent
//! row. The server cancels a statement after [`STATEMENT_TIMEOUT`], when no client waits for it any more.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool, Postgres};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Timeout of a query whose result is required: it is the response, or the partition of the request. On a busy machine a
/// query waits for a connection for a second or two; to reject the request earlier would only have it sent again.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a query that may make sending a request unnecessary. Without its result the request is sent.
pub(crate) const SHORT_TIMEOUT: Duration = Duration::from_millis(500);
/// How many requests may wait for Postgres at a time. One connection serves thousands of queries a second.
const MAX_WAITING: usize = 10_000;
/// When the server cancels a statement.
const STATEMENT_TIMEOUT: &str = "30s";

/// Why a query has no result.
#[derive(Debug, Error)]
pub(crate) enum QueryError {
    /// Postgres returned an error, or the connection broke.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
    /// No response in time. What the statement writes may be written or not.
    #[error("no response within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Too many requests wait already; the query was not sent.
    #[error("{MAX_WAITING} queries are waiting already")]
    Overloaded,
}

/// A pool of connections with bounded waiting.
#[derive(Debug)]
pub(crate) struct QueryPool {
    pool: PgPool,
    waiting: Semaphore,
    /// One permit for each connection that the pool may open.
    connections: Arc<Semaphore>,
}

/// A connection for one query.
#[derive(Debug)]
pub(crate) struct QueryConnection {
    connection: PoolConnection<Postgres>,
    _permit: OwnedSemaphorePermit,
}

impl Deref for QueryConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for QueryConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl QueryPool {
    /// Queries on the connections of this pool.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self::with_bound(pool, MAX_WAITING)
    }

    fn with_bound(pool: PgPool, bound: usize) -> Self {
        let connections = Arc::new(Semaphore::new(pool.options().get_max_connections() as usize));
        Self { pool, waiting: Semaphore::new(bound), connections }
    }

    /// A connection for one query, which is to be run by [`Self::run`].
    ///
    /// A new connection is opened by a task of its own. A request that times out would otherwise cancel the opening
    /// half-way, and the next request would start another: on a busy server, where opening takes longer than any
    /// timeout, no request would ever get a connection and the server would do nothing else.
    ///
    /// # Errors
    /// Those of the pool.
    pub(crate) async fn connection(&self) -> Result<QueryConnection, sqlx::Error> {
        let permit =
            Arc::clone(&self.connections).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let pool = self.pool.clone();
        let connected = tokio::spawn(async move {
            let connection = pool.acquire().await?;
            Ok(QueryConnection { connection, _permit: permit })
        });
        connected.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// The pool itself, for the process' own queries; see [`with_timeout`].
    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs a query of one statement, which may be cancelled half-way.
    ///
    /// # Errors
    /// [`QueryError`]: the result is unknown.
    pub(crate) async fn run<T>(
        &self,
        limit: Duration,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, QueryError> {
        let _permit = self.waiting.try_acquire().map_err(|_| QueryError::Overloaded)?;
        with_timeout(limit, query).await
    }
}

/// Runs a query of the process itself. Its queries run one after another, so their number needs no bound.
///
/// # Errors
/// [`QueryError`], but never [`QueryError::Overloaded`].
pub(crate) async fn with_timeout<T>(
    limit: Duration,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, QueryError> {
    match timeout(limit, query).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(QueryError::TimedOut(limit)),
    }
}

/// Connection options with the server-side statement timeout.
pub(crate) fn with_statement_timeout(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("statement_timeout", STATEMENT_TIMEOUT)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn query_pool(bound: usize) -> QueryPool {
        let pool = PgPool::connect_lazy("postgres://user@127.0.0.1:1/none").expect("an address");
        QueryPool::with_bound(pool, bound)
    }

    #[tokio::test]
    async fn a_query_ends_in_time_and_a_missing_response_is_an_error() {
        let silent = query_pool(1).run(Duration::from_millis(1), pending::<Result<(), _>>()).await;
        assert!(matches!(silent, Err(QueryError::TimedOut(_))), "{silent:?}");
        let failed = query_pool(1).run(READ_TIMEOUT, ready(Err::<(), _>(sqlx::Error::PoolClosed))).await;
        assert!(matches!(failed, Err(QueryError::Failed(_))), "{failed:?}");
        assert_eq!(query_pool(1).run(READ_TIMEOUT, ready(Ok(7))).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn a_query_that_times_out_does_not_cancel_the_opening_of_its_connection() {
        let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = slow.local_addr().expect("its number").port();
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username("user");
        let query_pool = QueryPool::new(runtime::postgres::pool(options, 1));
        for _ in 0..3 {
            let query = async { sqlx::query("select 1").execute(&mut *query_pool.connection().await?).await };
            let result = query_pool.run(Duration::from_millis(50), query).await;
            assert!(matches!(result, Err(QueryError::TimedOut(_))), "{result:?}");
        }
        let (_first, _) = slow.accept().await.expect("the one connection");
        let another = timeout(Duration::from_millis(50), slow.accept()).await;
        assert!(another.is_err(), "a second connection was opened: {another:?}");
    }

    #[tokio::test]
    async fn queries_over_the_bound_are_rejected_immediately_and_permits_are_returned() {
        let query_pool = query_pool(2);
        let waiting = || query_pool.run(Duration::from_millis(1), pending::<Result<(), _>>());
        let (first, second, third) = tokio::join!(waiting(), waiting(), waiting());
        assert!(matches!((&first, &second), (Err(QueryError::TimedOut(_)), Err(QueryError::TimedOut(_)))));
        assert!(matches!(third, Err(QueryError::Overloaded)), "{third:?}");
        assert_eq!(query_pool.run(READ_TIMEOUT, ready(Ok(7))).await.ok(), Some(7));
    }
}
