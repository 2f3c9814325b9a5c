//! Loads of codes: rows of a load and of its codes, and the lease of the process that fills it.
//!
//! Guarantees: a chunk is committed only while its lease owner still holds the load; codes are numbered without gaps
//! within their load; a load whose lease has expired is sealed with the codes that it has.

use std::fmt::Write as _;

use coupon_core::codes::Code;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// The lease of an open load; its owner counts as dead after this time without a chunk or a renewal.
const LEASE: &str = "interval '30 seconds'";

/// The state of a load.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Job {
    /// The id that clients use.
    pub(crate) job_id: Uuid,
    /// open, sealed or applied.
    pub(crate) state: String,
    /// Codes stored.
    pub(crate) count: i64,
    /// Codes requested.
    pub(crate) wanted: i64,
}

/// The result of storing a chunk.
pub(crate) enum Stored {
    Yes,
    /// One of the codes exists already; nothing was stored.
    Collision,
    /// Another process owns the load; nothing was stored.
    LeaseLost,
}

/// The rows of loads, as one lease owner reads and writes them.
pub(crate) struct LoadStore {
    pool: PgPool,
    /// Unique for each start of a process.
    owner: Uuid,
}

impl LoadStore {
    /// A lease owner with its own pool: its long transactions must not delay the queries of requests.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, owner: Uuid::from_u128(rand::random()) }
    }

    /// Codes that all loads of this pattern have requested so far.
    pub(crate) async fn requested(&self, pattern: &Value) -> Result<i64, sqlx::Error> {
        let sum = "select coalesce(sum(wanted), 0)::bigint from loads where pattern = $1";
        sqlx::query_scalar(sum).bind(pattern).fetch_one(&self.pool).await
    }

    /// Inserts an open load with a lease and returns its id; `None` for an unknown coupon.
    pub(crate) async fn open(
        &self,
        job_id: Uuid,
        coupon_id: &str,
        wanted: i64,
        pattern: Value,
    ) -> Result<Option<i64>, sqlx::Error> {
        let insert = format!(
            "insert into loads (job_id, coupon_no, wanted, maker, lease_until, pattern)
             select $1, coupon_no, $2, $3, now() + {LEASE}, $4 from coupons where coupon_id = $5
             returning load_id"
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(insert))
            .bind(job_id)
            .bind(wanted)
            .bind(self.owner)
            .bind(pattern)
            .bind(coupon_id)
            .fetch_optional(&self.pool)
            .await
    }

    /// The state of a load; `None` if it does not exist.
    pub(crate) async fn job(&self, job_id: Uuid) -> Result<Option<Job>, sqlx::Error> {
        let query = "select job_id, state, count, wanted from loads where job_id = $1";
        sqlx::query_as(query).bind(job_id).fetch_optional(&self.pool).await
    }

    /// Renews the lease of an open load.
    pub(crate) async fn renew(&self, load: i64) -> Result<(), sqlx::Error> {
        let update = format!(
            "update loads set lease_until = now() + {LEASE} where load_id = $1 and maker = $2 and state = 'open'"
        );
        sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(load)
            .bind(self.owner)
            .execute(&self.pool)
            .await
            .map(drop)
    }

    /// Stores a chunk in one transaction: the codes, and the count of the open load as its owner; or nothing.
    #[expect(
        clippy::disallowed_methods,
        reason = "runs in a task of its own, which is never cancelled half-way"
    )]
    pub(crate) async fn store(&self, load: i64, stored: i64, codes: &[Code]) -> Result<Stored, sqlx::Error> {
        let rows = copy_rows(load, stored, codes);
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
            .bind(self.owner)
            .bind(stored)
            .bind(added)
            .execute(&mut *transaction)
            .await?;
        if updated.rows_affected() != 1 {
            transaction.rollback().await?;
            return Ok(Stored::LeaseLost);
        }
        transaction.commit().await?;
        Ok(Stored::Yes)
    }

    /// Codes stored in a load.
    pub(crate) async fn count(&self, load: i64) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select count from loads where load_id = $1")
            .bind(load)
            .fetch_one(&self.pool)
            .await
    }

    /// Seals an open load; `false` if this process no longer owns it. The lease of a sealed load is the time until it
    /// is announced again.
    pub(crate) async fn seal(&self, load: i64) -> Result<bool, sqlx::Error> {
        let update = "update loads set state = 'sealed', lease_until = now() + interval '5 seconds'
                       where load_id = $1 and maker = $2 and state = 'open'";
        let done = sqlx::query(update).bind(load).bind(self.owner).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Seals every open load whose lease has expired; returns id, stored and requested codes of each.
    pub(crate) async fn seal_expired(&self) -> Result<Vec<(i64, i64, i64)>, sqlx::Error> {
        let seal = "update loads set state = 'sealed', lease_until = now()
                     where state = 'open' and lease_until < now() returning load_id, count, wanted";
        sqlx::query_as(seal).fetch_all(&self.pool).await
    }

    /// Takes every sealed load that is due to be announced; returns id and coupon of each. An empty load has nothing
    /// to announce.
    pub(crate) async fn take_unannounced(&self) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let take = "update loads set lease_until = now() + interval '5 seconds' from coupons
                     where coupons.coupon_no = loads.coupon_no and state = 'sealed' and count > 0
                       and lease_until < now()
                    returning load_id, coupon_id";
        sqlx::query_as(take).fetch_all(&self.pool).await
    }
}

/// Rows for COPY. Numbers follow the random order of generation, so that a code reveals nothing about the next one;
/// rows are sorted by key, which makes the insertion into the index faster.
fn copy_rows(load: i64, stored: i64, codes: &[Code]) -> String {
    let mut numbered: Vec<(i64, &Code)> = (stored + 1..).zip(codes).collect();
    numbered.sort_unstable_by(|(_, a), (_, b)| a.key.cmp(&b.key));
    let mut rows = String::with_capacity(codes.len() * 64);
    for (idx, code) in numbered {
        // Codes have letters, digits and hyphens only: no escapes. Writing to a String cannot fail.
        let _: Result<(), std::fmt::Error> = writeln!(rows, "{load}\t{idx}\t{}\t{}", code.shown, code.key);
    }
    rows
}

/// A duplicate key, or a deadlock of two loads over one.
fn is_collision(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "23505" || code == "40P01")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::codes::Pattern;

    #[test]
    fn rows_are_numbered_without_gaps_and_sorted_by_key() {
        let codes: Vec<Code> = Pattern::default().generate(rand::rng()).take(500).collect();
        let rows = copy_rows(7, 1_000, &codes);
        let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split('\t').collect()).collect();
        assert!(rows.is_sorted_by_key(|row| row[3]));
        let mut numbers: Vec<i64> = rows.iter().filter_map(|row| row[1].parse().ok()).collect();
        assert!(!numbers.is_sorted(), "a code must reveal nothing about the next one");
        numbers.sort_unstable();
        assert_eq!(numbers, (1_001..=1_500).collect::<Vec<_>>());
    }
}
