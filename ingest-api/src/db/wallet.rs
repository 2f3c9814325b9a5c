//! The codes that a user has, by time of claim.

use uuid::Uuid;

use super::query_pool::QueryPool;

/// A claim with the state that counts now: a deadline that has passed counts as lapsed, even before the owner of the
/// partition has written it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct WalletRow {
    pub(crate) claimed_ms: i64,
    pub(crate) identity: Uuid,
    pub(crate) coupon_id: String,
    pub(crate) code: String,
    pub(crate) state: String,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
    pub(crate) order_id: Option<String>,
}

/// The claims of a user whose codes are not back in stock, and would not be if every passed deadline were written;
/// newest first. `state + 0`: with a condition that implies the predicate of `claims_live`, the planner might scan that
/// index in place of the user's few rows.
const SELECT: &str = "
    select c.claimed_ms, c.identity, p.coupon_id, k.code,
           case when c.state = 3 then 'REDEEMED' when c.state = 5 then 'REVOKED'
                when p.expires_at_ms <= c.now_ms then 'EXPIRED'
                when c.is_locked then 'LOCKED' else 'CLAIMED' end as state,
           case when c.state in (1, 2) then c.hold_until_ms end as hold_until_ms,
           case when c.is_locked then c.lock_until_ms end as lock_until_ms,
           case when c.is_locked or c.state = 3 then c.order_id end as order_id
      from (select c.*, n.now_ms, c.state = 2 and c.lock_until_ms > n.now_ms as is_locked
              from (select (extract(epoch from now()) * 1000)::bigint as now_ms) n, claims c
             where hashtextextended(c.user_id, 0) = hashtextextended($1, 0)
               and c.user_id = $1 and (c.claimed_ms, c.identity) < ($2, $3)
               and c.state + 0 <> 4
               and not coalesce(c.hold_until_ms <= n.now_ms
                                and (c.state = 1 or c.state = 2 and c.lock_until_ms <= n.now_ms), false)
             order by c.claimed_ms desc, c.identity desc limit $4) c
     cross join lateral (select coupon_id, expires_at_ms from coupons p
                          where p.coupon_no = c.coupon_no offset 0) p
     cross join lateral (select load_id, base from loads l
                          where l.coupon_no = c.coupon_no and l.base < c.number order by l.base desc limit 1) l
     cross join lateral (select code from codes k
                          where k.load_id = l.load_id and k.idx = c.number - l.base offset 0) k
     order by c.claimed_ms desc, c.identity desc";

/// Reads a user's claims before a position, newest first.
pub(crate) async fn claims(
    pool: &QueryPool,
    user: &str,
    before_ms: i64,
    before_identity: Uuid,
    rows: i64,
) -> Result<Vec<WalletRow>, sqlx::Error> {
    sqlx::query_as(SELECT)
        .bind(user)
        .bind(before_ms)
        .bind(before_identity)
        .bind(rows)
        .fetch_all(&mut *pool.connection().await?)
        .await
}
