//! The coupon of a code or of a redemption.

use std::sync::Arc;

use coupon_core::codes::CodeKey;
use coupon_core::ids::RequestId;
use uuid::Uuid;

use super::query_pool::QueryPool;

/// Only codes of applied loads: the owner of the coupon does not have the others yet.
const COUPON_OF_CODE: &str = "
    select p.coupon_id from codes k
      join loads l on l.load_id = k.load_id and l.state = 'applied'
      join coupons p on p.coupon_no = l.coupon_no
     where k.code_key = $1";

const COUPON_OF_REDEMPTION: &str = "
    select p.coupon_id from redemptions r
      join coupons p on p.coupon_no = r.coupon_no
     where r.identity = $1 and r.body = $2";

/// The coupon of a code; `None` for an unknown code.
pub(crate) async fn coupon_of_code(
    pool: &QueryPool,
    code: &CodeKey,
) -> Result<Option<Arc<str>>, sqlx::Error> {
    let query = sqlx::query_scalar(COUPON_OF_CODE).bind(code.as_str());
    let found: Option<String> = query.fetch_optional(&mut *pool.connection().await?).await?;
    Ok(found.map(Arc::from))
}

/// The coupon of a redemption; `None` for an unknown redemption.
pub(crate) async fn coupon_of_redemption(
    pool: &QueryPool,
    id: RequestId,
) -> Result<Option<Arc<str>>, sqlx::Error> {
    let query = sqlx::query_scalar(COUPON_OF_REDEMPTION).bind(Uuid::from_u128(id.identity)).bind(id.body);
    let found: Option<String> = query.fetch_optional(&mut *pool.connection().await?).await?;
    Ok(found.map(Arc::from))
}
