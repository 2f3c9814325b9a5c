//! Loads of codes: rows of a load and of its codes, and the lease of the process that fills it.
//!
//! Guarantees: a chunk is committed only while its holder still has the load; codes are numbered without gaps within
//! their load; who continues or seals a load of another holder replaces that holder in the same statement.

use std::fmt::Write as _;

use coupon_core::codes::Code;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// When the lease of an open load ends. Instances of release 0.1.0 seal the load then; since then its end is decided by
/// [`Leases`](crate::catalogue::leases::Leases), to which this is a value that every chunk and every renewal changes.
const LEASE_END: &str = "clock_timestamp() + interval '30 seconds'";

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
    /// Why it was sealed with fewer codes than requested.
    pub(crate) reason: Option<String>,
}

/// An open load as one holder fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) load: i64,
    /// A random id of this holding. In the table: `maker`.
    pub(crate) holder: Uuid,
}

impl Held {
    pub(crate) fn new(load: i64) -> Self {
        Self { load, holder: Uuid::from_u128(rand::random()) }
    }
}

/// An open load, of any holder.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub(crate) struct OpenLoad {
    pub(crate) load_id: i64,
    pub(crate) coupon_id: String,
    pub(crate) wanted: i64,
    pub(crate) count: i64,
    /// The pattern of its codes; `None`: they were uploaded, and cannot be read again.
    pub(crate) pattern: Option<Value>,
    maker: Uuid,
    lease_until: String,
}

#[cfg(test)]
impl OpenLoad {
    pub(crate) fn for_tests(load_id: i64, count: i64) -> Self {
        let (coupon_id, lease_until) = ("sale".to_owned(), "2026-01-01".to_owned());
        Self { load_id, coupon_id, wanted: 100, count, pattern: None, maker: Uuid::nil(), lease_until }
    }
}

/// The result of storing a chunk.
pub(crate) enum Stored {
    Yes,
    /// One of the codes exists already; nothing was stored.
    Collision,
    /// Another process owns the load; nothing was stored.
    LeaseLost,
}

/// The rows of loads.
pub(crate) struct LoadStore {
    pool: PgPool,
}

impl LoadStore {
    /// With a pool of its own: long transactions must not delay the queries of requests.
    pub(crate) const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Codes that all loads of this pattern have requested so far.
    pub(crate) async fn requested(&self, pattern: &Value) -> Result<i64, sqlx::Error> {
        let sum = "select coalesce(sum(wanted), 0)::bigint from loads where pattern = $1";
        sqlx::query_scalar(sum).bind(pattern).fetch_one(&self.pool).await
    }

    /// Inserts an open load and returns it; `None` for an unknown coupon.
    pub(crate) async fn open(
        &self,
        job_id: Uuid,
        coupon_id: &str,
        wanted: i64,
        pattern: Value,
    ) -> Result<Option<Held>, sqlx::Error> {
        let insert = format!(
            "insert into loads (job_id, coupon_no, wanted, maker, lease_until, pattern)
             select $1, coupon_no, $2, $3, {LEASE_END}, $4 from coupons where coupon_id = $5
             returning load_id"
        );
        let held = Held::new(0);
        let load: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(insert))
            .bind(job_id)
            .bind(wanted)
            .bind(held.holder)
            .bind(pattern)
            .bind(coupon_id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(load.map(|load| Held { load, ..held }))
    }

    /// The state of a load; `None` if it does not exist.
    pub(crate) async fn job(&self, job_id: Uuid) -> Result<Option<Job>, sqlx::Error> {
        let query = "select job_id, state, count, wanted, reason from loads where job_id = $1";
        sqlx::query_as(query).bind(job_id).fetch_optional(&self.pool).await
    }

    /// Renews the lease of an open load.
    pub(crate) async fn renew(&self, held: Held) -> Result<(), sqlx::Error> {
        let update = format!(
            "update loads set lease_until = {LEASE_END} where load_id = $1 and maker = $2 and state = 'open'"
        );
        let renew = sqlx::query(sqlx::AssertSqlSafe(update)).bind(held.load).bind(held.holder);
        renew.execute(&self.pool).await.map(drop)
    }

    /// Stores a chunk in one transaction: the codes, and the count of the open load as its holder; or nothing.
    #[expect(
        clippy::disallowed_methods,
        reason = "runs in a task of its own, which is never cancelled half-way"
    )]
    pub(crate) async fn store(&self, held: Held, stored: i64, codes: &[Code]) -> Result<Stored, sqlx::Error> {
        let rows = copy_rows(held.load, stored, codes);
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
            "update loads set count = count + $4, lease_until = {LEASE_END}
              where load_id = $1 and maker = $2 and state = 'open' and count = $3"
        );
        let added = i64::try_from(codes.len()).unwrap_or(i64::MAX);
        let updated = sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(held.load)
            .bind(held.holder)
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

    /// Seals an open load, with the reason if it has fewer codes than requested; `false` if another holder has it. The
    /// lease of a sealed load is the time until it is announced again.
    pub(crate) async fn seal(&self, held: Held, reason: Option<&str>) -> Result<bool, sqlx::Error> {
        let update = "update loads set state = 'sealed', reason = $3,
                             lease_until = clock_timestamp() + interval '5 seconds'
                       where load_id = $1 and maker = $2 and state = 'open'";
        let seal = sqlx::query(update).bind(held.load).bind(held.holder).bind(reason);
        Ok(seal.execute(&self.pool).await?.rows_affected() == 1)
    }

    /// All open loads.
    pub(crate) async fn open_loads(&self) -> Result<Vec<OpenLoad>, sqlx::Error> {
        let query =
            "select load_id, coupon_id, wanted, count, pattern, maker, lease_until::text as lease_until
                       from loads join coupons using (coupon_no) where state = 'open'";
        sqlx::query_as(query).fetch_all(&self.pool).await
    }

    /// Replaces the holder of a load if it still is as it was read; `None` otherwise.
    pub(crate) async fn replace_holder(&self, open: &OpenLoad) -> Result<Option<Held>, sqlx::Error> {
        let update = format!(
            "update loads set maker = $4, lease_until = {LEASE_END}
              where load_id = $1 and maker = $2 and lease_until::text = $3 and state = 'open'"
        );
        let held = Held::new(open.load_id);
        let replace = sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(open.load_id)
            .bind(open.maker)
            .bind(&open.lease_until)
            .bind(held.holder);
        let replaced = replace.execute(&self.pool).await?.rows_affected() == 1;
        Ok(replaced.then_some(held))
    }

    /// Takes every sealed load that is due to be announced; returns id and coupon of each. An empty load has nothing
    /// to announce.
    pub(crate) async fn take_unannounced(&self) -> Result<Vec<(i64, String)>, sqlx::Error> {
        let take = "update loads set lease_until = clock_timestamp() + interval '5 seconds' from coupons
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
