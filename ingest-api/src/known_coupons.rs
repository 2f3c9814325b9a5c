//! Which coupons exist, so that a claim of an unknown one is 404 without costing every claim a query.

use crate::questions::{BRIEF_PATIENCE, Questions};
use crate::remembered::{Known, Remembered};

/// The coupons that were asked for last.
#[derive(Debug)]
pub(crate) struct KnownCoupons(Remembered<()>);

impl KnownCoupons {
    /// Remembers at most this many.
    pub(crate) fn new(coupons: usize) -> Self {
        Self(Remembered::new(coupons))
    }

    /// Whether the coupon exists. Where Postgres does not say it, its owner will.
    pub(crate) async fn look(&self, coupon_id: &str, questions: &Questions) -> Known<()> {
        let query = async {
            let query = sqlx::query_scalar("select true from coupons where coupon_id = $1").bind(coupon_id);
            Ok(query.fetch_optional(questions.connection().await?.server()).await?.map(|_: bool| ()))
        };
        self.0.look(coupon_id, questions.ask(BRIEF_PATIENCE, query)).await
    }

    /// The coupon was just made.
    pub(crate) fn insert(&self, coupon_id: &str) {
        self.0.insert(coupon_id, ());
    }
}
