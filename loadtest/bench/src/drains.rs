//! The arms of the frame [`Drain`]: what lies in the topic of each.

use futures::TryStreamExt as _;
use schemas::{CouponRequest, kinds};
use sqlx::Executor as _;

use super::BenchError;
use super::backlog::{Coupon, Requests, claim};
use super::drain::{Drain, Rows, blocking, drain, stocked};
use super::ground::Ground;

/// Enough to tell what a claim costs.
const FOR_COST: u64 = 200_000;
/// A coupon gets no more codes than so many times the claims: a small run shall not wait for a million codes.
const MOST_CODES_PER_CLAIM: u64 = 100;

/// What lies in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Claims of one coupon that has a code for each.
    Hot,
    /// Claims of one coupon that has codes for 0.2 % of them.
    SoldOut,
    /// Claims of so many coupons in turn, with a code for each claim.
    InTurn(u64),
    /// Claims of coupons with so many codes each, one coupon after the other.
    Stock(u64),
    /// Redemptions of claimed codes of one coupon.
    Redemptions,
}

const fn claims(name: &'static str, about: &'static str, backlog: Backlog, at_most: u64) -> Drain {
    Drain { name, about, backlog, at_most, partitions: 1 }
}

/// One hot coupon.
pub const HOT_DRAIN: Drain = claims(
    "hot-drain",
    "Stampede: one worker empties a full topic of one coupon's claims: each decided in order, durable, and told",
    Backlog::Hot,
    u64::MAX,
);
/// One hot coupon in a world as it comes.
pub const HOT_DRAIN_8: Drain = Drain {
    partitions: 8,
    ..claims(
        "hot-drain-8",
        "as hot-drain, but the worker owns eight partitions, as many as a first start makes: seven are empty",
        Backlog::Hot,
        u64::MAX,
    )
};
/// One hot coupon that is sold out at once.
pub const SOLD_OUT_DRAIN: Drain = claims(
    "sold-out-drain",
    "the same with codes for 0.2 % of the claims: every other one is told sold out, durably",
    Backlog::SoldOut,
    u64::MAX,
);
/// No hot coupon.
pub const UNIFORM_DRAIN: Drain = claims(
    "uniform-drain",
    "the same with 10,000 coupons in turn, in the same partition",
    Backlog::InTurn(10_000),
    u64::MAX,
);
/// Redemptions.
pub const REDEEM_DRAIN: Drain = claims(
    "redeem-drain",
    "Stampede: one worker empties a full topic of redemptions of one coupon's claimed codes, each with an order",
    Backlog::Redemptions,
    u64::MAX,
);
/// Few coupons.
pub const COUPONS_10: Drain = coupons("coupons-10", 10);
/// Some coupons.
pub const COUPONS_100: Drain = coupons("coupons-100", 100);
/// Many coupons.
pub const COUPONS_1000: Drain = coupons("coupons-1000", 1_000);
/// Little stock.
pub const STOCK_1000: Drain = stock("stock-1000", 1_000);
/// Some stock.
pub const STOCK_10000: Drain = stock("stock-10000", 10_000);
/// Much stock.
pub const STOCK_100000: Drain = stock("stock-100000", 100_000);
/// A great stock.
pub const STOCK_1000000: Drain = stock("stock-1000000", 1_000_000);

const fn coupons(name: &'static str, coupons: u64) -> Drain {
    let about = "as hot-drain, with so many coupons in turn: what a claim costs against their number";
    claims(name, about, Backlog::InTurn(coupons), FOR_COST)
}

const fn stock(name: &'static str, codes: u64) -> Drain {
    let about = "as hot-drain, with coupons of so many codes one after the other: what a claim costs against the stock";
    claims(name, about, Backlog::Stock(codes), FOR_COST)
}

impl Backlog {
    /// How many coupons, and codes for each.
    fn stock(self, requests: u64) -> (u64, u64) {
        match self {
            Self::Hot | Self::Redemptions => (1, requests),
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
            Self::Hot | Self::SoldOut | Self::Redemptions => 0,
            Self::InTurn(_) => n % coupons,
            Self::Stock(_) => n / codes_each,
        }
    }

    /// Fills the topic; no worker runs when it is done. Answers what there must be afterwards.
    ///
    /// # Errors
    /// When something does not come to pass.
    pub async fn fill(self, ground: &mut Ground, requests: u64) -> Result<Vec<Rows>, BenchError> {
        let (count, codes_each) = self.stock(requests);
        let name = ground.name();
        let ids = (0..count).map(|n| format!("{name}-{n}")).collect();
        let coupons = stocked(ground, ids, codes_each).await?;
        ground.stop_workers().await?;
        let backlog = Requests::open(&ground.kafka(), &mut ground.connection).await?;
        let of_all = coupons.clone();
        blocking(move || {
            let coupon = |n| self.coupon_of(n, count, codes_each);
            let id =
                |n| usize::try_from(coupon(n)).ok().and_then(|at| of_all.get(at)).map(|coupon| &*coupon.id);
            backlog.fill((0..requests).filter_map(|n| Some(claim(id(n)?, n))))
        })
        .await?;
        if self == Self::Redemptions {
            return redemptions(ground, &coupons, requests).await;
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
    ground: &mut Ground,
    coupons: &[Coupon],
    requests: u64,
) -> Result<Vec<Rows>, BenchError> {
    drain(ground, requests).await?;
    // Planned for the tables as they are: for those of a moment ago, which were empty, it would run for hours.
    ground.connection.execute("analyze stampede.claims, stampede.codes, stampede.loads").await?;
    let coupon_no = coupons.first().map_or(0, |coupon| coupon.number);
    let claims: Vec<(String, String, String)> =
        sqlx::query_as(CLAIMS).bind(coupon_no).fetch(&mut ground.connection).try_collect().await?;
    let backlog = Requests::open(&ground.kafka(), &mut ground.connection).await?;
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
    fn no_coupon_is_asked_for_more_codes_than_it_has_but_the_one_that_sells_out() {
        let all = [Backlog::Hot, Backlog::InTurn(7), Backlog::Stock(1_000), Backlog::Stock(64)];
        for (backlog, requests) in all.into_iter().flat_map(|one| [1, 999, 1_000, 20_001].map(|n| (one, n))) {
            let (coupons, codes_each) = backlog.stock(requests);
            let mut asked = vec![0; usize::try_from(coupons).expect("few")];
            for n in 0..requests {
                asked[usize::try_from(backlog.coupon_of(n, coupons, codes_each)).expect("few")] += 1;
            }
            assert!(
                asked.iter().all(|asked| (1..=codes_each).contains(asked)),
                "{backlog:?} {requests} {asked:?}"
            );
        }
        assert_eq!(Backlog::SoldOut.stock(1_000_000), (1, 2_000));
        assert_eq!(Backlog::Stock(1_000_000).stock(2_000), (1, 200_000));
    }
}
