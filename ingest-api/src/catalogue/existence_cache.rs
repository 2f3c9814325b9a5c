//! Which coupons exist: a claim of an unknown coupon is 404, without a query for each claim.

use super::lookup_cache::{Lookup, LookupCache};
use crate::db::coupons;
use crate::db::query_pool::{QueryPool, SHORT_TIMEOUT};
use crate::http::problem::Problem;
use crate::model::coupon::is_coupon_id;

/// The coupons that were looked up last.
#[derive(Debug)]
pub(crate) struct ExistenceCache(LookupCache<()>);

impl ExistenceCache {
    /// A cache of at most this many coupons.
    pub(crate) fn new(coupons: usize) -> Self {
        Self(LookupCache::new(coupons))
    }

    /// Requires that the coupon exists. Where Postgres does not respond, the coupon's owner decides.
    ///
    /// # Errors
    /// 404.
    pub(crate) async fn require(&self, coupon_id: &str, pool: &QueryPool) -> Result<(), Problem> {
        let query = async { Ok(coupons::exists(pool, coupon_id).await?.then_some(())) };
        let query = pool.run(SHORT_TIMEOUT, query);
        if !is_coupon_id(coupon_id) || self.0.get_or_query(coupon_id, query).await == Lookup::Absent {
            return Err(Problem::not_found("no such coupon"));
        }
        Ok(())
    }

    /// Adds a coupon that was just created.
    pub(crate) fn insert(&self, coupon_id: &str) {
        self.0.insert(coupon_id, ());
    }
}
