//! The rows of one coupon in Postgres: every outcome, claim and redemption, read once all requests are decided.

use std::collections::HashMap;

use coupon_core::ids::RequestId;
use coupon_core::words::Reason;
use futures::TryStreamExt as _;
use schemas::kinds;
use sqlx::{PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::users::request_flow::Payment;

/// The stored outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredOutcome {
    /// Accepted.
    Accepted {
        /// The code.
        code: String,
        /// What the order comes to, if the code was redeemed.
        payment: Option<Box<Payment>>,
    },
    /// Rejected for this reason.
    Rejected(String),
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The request that made it.
    pub request: RequestId,
    /// The user who made it.
    pub user: String,
    /// The code.
    pub code: String,
    /// When it was made, in the partition's time.
    pub claimed_ms: i64,
    /// Its state.
    pub state: ClaimState,
}

/// The state of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The user has the code.
    Held,
    /// The user has redeemed the code.
    Redeemed,
    /// Its hold ended at this time.
    Lapsed(i64),
    /// Returned or revoked, which does not happen in a sale.
    Ended,
}

impl ClaimState {
    const fn new(state: i16, lapsed_ms: Option<i64>) -> Self {
        match (state, lapsed_ms) {
            (1 | 2, _) => Self::Held,
            (3, _) => Self::Redeemed,
            (_, Some(at)) => Self::Lapsed(at),
            _ => Self::Ended,
        }
    }
}

/// The sums of all orders that were paid for with the coupon's codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// Order amounts before the discounts.
    pub orders: String,
    /// Discounts.
    pub discounts: String,
}

/// All outcomes of one coupon's requests.
#[derive(Debug, Default)]
pub struct Snapshot {
    outcomes: HashMap<RequestId, Vec<Outcome>>,
    /// Every accepted claim.
    pub claims: Vec<Claim>,
    /// The sums of the orders.
    pub money: Money,
}

#[derive(Debug)]
struct Outcome {
    user: String,
    kind: String,
    stored: StoredOutcome,
}

// A code is found by its number: by the load that contains it, and its position there.
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

impl Snapshot {
    /// Reads all rows of a coupon.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn read(pool: &PgPool, coupon: &str) -> Result<Self, sqlx::Error> {
        let mut snapshot = Self::default();
        let mut claims = sqlx::query(CLAIMS).bind(coupon).fetch(pool);
        while let Some(row) = claims.try_next().await? {
            snapshot.add_claim(Claim {
                request: request_id(&row)?,
                user: row.try_get("user_id")?,
                code: row.try_get("code")?,
                claimed_ms: row.try_get("claimed_ms")?,
                state: ClaimState::new(row.try_get("state")?, row.try_get("lapsed_ms")?),
            });
        }
        let mut outcomes = sqlx::query(OUTCOMES).bind(coupon).fetch(pool);
        while let Some(row) = outcomes.try_next().await? {
            let stored = match row.try_get::<Option<String>, _>("reason")? {
                Some(reason) => StoredOutcome::Rejected(public_reason(reason)),
                None => StoredOutcome::Accepted { code: row.try_get("code")?, payment: None },
            };
            let kind: String = row.try_get("kind")?;
            snapshot.add(request_id(&row)?, row.try_get("user_id")?, &kind, stored);
        }
        let mut redemptions = sqlx::query(REDEMPTIONS).bind(coupon).fetch(pool);
        while let Some(row) = redemptions.try_next().await? {
            let payment = Some(Box::new(payment(&row)?));
            let stored = StoredOutcome::Accepted { code: row.try_get("code")?, payment };
            snapshot.add(request_id(&row)?, row.try_get("user_id")?, kinds::REDEEM, stored);
        }
        let (orders, discounts) = sqlx::query_as(MONEY).bind(coupon).fetch_one(pool).await?;
        snapshot.money = Money { orders, discounts };
        Ok(snapshot)
    }

    /// Adds the outcome of a request that is not an accepted claim.
    pub fn add(&mut self, request: RequestId, user: &str, kind: &str, stored: StoredOutcome) {
        let outcome = Outcome { user: user.to_owned(), kind: kind.to_owned(), stored };
        self.outcomes.entry(request).or_default().push(outcome);
    }

    /// Adds an accepted claim.
    pub fn add_claim(&mut self, claim: Claim) {
        let stored = StoredOutcome::Accepted { code: claim.code.clone(), payment: None };
        self.add(claim.request, &claim.user, kinds::CLAIM, stored);
        self.claims.push(claim);
    }

    /// Whether the request has exactly one outcome, and it is this one.
    #[must_use]
    pub fn confirms(&self, request: RequestId, user: &str, kind: &str, stored: &StoredOutcome) -> bool {
        let rows = self.outcomes.get(&request).map_or(&[][..], Vec::as_slice);
        matches!(rows, [only] if only.user == user && only.kind == kind && only.stored == *stored)
    }
}

/// Another user's code is reported as an unknown one.
fn public_reason(reason: String) -> String {
    if reason == Reason::NotYourCode.as_str() { Reason::CodeUnknown.as_str().to_owned() } else { reason }
}

fn payment(row: &PgRow) -> Result<Payment, sqlx::Error> {
    Ok(Payment {
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
