//! What Postgres says about one coupon: the only thing that is believed.

use std::collections::HashMap;

use coupon_core::ids::RequestId;
use futures::TryStreamExt as _;
use sqlx::{PgPool, Row as _, postgres::PgRow};
use uuid::Uuid;

/// What a request ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// This code.
    Code(String),
    /// Nothing, for this reason.
    Rejected(String),
}

/// Every outcome of one coupon's requests.
#[derive(Debug, Default)]
pub struct Truth {
    outcomes: HashMap<RequestId, Vec<(String, Held)>>,
    /// Codes in the state REDEEMED.
    pub redeemed: u64,
}

// A claim's code is found by its number: within which load it lies, and where in it.
const CLAIMS: &str = "
    select c.identity, c.body, c.user_id, c.state, codes.code
      from stampede.claims c
      join stampede.coupons p using (coupon_no)
      join stampede.loads l on l.coupon_no = c.coupon_no and c.number > l.base and c.number <= l.base + l.count
      join stampede.codes on codes.load_id = l.load_id and codes.idx = c.number - l.base
     where p.coupon_id = $1 and c.state <> 4";
const OUTCOMES: &str = "
    select o.identity, o.body, o.user_id, o.reason
      from stampede.outcomes o join stampede.coupons p using (coupon_no)
     where p.coupon_id = $1";
const REDEEMED: i16 = 3;

impl Truth {
    /// Reads it.
    ///
    /// # Errors
    /// Whatever Postgres reports.
    pub async fn read(pool: &PgPool, coupon: &str) -> Result<Self, sqlx::Error> {
        let mut truth = Self::default();
        let mut claims = sqlx::query(CLAIMS).bind(coupon).fetch(pool);
        while let Some(row) = claims.try_next().await? {
            truth.redeemed += u64::from(row.try_get::<i16, _>("state")? == REDEEMED);
            truth.add(request_id(&row)?, row.try_get("user_id")?, Held::Code(row.try_get("code")?));
        }
        let mut outcomes = sqlx::query(OUTCOMES).bind(coupon).fetch(pool);
        while let Some(row) = outcomes.try_next().await? {
            truth.add(request_id(&row)?, row.try_get("user_id")?, Held::Rejected(row.try_get("reason")?));
        }
        Ok(truth)
    }

    /// One row.
    pub fn add(&mut self, request: RequestId, user: &str, held: Held) {
        self.outcomes.entry(request).or_default().push((user.to_owned(), held));
    }

    /// Whether this, and nothing else, is the outcome of a request of this user.
    #[must_use]
    pub fn says(&self, request: RequestId, user: &str, held: &Held) -> bool {
        self.outcomes
            .get(&request)
            .is_some_and(|rows| matches!(&rows[..], [(by, is)] if by == user && is == held))
    }

    /// Every row.
    pub fn all(&self) -> impl Iterator<Item = (RequestId, &str, &Held)> {
        self.outcomes
            .iter()
            .flat_map(|(request, rows)| rows.iter().map(|(user, held)| (*request, user.as_str(), held)))
    }
}

fn request_id(row: &PgRow) -> Result<RequestId, sqlx::Error> {
    Ok(RequestId { identity: row.try_get::<Uuid, _>("identity")?.as_u128(), body: row.try_get("body")? })
}
