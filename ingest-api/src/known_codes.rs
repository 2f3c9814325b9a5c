//! Which coupon a code or a redemption belongs to: it decides whose partition a request goes to.
//!
//! Guarantees: a code never changes its coupon, so what is found is remembered; only codes that are stock are found
//! (their owner knows no others). That a code is unknown is not remembered: who was just given it may use it at
//! once. Where Postgres does not answer, the request is refused: sent to a partition that is not the code's, it would
//! be told that there is no such code.

use std::sync::Arc;

use coupon_core::codes::CodeKey;
use coupon_core::ids::RequestId;
use uuid::Uuid;

use crate::problem::Problem;
use crate::questions::{BRIEF_PATIENCE, Questions};
use crate::remembered::{Known, Remembered, known};

const CODE: &str = "
    select p.coupon_id from codes k
      join loads l on l.load_id = k.load_id and l.state = 'applied'
      join coupons p on p.coupon_no = l.coupon_no
     where k.code_key = $1";

const REDEMPTION: &str = "
    select p.coupon_id from redemptions r
      join coupons p on p.coupon_no = r.coupon_no
     where r.identity = $1 and r.body = $2";

/// The codes that were asked for last.
#[derive(Debug)]
pub(crate) struct KnownCodes(Remembered<Arc<str>>);

impl KnownCodes {
    /// Remembers at most this many.
    pub(crate) fn new(codes: usize) -> Self {
        Self(Remembered::new(codes))
    }

    /// The coupon of a code; `None` for a code that nobody knows.
    ///
    /// # Errors
    /// 503 while Postgres does not say.
    pub(crate) async fn coupon_of(
        &self,
        code: &CodeKey,
        questions: &Questions,
    ) -> Result<Option<Arc<str>>, Problem> {
        let query = sqlx::query_scalar(CODE).bind(code.as_str());
        let query = async { shared(query.fetch_optional(questions.connection().await?.server()).await) };
        certain(self.0.look_anew(code.as_str(), questions.ask(BRIEF_PATIENCE, query)).await)
    }
}

/// The coupon of a redemption; `None` for a redemption that nobody knows. Rolling back is rare: nothing is
/// remembered.
///
/// # Errors
/// 503 while Postgres does not say.
pub(crate) async fn coupon_of_redemption(
    id: RequestId,
    questions: &Questions,
) -> Result<Option<Arc<str>>, Problem> {
    let query = sqlx::query_scalar(REDEMPTION).bind(Uuid::from_u128(id.identity)).bind(id.body);
    let query = async { shared(query.fetch_optional(questions.connection().await?.server()).await) };
    certain(known(questions.ask(BRIEF_PATIENCE, query).await))
}

fn shared(found: Result<Option<String>, sqlx::Error>) -> Result<Option<Arc<str>>, sqlx::Error> {
    Ok(found?.map(Arc::from))
}

fn certain(known: Known<Arc<str>>) -> Result<Option<Arc<str>>, Problem> {
    match known {
        Known::There(coupon_id) => Ok(Some(coupon_id)),
        Known::Absent => Ok(None),
        Known::Unsure => {
            Err(Problem::unavailable("the database did not answer; nothing was taken, try again"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_sent_nowhere_while_nobody_knows_where_it_belongs() {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .connect_lazy("postgres://nobody@127.0.0.1:1/none")
            .expect("an address");
        let pool = Questions::new(pool);
        let code = coupon_core::codes::normalise("ABCD").expect("a code");
        let known = KnownCodes::new(1_000);
        let id = RequestId { identity: 7, body: 0 };
        for refused in [known.coupon_of(&code, &pool).await, coupon_of_redemption(id, &pool).await] {
            let problem = refused.expect_err("nobody answers there");
            assert_eq!((problem.status().as_u16(), problem.code()), (503, "unavailable"));
        }
        known.0.insert("ABCD", Arc::from("spring"));
        assert_eq!(known.coupon_of(&code, &pool).await.ok().flatten().as_deref(), Some("spring"));
    }
}
