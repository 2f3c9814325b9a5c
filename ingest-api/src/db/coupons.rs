//! Coupons: their definitions and live counters.

use sqlx::PgPool;
use sqlx::types::Json;

use super::query_pool::QueryPool;
use crate::model::coupon::{Description, NewCoupon};

/// A coupon and its counters, from one snapshot.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct CouponRow {
    pub(crate) coupon_id: String,
    pub(crate) definition: Json<Description>,
    pub(crate) status: String,
    pub(crate) starts_at_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) hold_seconds: Option<i32>,
    pub(crate) lock_seconds: i32,
    pub(crate) requires_lock: bool,
    pub(crate) claims_per_user: Option<i32>,
    pub(crate) redemptions_per_user: Option<i32>,
    pub(crate) redemptions_per_code: Option<i32>,
    pub(crate) redemptions_total: Option<i64>,
    pub(crate) created_ms: i64,
    /// Whether the coupon's window has ended.
    pub(crate) is_over: bool,
    /// Codes generated.
    pub(crate) top: i64,
    pub(crate) available: i64,
    pub(crate) claimed: i64,
    pub(crate) locked: i64,
    pub(crate) redeemed: i64,
    pub(crate) revoked: i64,
}

/// One statement reads definition and counters, so that they add up.
const SELECT: &str = "
    select c.coupon_id, c.definition, c.status, c.starts_at_ms, c.expires_at_ms, c.hold_seconds, c.lock_seconds,
           c.requires_lock, c.claims_per_user, c.redemptions_per_user, c.redemptions_per_code, c.redemptions_total,
           (extract(epoch from c.created_at) * 1000)::bigint as created_ms,
           coalesce(c.expires_at_ms <= extract(epoch from now()) * 1000, false) as is_over,
           s.top, s.top - s.cursor - s.ahead + s.returned as available, s.claimed, s.locked, s.redeemed, s.revoked
      from coupons c join stock s on s.coupon_no = c.coupon_no
     where c.coupon_id = $1";

/// Inserts the definition and its stock row together.
const INSERT: &str = "
    with inserted as (
        insert into coupons (coupon_id, partition, definition, starts_at_ms, expires_at_ms, hold_seconds,
                             lock_seconds, requires_lock, claims_per_user, redemptions_per_user,
                             redemptions_per_code, redemptions_total)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict (coupon_id) do nothing
        returning coupon_no)
    insert into stock (coupon_no) select coupon_no from inserted";

/// Reads a coupon and its counters.
pub(crate) async fn find(pool: &QueryPool, coupon_id: &str) -> Result<Option<CouponRow>, sqlx::Error> {
    sqlx::query_as(SELECT).bind(coupon_id).fetch_optional(&mut *pool.connection().await?).await
}

/// Whether the coupon exists.
pub(crate) async fn exists(pool: &QueryPool, coupon_id: &str) -> Result<bool, sqlx::Error> {
    let query = sqlx::query_scalar("select true from coupons where coupon_id = $1").bind(coupon_id);
    let found: Option<bool> = query.fetch_optional(&mut *pool.connection().await?).await?;
    Ok(found.is_some())
}

/// Checks that Postgres responds and the table can be read.
pub(crate) async fn check_readable(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query("select from coupons limit 1").fetch_optional(pool).await.map(drop)
}

/// Inserts a coupon; `false` if the id is in use.
pub(crate) async fn insert(
    pool: &QueryPool,
    id: &str,
    partition: i32,
    coupon: NewCoupon,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(INSERT)
        .bind(id)
        .bind(partition)
        .bind(Json(coupon.description))
        .bind(coupon.starts_at_ms)
        .bind(coupon.expires_at_ms)
        .bind(coupon.hold_seconds)
        .bind(coupon.lock_seconds)
        .bind(coupon.requires_lock)
        .bind(coupon.limits.claims_per_user)
        .bind(coupon.limits.redemptions_per_user)
        .bind(coupon.limits.redemptions_per_code)
        .bind(coupon.limits.redemptions_total)
        .execute(&mut *pool.connection().await?)
        .await?;
    Ok(done.rows_affected() == 1)
}
