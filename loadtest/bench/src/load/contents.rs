//! What a topic contains before a worker starts: claims of one or many coupons, or redemptions.

use futures::TryStreamExt as _;
use schemas::{CouponRequest, kinds};
use sqlx::Executor as _;

use crate::BenchError;
use crate::host::environment::Environment;
use crate::load::backlog::{Coupon, Requests, claim};
use crate::load::worker_run::{Rows, blocking, drain, stocked};

/// Bound on the codes of a coupon, per claim: a small run must not wait for a million codes.
const MOST_CODES_PER_CLAIM: u64 = 100;

/// The contents of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Claims of one coupon that has a code for each.
    Hot,
    /// Claims of one coupon that has codes for 0.2 % of them.
    SoldOut,
    /// Claims of so many coupons in rotation, with a code for each claim.
    InTurn(u64),
    /// Claims of coupons with so many codes each, one coupon after the other.
    Stock(u64),
    /// Redemptions of claimed codes of one coupon.
    Redemptions,
    /// As `Hot`, with an Idempotency-Key for each claim, and so many days of outcomes, which are empty.
    Keyed(u32),
}

/// Days of outcomes that are created in one transaction.
const DAYS_PER_CALL: u32 = 28;

impl Contents {
    /// How many coupons, and codes for each.
    fn stock(self, requests: u64) -> (u64, u64) {
        match self {
            Self::Hot | Self::Redemptions | Self::Keyed(_) => (1, requests),
            Self::SoldOut => (1, requests.div_ceil(500)),
            Self::InTurn(coupons) => {
                let coupons = coupons.min(requests);
                (coupons, requests.div_ceil(coupons))
            }
            Self::Stock(codes) => {
                let codes = codes.min(requests * MOST_CODES_PER_CLAIM);
                (requests.div_ceil(codes), codes)
            }
        }
    }

    /// Which coupon claim number `n` is for.
    const fn coupon_of(self, n: u64, coupons: u64, codes_each: u64) -> u64 {
        match self {
            Self::Hot | Self::SoldOut | Self::Redemptions | Self::Keyed(_) => 0,
            Self::InTurn(_) => n % coupons,
            Self::Stock(_) => n / codes_each,
        }
    }

    /// Fills the topic, and returns the rows that must exist afterwards. No worker runs then.
    ///
    /// # Errors
    /// When the coupons cannot be prepared or the topic not be filled.
    pub async fn fill(self, env: &mut Environment, requests: u64) -> Result<Vec<Rows>, BenchError> {
        let (count, codes_each) = self.stock(requests);
        let name = env.name();
        let ids = (0..count).map(|n| format!("{name}-{n}")).collect();
        let coupons = stocked(env, ids, codes_each).await?;
        env.stop_workers().await?;
        if let Self::Keyed(days) = self {
            create_days(env, days).await?;
        }
        let backlog = Requests::open(&env.kafka(), &mut env.connection).await?;
        let of_all = coupons.clone();
        blocking(move || {
            let coupon = |n| self.coupon_of(n, count, codes_each);
            let id =
                |n| usize::try_from(coupon(n)).ok().and_then(|at| of_all.get(at)).map(|coupon| &*coupon.id);
            let claims = (0..requests).filter_map(|n| Some(claim(id(n)?, n)));
            if matches!(self, Self::Keyed(_)) { backlog.fill_keyed(claims) } else { backlog.fill(claims) }
        })
        .await?;
        if self == Self::Redemptions {
            return redemptions(env, &coupons, requests).await;
        }
        let won = requests.min(count * codes_each);
        let outcomes = "select count(*) from stampede.outcomes where reason = 'sold_out'";
        Ok(vec![
            Rows {
                what: "rows of claims",
                wanted: won,
                count: "select count(*) from stampede.claims".to_owned(),
            },
            Rows { what: "rows of rejected claims", wanted: requests - won, count: outcomes.to_owned() },
        ])
    }
}

/// Creates the tables of this many days, until today.
async fn create_days(env: &mut Environment, days: u32) -> Result<(), BenchError> {
    let create = "select stampede.ensure_outcome_days((now() at time zone 'UTC')::date - $1::int, $2::int)";
    for before in (0..days).step_by(DAYS_PER_CALL as usize) {
        let count = DAYS_PER_CALL.min(days - before);
        let (first, count) = ((before + count - 1).cast_signed(), count.cast_signed());
        sqlx::query(create).bind(first).bind(count).execute(&mut env.connection).await?;
    }
    Ok(())
}

// User names are shuffled: this is another order than that of the claims.
const CLAIMS: &str = "
    select p.coupon_id, c.user_id, codes.code_key
      from stampede.claims c
      join stampede.coupons p using (coupon_no)
      join stampede.loads l using (coupon_no)
      join stampede.codes on codes.load_id = l.load_id and codes.idx = c.number - l.base
     where c.coupon_no = $1
     order by c.user_id";

/// The claims are real ones, decided by the worker beforehand. The redemptions come in another order than the claims, as
/// shoppers finish in another order than they began: hardly two neighbours of a batch lie on one page.
async fn redemptions(
    env: &mut Environment,
    coupons: &[Coupon],
    requests: u64,
) -> Result<Vec<Rows>, BenchError> {
    drain(env, requests).await?;
    // Planned for the tables as they are: for those of a moment ago, which were empty, it would run for hours.
    env.connection.execute("analyze stampede.claims, stampede.codes, stampede.loads").await?;
    let coupon_no = coupons.first().map_or(0, |coupon| coupon.number);
    let claims: Vec<(String, String, String)> =
        sqlx::query_as(CLAIMS).bind(coupon_no).fetch(&mut env.connection).try_collect().await?;
    let backlog = Requests::open(&env.kafka(), &mut env.connection).await?;
    blocking(move || backlog.fill((0..).zip(claims).map(|(n, claim)| redemption(n, claim)))).await?;
    let rows = |what, rows: &str| Rows {
        what,
        wanted: requests,
        count: format!("select count(*) from stampede.{rows}"),
    };
    Ok(vec![
        rows("rows of redemptions", "redemptions where rolled_back_ms is null"),
        rows("redeemed claims", "claims where state = 3"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_coupon_gets_more_claims_than_it_has_codes_except_the_one_that_sells_out() {
        let all = [Contents::Hot, Contents::InTurn(7), Contents::Stock(1_000), Contents::Stock(64)];
        for (contents, requests) in all.into_iter().flat_map(|one| [1, 999, 1_000, 20_001].map(|n| (one, n)))
        {
            let (coupons, codes_each) = contents.stock(requests);
            let mut claims_of = vec![0; usize::try_from(coupons).expect("few")];
            for n in 0..requests {
                claims_of[usize::try_from(contents.coupon_of(n, coupons, codes_each)).expect("few")] += 1;
            }
            assert!(
                claims_of.iter().all(|claims_of| (1..=codes_each).contains(claims_of)),
                "{contents:?} {requests} {claims_of:?}"
            );
        }
        assert_eq!(Contents::SoldOut.stock(1_000_000), (1, 2_000));
        assert_eq!(Contents::Stock(1_000_000).stock(2_000), (1, 200_000));
    }
}
