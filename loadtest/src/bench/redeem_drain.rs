//! `redeem-drain`: how fast one worker empties a topic full of redeem requests, each for another claimed code.
//!
//! The claims are real ones, decided by the worker beforehand. The requests come in another order than the claims, as
//! shoppers finish in another order than they began: hardly two neighbours of a batch lie on one page.

use futures::{FutureExt as _, TryStreamExt as _};
use schemas::{CouponRequest, kinds};

use super::BenchError;
use super::backlog::Requests;
use super::drain::{Drain, Rows, blocking, drain};
use super::ground::Ground;
use super::hot_drain::claimed;

/// The arm.
pub const REDEEM_DRAIN: Drain = Drain {
    name: "redeem-drain",
    about: "Stampede: one worker empties a full topic of redemptions of one coupon's claimed codes, each with an order",
    fill: |ground, requests| fill(ground, requests).boxed_local(),
};

// User names are shuffled: this is another order than that of the claims.
const CLAIMS: &str = "
    select p.coupon_id, c.user_id, codes.code_key
      from stampede.claims c
      join stampede.coupons p using (coupon_no)
      join stampede.loads l using (coupon_no)
      join stampede.codes on codes.load_id = l.load_id and codes.idx = c.number - l.base
     where c.coupon_no = $1
     order by c.user_id";

async fn fill(ground: &mut Ground, requests: u64) -> Result<Vec<Rows>, BenchError> {
    let (coupon_no, _) = claimed(ground, requests).await?;
    drain(ground, requests).await?;
    let claims: Vec<(String, String, String)> =
        sqlx::query_as(CLAIMS).bind(coupon_no).fetch(&mut ground.connection).try_collect().await?;
    let backlog = Requests::open(&ground.kafka(), &mut ground.connection).await?;
    blocking(move || backlog.fill((0..).zip(claims).map(|(n, claim)| redemption(n, claim)))).await?;
    let count = |rows: &str| format!("select count(*) from stampede.{rows} and coupon_no = {coupon_no}");
    Ok(vec![
        Rows { what: "rows of redemptions", count: count("redemptions where rolled_back_ms is null") },
        Rows { what: "redeemed claims", count: count("claims where state = 3") },
    ])
}

/// Each with an order and an amount of its own.
fn redemption(n: u64, (coupon_id, user_id, code): (String, String, String)) -> CouponRequest {
    CouponRequest {
        kind: kinds::REDEEM.to_owned(),
        coupon_id,
        user_id,
        code: Some(code),
        order_id: Some(format!("order-{n:08}")),
        order_amount: Some(format!("{}.{:02}", 10 + n % 190, n % 100)),
        currency: Some("EUR".to_owned()),
        ..CouponRequest::default()
    }
}
