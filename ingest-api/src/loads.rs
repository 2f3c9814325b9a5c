//! Codes in bulk, beside the owner of the coupon: made here, stored in chunks, and handed over by one record.
//!
//! Guarantees: a chunk is in a load only if its maker still holds the load when the chunk is committed; numbers
//! within a load have no gaps; a load that is sealed is announced until its owner has applied it; one whose maker
//! died is sealed as it stands once its lease is over. Memory is that of two chunks, however many codes are asked for.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use coupon_core::codes::{Code, Pattern};
use metrics::counter;
use schemas::{CouponRequest, kinds, partition_for};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::unix_ms;
use crate::crash_points;
use crate::metrics as names;
use crate::request_sink::RequestSink;

/// Codes in one transaction.
const CHUNK: i64 = 10_000;
/// Loads that are filled at the same time by one instance; more wait for their turn.
const AT_ONCE: usize = 2;
/// After this without a chunk, a maker counts as dead.
const LEASE: &str = "interval '30 seconds'";
/// A load that waits for its turn renews its lease this often.
const RENEWAL: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(250);
/// Failures in a row after which the lease is left to run out.
const ATTEMPTS: u32 = 100;

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Job {
    /// What clients know it by.
    pub(crate) job_id: Uuid,
    /// open, sealed or applied.
    pub(crate) state: String,
    /// Codes stored.
    pub(crate) count: i64,
    /// Codes asked for.
    pub(crate) wanted: i64,
}

/// Makes loads, and announces them.
pub(crate) struct Loads {
    pool: PgPool,
    sink: Arc<RequestSink>,
    partitions: i32,
    /// This run of this process.
    maker: Uuid,
    turns: Semaphore,
    stop: CancellationToken,
}

/// A load that this process fills.
struct Load {
    id: i64,
    coupon_id: String,
    wanted: i64,
    pattern: Arc<Pattern>,
}

/// What became of a chunk.
enum Stored {
    Yes,
    /// One of the codes exists already.
    Collision,
    /// The load is not this maker's any more.
    Lost,
}

impl Loads {
    pub(crate) fn new(
        pool: PgPool,
        sink: Arc<RequestSink>,
        partitions: i32,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let maker = Uuid::from_u128(rand::random());
        Arc::new(Self { pool, sink, partitions, maker, turns: Semaphore::new(AT_ONCE), stop })
    }

    /// Codes that loads of this pattern have asked for so far.
    ///
    /// # Errors
    /// Whatever Postgres reports.
    pub(crate) async fn asked_for(&self, pattern: &serde_json::Value) -> Result<i64, sqlx::Error> {
        let sum = "select coalesce(sum(wanted), 0)::bigint from loads where pattern = $1";
        sqlx::query_scalar(sum).bind(pattern).fetch_one(&self.pool).await
    }

    /// Opens a load and begins to fill it; `None` if there is no such coupon. Goes on to the end whoever listens.
    ///
    /// # Errors
    /// Whatever Postgres reports.
    pub(crate) async fn open(
        self: &Arc<Self>,
        coupon_id: &str,
        wanted: i64,
        pattern: Pattern,
        pattern_json: serde_json::Value,
    ) -> Result<Option<Job>, sqlx::Error> {
        let job_id = Uuid::from_u128(rand::random());
        let insert = format!(
            "insert into loads (job_id, coupon_no, wanted, maker, lease_until, pattern)
             select $1, coupon_no, $2, $3, now() + {LEASE}, $4 from coupons where coupon_id = $5
             returning load_id"
        );
        let (loads, coupon_id) = (Arc::clone(self), coupon_id.to_owned());
        // A task of its own: a client that goes away must not leave a load that nobody fills.
        let opened = tokio::spawn(async move {
            let row = sqlx::query_scalar(sqlx::AssertSqlSafe(insert))
                .bind(job_id)
                .bind(wanted)
                .bind(loads.maker)
                .bind(pattern_json)
                .bind(&coupon_id);
            let Some(id) = row.fetch_optional(&loads.pool).await? else { return Ok(None) };
            let load = Load { id, coupon_id, wanted, pattern: Arc::new(pattern) };
            drop(tokio::spawn(async move { loads.make(load).await }));
            Ok(Some(Job { job_id, state: "open".to_owned(), count: 0, wanted }))
        });
        opened.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// How far a load is; `None` if there is none.
    ///
    /// # Errors
    /// Whatever Postgres reports.
    pub(crate) async fn job(&self, job_id: Uuid) -> Result<Option<Job>, sqlx::Error> {
        let query = "select job_id, state, count, wanted from loads where job_id = $1";
        sqlx::query_as(query).bind(job_id).fetch_optional(&self.pool).await
    }

    async fn make(&self, load: Load) {
        if !self.wait_for_turn(&load).await {
            return;
        }
        let filled = self.fill(&load).await;
        self.turns.add_permits(1);
        if filled {
            crash_points::pass(crash_points::AFTER_LOAD_SEALED);
            self.announce(load.id, &load.coupon_id).await;
        }
    }

    /// Takes a turn, which [`Self::make`] gives back; the lease is kept meanwhile.
    async fn wait_for_turn(&self, load: &Load) -> bool {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                turn = self.turns.acquire() => return turn.map(tokio::sync::SemaphorePermit::forget).is_ok(),
                () = tokio::time::sleep(RENEWAL) => {}
            }
            if let Err(error) = self.renew(load.id).await {
                tracing::warn!(load = load.id, %error, "the lease of a waiting load cannot be renewed");
            }
        }
    }

    async fn renew(&self, load: i64) -> Result<(), sqlx::Error> {
        let update = format!(
            "update loads set lease_until = now() + {LEASE} where load_id = $1 and maker = $2 and state = 'open'"
        );
        sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(load)
            .bind(self.maker)
            .execute(&self.pool)
            .await
            .map(drop)
    }

    /// Stores all codes and seals the load; false if that has to be left to the sweep of whichever instance.
    async fn fill(&self, load: &Load) -> bool {
        let (mut stored, mut failures) = (0, 0);
        let mut ahead = None;
        while stored < load.wanted {
            if self.stop.is_cancelled() || failures > ATTEMPTS {
                return false;
            }
            let size = CHUNK.min(load.wanted - stored);
            let codes = drawn(ahead.take().unwrap_or_else(|| draw(&load.pattern, size))).await;
            // The next chunk is drawn while this one is stored.
            let rest = load.wanted - stored - size;
            if rest > 0 {
                ahead = Some(draw(&load.pattern, CHUNK.min(rest)));
            }
            match self.store(load.id, stored, &codes).await {
                Ok(Stored::Yes) => {
                    crash_points::pass(crash_points::AFTER_LOAD_CHUNK);
                    counter!(names::CODES_GENERATED).increment(codes.len() as u64);
                    (stored, failures) = (stored + size, 0);
                }
                Ok(Stored::Collision) => ahead = None,
                Ok(Stored::Lost) => return false,
                Err(error) => {
                    tracing::warn!(load = load.id, stored, %error, "a chunk of codes was not stored; trying again");
                    tokio::time::sleep(RETRY).await;
                    (ahead, failures) = (None, failures + 1);
                    // The commit may have happened although its answer was lost.
                    stored = self.count(load.id).await.unwrap_or(stored);
                }
            }
        }
        self.seal(load.id).await
    }

    /// One transaction: the codes, and the load's row as its open maker with so many codes; or nothing.
    #[expect(clippy::disallowed_methods, reason = "runs in a task of its own, which nobody drops half-way")]
    async fn store(&self, load: i64, stored: i64, codes: &[Code]) -> Result<Stored, sqlx::Error> {
        let rows = rows(load, stored, codes);
        let mut transaction = self.pool.begin().await?;
        let mut copy =
            transaction.copy_in_raw("copy codes (load_id, idx, code, code_key) from stdin").await?;
        copy.send(rows.into_bytes()).await?;
        match copy.finish().await {
            Ok(_) => {}
            Err(error) if is_collision(&error) => {
                transaction.rollback().await?;
                return Ok(Stored::Collision);
            }
            Err(error) => return Err(error),
        }
        let update = format!(
            "update loads set count = count + $4, lease_until = now() + {LEASE}
              where load_id = $1 and maker = $2 and state = 'open' and count = $3"
        );
        let added = i64::try_from(codes.len()).unwrap_or(i64::MAX);
        let updated = sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(load)
            .bind(self.maker)
            .bind(stored)
            .bind(added)
            .execute(&mut *transaction)
            .await?;
        if updated.rows_affected() != 1 {
            transaction.rollback().await?;
            return Ok(Stored::Lost);
        }
        transaction.commit().await?;
        Ok(Stored::Yes)
    }

    async fn count(&self, load: i64) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select count from loads where load_id = $1")
            .bind(load)
            .fetch_one(&self.pool)
            .await
    }

    async fn seal(&self, load: i64) -> bool {
        // The lease of a sealed load is the time until it is announced again.
        let update = "update loads set state = 'sealed', lease_until = now() + interval '5 seconds'
                       where load_id = $1 and maker = $2 and state = 'open'";
        match sqlx::query(update).bind(load).bind(self.maker).execute(&self.pool).await {
            Ok(done) => done.rows_affected() == 1,
            Err(error) => {
                tracing::warn!(load, %error, "a load is full but not sealed; its lease will do it");
                false
            }
        }
    }

    /// Tells the owner of the coupon that a sealed load is there; told twice, it is applied once.
    async fn announce(&self, load: i64, coupon_id: &str) {
        crash_points::pass(crash_points::BEFORE_ANNOUNCE);
        let record = CouponRequest {
            kind: kinds::STOCK_ADDED.to_owned(),
            coupon_id: coupon_id.to_owned(),
            minted_at_ms: unix_ms(),
            load_id: Some(load),
            ..CouponRequest::default()
        };
        let partition = partition_for(coupon_id.as_bytes(), self.partitions);
        let sent = match self.sink.send_internal(&record, partition) {
            Ok(acknowledgement) => acknowledgement.received().await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => counter!(names::LOADS_ANNOUNCED).increment(1),
            Err(error) => tracing::warn!(load, %error, "a sealed load was not announced; it will be again"),
        }
    }

    /// Seals loads whose makers died, and announces sealed loads until they are applied. Ends with the process.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            match self.due().await {
                Ok(due) => {
                    for (load, coupon_id) in due {
                        self.announce(load, &coupon_id).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "loads cannot be swept"),
            }
        }
    }

    async fn due(&self) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let seal = "update loads set state = 'sealed', lease_until = now()
                     where state = 'open' and lease_until < now() returning load_id, count, wanted";
        for (load, count, wanted) in sqlx::query_as::<_, (i64, i64, i64)>(seal).fetch_all(&self.pool).await? {
            tracing::warn!(load, count, wanted, "the maker of a load is gone: it is sealed as it stands");
        }
        // A load without a code is nothing to announce. Whoever takes a load here announces it.
        let take = "update loads set lease_until = now() + interval '5 seconds' from coupons
                     where coupons.coupon_no = loads.coupon_no and state = 'sealed' and count > 0
                       and lease_until < now()
                    returning load_id, coupon_id";
        sqlx::query_as(take).fetch_all(&self.pool).await
    }
}

fn draw(pattern: &Arc<Pattern>, size: i64) -> JoinHandle<Vec<Code>> {
    let (pattern, size) = (Arc::clone(pattern), usize::try_from(size).unwrap_or(0));
    // Milliseconds of pure computing: not on a thread that answers requests.
    tokio::task::spawn_blocking(move || pattern.generate(rand::rng()).take(size).collect())
}

async fn drawn(drawing: JoinHandle<Vec<Code>>) -> Vec<Code> {
    drawing.await.unwrap_or_default()
}

/// Rows for COPY. Numbers follow the order of drawing, so that a code tells nothing about the next one; rows go in
/// the order of the keys, which the index over them takes faster.
fn rows(load: i64, stored: i64, codes: &[Code]) -> String {
    let mut numbered: Vec<(i64, &Code)> = (stored + 1..).zip(codes).collect();
    numbered.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
    let mut rows = String::with_capacity(codes.len() * 64);
    for (idx, code) in numbered {
        // Codes have letters, digits and hyphens only: nothing to escape. Writing to a String cannot fail.
        let _: Result<(), std::fmt::Error> = writeln!(rows, "{load}\t{idx}\t{}\t{}", code.shown, code.key);
    }
    rows
}

/// Another code with the same key, or two loads that wait for one another because of one.
fn is_collision(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "23505" || code == "40P01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_without_gaps_and_sorted_by_key() {
        let codes: Vec<Code> = Pattern::default().generate(rand::rng()).take(500).collect();
        let rows = rows(7, 1_000, &codes);
        let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split('\t').collect()).collect();
        assert!(rows.is_sorted_by_key(|row| row[3]));
        let mut numbers: Vec<i64> = rows.iter().filter_map(|row| row[1].parse().ok()).collect();
        assert!(!numbers.is_sorted(), "a code must tell nothing about the next one");
        numbers.sort_unstable();
        assert_eq!(numbers, (1_001..=1_500).collect::<Vec<_>>());
    }
}
