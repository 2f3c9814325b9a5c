//! The coupon of a code or a redemption, which determines the partition of a request.
//!
//! Guarantees: a code never changes its coupon, so a found code stays cached. An unknown code is not cached: a user who
//! has just received it may use it immediately. Where Postgres does not respond, the request is rejected with 503: in a
//! partition other than the code's it would get the outcome `code_unknown`.

use std::sync::Arc;

use coupon_core::codes::CodeKey;
use coupon_core::ids::RequestId;
use metrics::counter;

use super::lookup_cache::{Lookup, LookupCache};
use crate::db::codes;
use crate::db::query_pool::{QueryPool, READ_TIMEOUT};
use crate::http::problem::Problem;
use crate::telemetry::metrics::REJECTED;

/// The codes that were looked up last.
#[derive(Debug)]
pub(crate) struct CodeCache(LookupCache<Arc<str>>);

impl CodeCache {
    /// A cache of at most this many codes.
    pub(crate) fn new(codes: usize) -> Self {
        Self(LookupCache::new(codes))
    }

    /// The coupon of a code; `None` for an unknown code.
    ///
    /// # Errors
    /// 503 where Postgres does not respond.
    pub(crate) async fn coupon_of(
        &self,
        code: &CodeKey,
        pool: &QueryPool,
    ) -> Result<Option<Arc<str>>, Problem> {
        let query = pool.run(READ_TIMEOUT, codes::coupon_of_code(pool, code));
        known(self.0.get_or_query_fresh(code.as_str(), query).await)
    }
}

/// The coupon of a redemption; `None` for an unknown redemption. Not cached: roll backs are rare.
///
/// # Errors
/// 503 where Postgres does not respond.
pub(crate) async fn coupon_of_redemption(
    id: RequestId,
    pool: &QueryPool,
) -> Result<Option<Arc<str>>, Problem> {
    known(Lookup::of(pool.run(READ_TIMEOUT, codes::coupon_of_redemption(pool, id)).await))
}

fn known(result: Lookup<Arc<str>>) -> Result<Option<Arc<str>>, Problem> {
    match result {
        Lookup::Found(coupon_id) => Ok(Some(coupon_id)),
        Lookup::Absent => Ok(None),
        Lookup::Unknown => {
            counter!(REJECTED, "why" => "partition_unknown").increment(1);
            Err(Problem::unavailable("the database did not respond; the request was not submitted; retry"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_rejected_while_its_partition_is_unknown() {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .connect_lazy("postgres://user@127.0.0.1:1/none")
            .expect("an address");
        let pool = QueryPool::new(pool);
        let code = coupon_core::codes::normalise("ABCD").expect("a code");
        let cache = CodeCache::new(1_000);
        let id = RequestId { identity: 7, body: 0 };
        for rejected in [cache.coupon_of(&code, &pool).await, coupon_of_redemption(id, &pool).await] {
            let problem = rejected.expect_err("no server listens there");
            assert_eq!((problem.status().as_u16(), problem.code()), (503, "unavailable"));
        }
        cache.0.insert("ABCD", Arc::from("spring"));
        assert_eq!(cache.coupon_of(&code, &pool).await.ok().flatten().as_deref(), Some("spring"));
    }
}
