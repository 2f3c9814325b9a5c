//! Everything that a redeem of a code by a user depends on.

use coupon_core::codes::CodeKey;
use sqlx::types::Json;

use super::query_pool::QueryPool;
use crate::model::coupon::Description;

/// A code, its coupon, its live claim and the counters of its limits, from one snapshot.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct CodeSnapshot {
    pub(crate) code: String,
    pub(crate) coupon_id: String,
    pub(crate) definition: Json<Description>,
    pub(crate) status: String,
    pub(crate) starts_at_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) requires_lock: bool,
    pub(crate) redemptions_per_code: Option<i32>,
    pub(crate) redemptions_per_user: Option<i32>,
    pub(crate) redemptions_total: Option<i64>,
    /// Postgres' clock.
    pub(crate) now_ms: i64,
    /// Live redemptions of a shared code.
    pub(crate) uses: i64,
    pub(crate) revoked: bool,
    /// Live redemptions of all codes of the coupon.
    pub(crate) redemptions: i64,
    /// Whether the live claim is the user's; `None` without a live claim.
    pub(crate) is_own: Option<bool>,
    /// State of the live claim.
    pub(crate) state: Option<i16>,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
    /// Whether a claim of this code by this user has lapsed.
    pub(crate) has_lapsed: bool,
    /// Live redemptions of this user, counted up to their limit.
    pub(crate) own_redemptions: i64,
}

/// One snapshot. Redemptions are counted up to their limit and no further.
const SELECT: &str = "
    select x.code, p.coupon_id, p.definition, p.status, p.starts_at_ms, p.expires_at_ms, p.requires_lock,
           p.redemptions_per_code, p.redemptions_per_user, p.redemptions_total,
           (extract(epoch from now()) * 1000)::bigint as now_ms,
           coalesce(m.uses, 0) as uses, coalesce(m.revoked, false) as revoked, s.redemptions,
           c.user_id = $2 as is_own, c.state, c.hold_until_ms, c.lock_until_ms,
           exists (select from claims g
                    where hashtextextended(g.user_id, 0) = hashtextextended($2, 0)
                      and g.user_id = $2 and g.coupon_no = x.coupon_no and g.number = x.number
                      and g.state + 0 = 4 and g.lapsed_ms is not null) as has_lapsed,
           case when p.redemptions_per_user is null then 0 else
               (select count(*) from (select from redemptions r
                                       where hashtextextended(r.user_id, 0) = hashtextextended($2, 0)
                                         and r.user_id = $2 and r.coupon_no = x.coupon_no
                                         and r.rolled_back_ms is null
                                       limit p.redemptions_per_user) r) end as own_redemptions
      from (select k.code, l.coupon_no, l.base + k.idx as number
              from codes k join loads l on l.load_id = k.load_id and l.state = 'applied'
             where k.code_key = $1) x
      join coupons p on p.coupon_no = x.coupon_no
      join stock s on s.coupon_no = x.coupon_no
      left join lateral (select * from code_marks m
                          where m.coupon_no = x.coupon_no and m.number = x.number offset 0) m on true
      left join lateral (select * from claims c
                          where c.coupon_no = x.coupon_no and c.number >= x.number and c.state <> 4
                          order by c.number limit 1) c on c.number = x.number";

/// Reads the snapshot; `None` for an unknown code.
pub(crate) async fn snapshot(
    pool: &QueryPool,
    code: &CodeKey,
    user: &str,
) -> Result<Option<CodeSnapshot>, sqlx::Error> {
    sqlx::query_as(SELECT).bind(code.as_str()).bind(user).fetch_optional(&mut *pool.connection().await?).await
}
