//! What is asked of Postgres while somebody waits for the answer: every question has a limit, in time and in number.
//!
//! Guarantees: whatever Postgres does (is frozen, is full, is gone), whoever asks here goes on within the time that
//! was named, and no more than [`ROOM`] ask at the same time, so that memory stays bounded; that there is no answer
//! is never taken for an answer. The server, too, gives a statement up ([`STATEMENT_TIMEOUT`]): nobody waits for it
//! any more.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool, Postgres};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long an answer is waited for that the client's own answer consists of.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer is waited for that spares a request its way to its owner, or finds that way.
pub(crate) const BRIEF_PATIENCE: Duration = Duration::from_millis(500);
/// How many wait for an answer at the same time. A connection answers thousands a second.
const ROOM: usize = 10_000;
/// When the server gives a statement up.
const STATEMENT_TIMEOUT: &str = "30s";

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum Unanswered {
    /// Postgres refused, or the way to it broke.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
    /// It did not answer in time. Whatever was to be written may be written or not.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// Too many are waiting already: it was not asked.
    #[error("{ROOM} questions are waiting for an answer already")]
    Crowded,
}

/// Where questions are asked.
#[derive(Debug)]
pub(crate) struct Questions {
    pool: PgPool,
    room: Semaphore,
    /// One for each connection that there may be.
    places: Arc<Semaphore>,
}

/// A connection that somebody asks on.
#[derive(Debug)]
pub(crate) struct Asking {
    connection: PoolConnection<Postgres>,
    _place: OwnedSemaphorePermit,
}

impl Asking {
    /// What a question is put to.
    pub(crate) fn server(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Questions {
    /// Questions on the connections of this pool.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self::with_room(pool, ROOM)
    }

    fn with_room(pool: PgPool, room: usize) -> Self {
        let places = Arc::new(Semaphore::new(pool.options().get_max_connections() as usize));
        Self { pool, room: Semaphore::new(room), places }
    }

    /// A connection for one question, which is to be asked by [`Self::ask`].
    ///
    /// Opened, where it has to be, by a task of its own: whoever asks gives up soon, and a connection that is given up
    /// half-way is begun anew by the next one. On a busy server, where opening one takes longer than anybody waits,
    /// nobody would ever get one, and the server would do nothing else.
    ///
    /// # Errors
    /// As of the pool.
    pub(crate) async fn connection(&self) -> Result<Asking, sqlx::Error> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let pool = self.pool.clone();
        let connected = tokio::spawn(async move {
            let connection = pool.acquire().await?;
            Ok(Asking { connection, _place: place })
        });
        connected.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// For what this process asks on its own behalf, see [`within`].
    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The answer to a question of one statement, which may be given up half-way.
    ///
    /// # Errors
    /// [`Unanswered`]: nothing is known.
    pub(crate) async fn ask<T>(
        &self,
        patience: Duration,
        question: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Unanswered> {
        let _place = self.room.try_acquire().map_err(|_| Unanswered::Crowded)?;
        within(patience, question).await
    }
}

/// The same for what this process asks on its own behalf, one question after another.
///
/// # Errors
/// [`Unanswered`], but never that it is crowded.
pub(crate) async fn within<T>(
    patience: Duration,
    question: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Unanswered> {
    match timeout(patience, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Unanswered::Late(patience)),
    }
}

/// Has the server give up what takes too long.
pub(crate) fn limited(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("statement_timeout", STATEMENT_TIMEOUT)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn questions(room: usize) -> Questions {
        let pool = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").expect("an address");
        Questions::with_room(pool, room)
    }

    #[tokio::test]
    async fn who_asks_goes_on_in_time_and_silence_is_no_answer() {
        let asked = questions(1).ask(Duration::from_millis(1), pending::<Result<(), _>>()).await;
        assert!(matches!(asked, Err(Unanswered::Late(_))), "{asked:?}");
        let failed = questions(1).ask(PATIENCE, ready(Err::<(), _>(sqlx::Error::PoolClosed))).await;
        assert!(matches!(failed, Err(Unanswered::Failed(_))), "{failed:?}");
        assert_eq!(questions(1).ask(PATIENCE, ready(Ok(7))).await.ok(), Some(7));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_does_not_give_up_the_connection_that_is_being_opened() {
        let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = slow.local_addr().expect("its number").port();
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username("nobody");
        let questions = Questions::new(runtime::postgres::pool(options, 1));
        for _ in 0..3 {
            let query =
                async { sqlx::query("select 1").execute(questions.connection().await?.server()).await };
            let asked = questions.ask(Duration::from_millis(50), query).await;
            assert!(matches!(asked, Err(Unanswered::Late(_))), "{asked:?}");
        }
        let (_first, _) = slow.accept().await.expect("the one");
        let another = timeout(Duration::from_millis(50), slow.accept()).await;
        assert!(another.is_err(), "begun anew: {another:?}");
    }

    #[tokio::test]
    async fn a_crowd_is_turned_away_at_once_and_places_are_given_back() {
        let questions = questions(2);
        let waiting = || questions.ask(Duration::from_millis(1), pending::<Result<(), _>>());
        let (first, second, third) = tokio::join!(waiting(), waiting(), waiting());
        assert!(matches!((&first, &second), (Err(Unanswered::Late(_)), Err(Unanswered::Late(_)))));
        assert!(matches!(third, Err(Unanswered::Crowded)), "{third:?}");
        assert_eq!(questions.ask(PATIENCE, ready(Ok(7))).await.ok(), Some(7));
    }
}
