//! The lookups of a batch: one query per kind of row, all concurrent.
//!
//! Every query goes from the requested keys to the rows, never the other way round. A subquery that refers to a key and
//! cannot be merged into the rest (`offset 0`, an aggregate) leaves the planner no other order, however small it
//! estimates a table.

mod clock;
mod codes_by_name;
mod codes_by_number;
mod coupons;
mod due_claims;
pub(super) mod outcomes;

use coupon_core::ids::{CouponNo, LoadId, Partition};
use coupon_core::interface::{LookupResults, Lookups, StoredLoad, UserCounts, UserLookup};
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use sqlx::{PgPool, Row as _};

use super::{LedgerError, PgReader};
use codes_by_name::{codes, orders, redemptions};
use codes_by_number::returned;
use coupons::coupons;
use due_claims::due_claims;
use outcomes::outcomes;

const LOADS: &str = "
    select load_id, coupon_no, count, state = 'sealed' from stampede.loads where load_id = any ($1)";

/// `state + 0`: a condition that implies the predicate of `claims_live` would let the planner scan all claims of the
/// coupon with that index instead of looking up the user's few. Redemptions are counted with a filter for the same
/// reason. A user is looked up by the hash of the user id, which is what the indexes contain.
const USERS: &str = "
    select w.coupon_no, w.user_id, n.count, r.count
      from (select *, hashtextextended(user_id, 0) as hash
              from unnest($1::bigint[], $2::text[], $3::boolean[]) w (coupon_no, user_id, redemptions)) w
     cross join lateral (select count(*) from stampede.claims c
                          where hashtextextended(c.user_id, 0) = w.hash and c.user_id = w.user_id
                            and c.coupon_no = w.coupon_no and c.state + 0 <> 4) n
     cross join lateral (select count(*) filter (where r.rolled_back_ms is null) from stampede.redemptions r
                          where w.redemptions and hashtextextended(r.user_id, 0) = w.hash
                            and r.user_id = w.user_id and r.coupon_no = w.coupon_no) r
     where n.count > 0 or r.count > 0";

impl PgReader {
    /// Runs all lookups concurrently. Due claims are those of `partition`.
    ///
    /// # Errors
    /// [`LedgerError`]: retry all of them.
    pub async fn lookup(
        &self,
        partition: Partition,
        lookups: &Lookups,
    ) -> Result<LookupResults, LedgerError> {
        let pool = &self.pool;
        let (coupons, decided, loads, users, returned, (codes, lapsed), redemptions, orders, due) = tokio::try_join!(
            coupons(pool, &lookups.coupons),
            outcomes(pool, &lookups.decided, &lookups.decided_in),
            loads(pool, &lookups.loads),
            users(pool, &lookups.users),
            returned(pool, &lookups.returned),
            codes(pool, &lookups.codes, &lookups.redemptions),
            redemptions(pool, &lookups.redemptions),
            orders(pool, &lookups.orders),
            due_claims(pool, partition, lookups.due),
        )?;
        Ok(LookupResults {
            coupons,
            decided,
            loads,
            users,
            returned,
            codes,
            lapsed,
            redemptions,
            orders,
            due,
        })
    }
}

async fn loads(pool: &PgPool, ids: &[LoadId]) -> Result<Vec<StoredLoad>, LedgerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64, i64, bool)> =
        sqlx::query_as(LOADS).bind(ids.iter().map(|id| id.0).bind_iter()).fetch_all(pool).await?;
    let loaded = |(load, coupon, count, sealed)| StoredLoad {
        load: LoadId(load),
        coupon: CouponNo(coupon),
        count,
        sealed,
    };
    Ok(rows.into_iter().map(loaded).collect())
}

async fn users(pool: &PgPool, wanted: &[UserLookup]) -> Result<Vec<UserCounts>, LedgerError> {
    let pairs =
        || wanted.iter().flat_map(|of| of.users.iter().map(|user| (of.coupon.0, &**user, of.redemptions)));
    if pairs().next().is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(USERS)
        .bind(pairs().map(|pair| pair.0).bind_iter())
        .bind(pairs().map(|pair| pair.1).bind_iter())
        .bind(pairs().map(|pair| pair.2).bind_iter())
        .fetch_all(pool)
        .await?;
    let counted = |row: &PgRow, column: usize| -> Result<u32, LedgerError> {
        Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
    };
    let live = |row: &PgRow| {
        Ok(UserCounts {
            coupon: CouponNo(row.try_get(0)?),
            user: row.try_get(1)?,
            claims: counted(row, 2)?,
            redemptions: counted(row, 3)?,
        })
    };
    rows.iter().map(live).collect()
}
