//! What Postgres says about one coupon: the only thing that is believed.

use std::collections::HashMap;

use coupon_core::ids::RequestId;
use futures::TryStreamExt as _;
use schemas::kinds;
use sqlx::{PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::errand::Paid;

/// What a request ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It was granted.
    Accepted {
        /// The code.
        code: String,
        /// What the order came to, if the code was redeemed.
        paid: Option<Box<Paid>>,
    },
    /// It was refused, for this reason.
    Rejected(String),
}

/// A claim as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The request that made it.
    pub request: RequestId,
    /// Whose it is, or was.
    pub user: String,
    /// The code.
    pub code: String,
    /// When it was made, in the partition's time.
    pub claimed_ms: i64,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The user has the code.
    Held,
    /// The user has used it.
    Redeemed,
    /// Its hold ended, then.
    Lapsed(i64),
    /// It was given back or withdrawn, as nobody does in a sale.
    Gone,
}

impl Standing {
    fn of(state: i16, lapsed_ms: Option<i64>) -> Self {
        match (state, lapsed_ms) {
            (1 | 2, _) => Self::Held,
            (3, _) => Self::Redeemed,
            (_, Some(at)) => Self::Lapsed(at),
            _ => Self::Gone,
        }
    }
}

/// What the orders came to that were paid for with the coupon's codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// All of them before.
    pub orders: String,
    /// What was taken off.
    pub discounts: String,
}

/// Everything that one coupon's requests ended with.
#[derive(Debug, Default)]
pub struct Truth {
    outcomes: HashMap<RequestId, Vec<Outcome>>,
    /// Every claim that was ever granted.
    pub claims: Vec<Claim>,
    /// What it came to.
    pub money: Money,
}

#[derive(Debug)]
struct Outcome {
    user: String,
    kind: String,
    said: Said,
}

// A code is found by its number: within which load it lies, and where in it.
const CLAIMS: &str = "
    select c.identity, c.body, c.user_id, c.state, c.claimed_ms, c.lapsed_ms, codes.code
      from stampede.claims c
      join stampede.coupons p using (coupon_no)
      join stampede.loads l on l.coupon_no = c.coupon_no and c.number > l.base and c.number <= l.base + l.count
      join stampede.codes on codes.load_id = l.load_id and codes.idx = c.number - l.base
     where p.coupon_id = $1";
const OUTCOMES: &str = "
    select o.identity, o.body, o.user_id, o.kind, o.reason, codes.code
      from stampede.outcomes o
      join stampede.coupons p using (coupon_no)
      left join stampede.loads l
        on l.coupon_no = o.coupon_no and o.number > l.base and o.number <= l.base + l.count
      left join stampede.codes on codes.load_id = l.load_id and codes.idx = o.number - l.base
     where p.coupon_id = $1";
const REDEMPTIONS: &str = "
    select r.identity, r.body, r.user_id, codes.code, r.order_id, r.order_amount::text, r.discount::text,
           r.final_price::text, r.currency
      from stampede.redemptions r
      join stampede.coupons p using (coupon_no)
      join stampede.loads l on l.coupon_no = r.coupon_no and r.number > l.base and r.number <= l.base + l.count
      join stampede.codes on codes.load_id = l.load_id and codes.idx = r.number - l.base
     where p.coupon_id = $1";
const MONEY: &str = "
    select coalesce(sum(order_amount), 0)::text, coalesce(sum(discount), 0)::text
      from stampede.redemptions join stampede.coupons using (coupon_no)
     where coupon_id = $1 and rolled_back_ms is null";

impl Truth {
    /// Reads it.
    ///
    /// # Errors
    /// Whatever Postgres reports.
    pub async fn read(pool: &PgPool, coupon: &str) -> Result<Self, sqlx::Error> {
        let mut truth = Self::default();
        let mut claims = sqlx::query(CLAIMS).bind(coupon).fetch(pool);
        while let Some(row) = claims.try_next().await? {
            truth.add_claim(Claim {
                request: request_id(&row)?,
                user: row.try_get("user_id")?,
                code: row.try_get("code")?,
                claimed_ms: row.try_get("claimed_ms")?,
                standing: Standing::of(row.try_get("state")?, row.try_get("lapsed_ms")?),
            });
        }
        let mut outcomes = sqlx::query(OUTCOMES).bind(coupon).fetch(pool);
        while let Some(row) = outcomes.try_next().await? {
            let said = match row.try_get::<Option<String>, _>("reason")? {
                Some(reason) => Said::Rejected(as_told(reason)),
                None => Said::Accepted { code: row.try_get("code")?, paid: None },
            };
            let kind: String = row.try_get("kind")?;
            truth.add(request_id(&row)?, row.try_get("user_id")?, &kind, said);
        }
        let mut redemptions = sqlx::query(REDEMPTIONS).bind(coupon).fetch(pool);
        while let Some(row) = redemptions.try_next().await? {
            let said = Said::Accepted { code: row.try_get("code")?, paid: Some(Box::new(paid(&row)?)) };
            truth.add(request_id(&row)?, row.try_get("user_id")?, kinds::REDEEM, said);
        }
        let (orders, discounts) = sqlx::query_as(MONEY).bind(coupon).fetch_one(pool).await?;
        truth.money = Money { orders, discounts };
        Ok(truth)
    }

    /// One outcome that is no claim.
    pub fn add(&mut self, request: RequestId, user: &str, kind: &str, said: Said) {
        let outcome = Outcome { user: user.to_owned(), kind: kind.to_owned(), said };
        self.outcomes.entry(request).or_default().push(outcome);
    }

    /// A claim that was granted.
    pub fn add_claim(&mut self, claim: Claim) {
        let said = Said::Accepted { code: claim.code.clone(), paid: None };
        self.add(claim.request, &claim.user, kinds::CLAIM, said);
        self.claims.push(claim);
    }

    /// Whether this, and nothing else, is the outcome of a request of this user.
    #[must_use]
    pub fn says(&self, request: RequestId, user: &str, kind: &str, said: &Said) -> bool {
        let rows = self.outcomes.get(&request).map_or(&[][..], Vec::as_slice);
        matches!(rows, [only] if only.user == user && only.kind == kind && only.said == *said)
    }
}

/// Somebody else's code is told as one that nobody knows.
fn as_told(reason: String) -> String {
    use coupon_core::words::Reason;
    if reason == Reason::NotYourCode.as_str() { Reason::CodeUnknown.as_str().to_owned() } else { reason }
}

fn paid(row: &PgRow) -> Result<Paid, sqlx::Error> {
    Ok(Paid {
        order_id: row.try_get("order_id")?,
        order_amount: row.try_get("order_amount")?,
        discount: row.try_get("discount")?,
        final_price: row.try_get("final_price")?,
        currency: row.try_get("currency")?,
    })
}

fn request_id(row: &PgRow) -> Result<RequestId, sqlx::Error> {
    Ok(RequestId { identity: row.try_get::<Uuid, _>("identity")?.as_u128(), body: row.try_get("body")? })
}
