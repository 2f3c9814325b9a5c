//! Reading what a batch mentions and memory lacks: one query for each kind of thing, all at once.
//!
//! Every query goes from the asked-for keys to the rows, never the other way round. A subquery that refers to a key
//! and cannot be merged into the rest (`offset 0`, an aggregate) leaves the planner no other order, however small it
//! believes a table to be.

use coupon_core::batch::{Decision, StockRow, Verdict};
use coupon_core::coupon::{Definition, Status};
use coupon_core::effect::{Answers, LiveClaims, LoadedCoupon, LoadedLoad, UsersOf, Wants};
use coupon_core::ids::{CodeNumber, CouponNo, LoadId, Millis, Offset, RequestId};
use coupon_core::vocabulary::{Kind, Reason};
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use super::{LedgerError, PgReader};

const COUPONS: &str = "
    select c.coupon_id, c.coupon_no, c.status, c.starts_at_ms, c.expires_at_ms, c.claims_per_user,
           s.top, s.cursor, s.ahead, s.returned, s.claimed,
           case when s.ahead > 0 then array(select a.number from stampede.stock_ahead a
                                             where a.coupon_no = c.coupon_no order by a.number) end
      from stampede.coupons c
     cross join lateral (select * from stampede.stock s where s.coupon_no = c.coupon_no offset 0) s
     where c.coupon_id = any ($1)";

const LOADS: &str = "
    select load_id, coupon_no, count, state = 'sealed' from stampede.loads where load_id = any ($1)";

/// `state + 0`: a condition that implies the predicate of `claims_live` would let the planner walk all claims of
/// the coupon with that index instead of looking up the user's few.
const USERS: &str = "
    select w.coupon_no, w.user_id, n.count
      from unnest($1::bigint[], $2::text[]) w (coupon_no, user_id)
     cross join lateral (select count(*) from stampede.claims c
                          where c.user_id = w.user_id and c.coupon_no = w.coupon_no and c.state + 0 <> 4) n
     where n.count > 0";

/// A claim's code: the load with the highest base below its number, and the code at the distance.
const CLAIMS: &str = "
    select c.identity, c.body, k.coupon_id, c.coupon_no, c.user_id, c.\"offset\", c.claimed_ms, c.number, x.code
      from stampede.claims c
     cross join lateral (select coupon_id from stampede.coupons k where k.coupon_no = c.coupon_no offset 0) k
     cross join lateral (select load_id, base from stampede.loads l
                          where l.coupon_no = c.coupon_no and l.base < c.number order by l.base desc limit 1) l
     cross join lateral (select code from stampede.codes x
                          where x.load_id = l.load_id and x.idx = c.number - l.base offset 0) x
     where c.identity = any ($1)";

const OUTCOMES: &str = "
    select o.identity, o.body, coalesce(k.coupon_id, o.target, ''), o.coupon_no, o.user_id, o.\"offset\",
           o.decided_ms, o.kind, o.reason
      from stampede.outcomes o
      left join lateral (select coupon_id from stampede.coupons k where k.coupon_no = o.coupon_no offset 0) k on true
     where o.identity = any ($1)";

impl PgReader {
    /// Reads what is wanted; the parts are read side by side.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing is known then, ask again.
    pub async fn load(&self, wants: &Wants) -> Result<Answers, LedgerError> {
        let (coupons, decided, loads, users, returned) = tokio::try_join!(
            coupons(&self.pool, &wants.coupons),
            decided(&self.pool, &wants.decided),
            loads(&self.pool, &wants.loads),
            users(&self.pool, &wants.users),
            super::codes::returned(&self.pool, &wants.returned),
        )?;
        Ok(Answers { coupons, decided, loads, users, returned })
    }
}

async fn coupons(pool: &PgPool, ids: &[Box<str>]) -> Result<Vec<LoadedCoupon>, LedgerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(COUPONS).bind(ids.iter().map(|id| &**id).bind_iter()).fetch_all(pool).await?;
    rows.iter().map(coupon).collect()
}

fn coupon(row: &PgRow) -> Result<LoadedCoupon, LedgerError> {
    let status: &str = row.try_get(2)?;
    let limit: Option<i32> = row.try_get(5)?;
    let ahead: Option<Vec<i64>> = row.try_get(11)?;
    Ok(LoadedCoupon {
        coupon_id: row.try_get(0)?,
        coupon: CouponNo(row.try_get(1)?),
        definition: Definition {
            status: Status::parse(status).ok_or_else(|| unreadable("status", status))?,
            starts: row.try_get::<Option<i64>, _>(3)?.map(Millis),
            expires: row.try_get::<Option<i64>, _>(4)?.map(Millis),
            claims_per_user: limit.map(|limit| u32::try_from(limit).unwrap_or(0)),
        },
        stock: StockRow {
            top: row.try_get(6)?,
            cursor: row.try_get(7)?,
            ahead: row.try_get(8)?,
            returned: row.try_get(9)?,
            claimed: row.try_get(10)?,
        },
        ahead: ahead.unwrap_or_default().into_iter().map(CodeNumber).collect(),
    })
}

async fn loads(pool: &PgPool, ids: &[LoadId]) -> Result<Vec<LoadedLoad>, LedgerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64, i64, bool)> =
        sqlx::query_as(LOADS).bind(ids.iter().map(|id| id.0).bind_iter()).fetch_all(pool).await?;
    let loaded = |(load, coupon, count, sealed)| LoadedLoad {
        load: LoadId(load),
        coupon: CouponNo(coupon),
        count,
        sealed,
    };
    Ok(rows.into_iter().map(loaded).collect())
}

async fn users(pool: &PgPool, wanted: &[UsersOf]) -> Result<Vec<LiveClaims>, LedgerError> {
    let pairs = || wanted.iter().flat_map(|of| of.users.iter().map(|user| (of.coupon.0, &**user)));
    if pairs().next().is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(USERS)
        .bind(pairs().map(|pair| pair.0).bind_iter())
        .bind(pairs().map(|pair| pair.1).bind_iter())
        .fetch_all(pool)
        .await?;
    let live = |row: &PgRow| {
        Ok(LiveClaims {
            coupon: CouponNo(row.try_get(0)?),
            user: row.try_get(1)?,
            count: u32::try_from(row.try_get::<i64, _>(2)?).unwrap_or(u32::MAX),
        })
    };
    rows.iter().map(live).collect()
}

/// Every outcome stored under these identities: accepted claims, and all the rest.
pub(super) async fn decided(pool: &PgPool, identities: &[u128]) -> Result<Vec<Decision>, LedgerError> {
    if identities.is_empty() {
        return Ok(Vec::new());
    }
    let ids = || identities.iter().map(|identity| Uuid::from_u128(*identity)).bind_iter();
    let (claims, outcomes) = tokio::try_join!(
        sqlx::query(CLAIMS).bind(ids()).fetch_all(pool),
        sqlx::query(OUTCOMES).bind(ids()).fetch_all(pool),
    )?;
    claims.iter().map(claim).chain(outcomes.iter().map(outcome)).collect()
}

fn claim(row: &PgRow) -> Result<Decision, LedgerError> {
    let number = CodeNumber(row.try_get(7)?);
    decision(row, Kind::Claim, Verdict::Claimed { number, code: row.try_get(8)? })
}

fn outcome(row: &PgRow) -> Result<Decision, LedgerError> {
    let (kind, reason): (&str, &str) = (row.try_get(7)?, row.try_get(8)?);
    // Another word in its place would tell a request two different outcomes.
    let kind = Kind::parse(kind).ok_or_else(|| unreadable("kind", kind))?;
    let reason = Reason::parse(reason).ok_or_else(|| unreadable("reason", reason))?;
    decision(row, kind, Verdict::Rejected(reason))
}

fn decision(row: &PgRow, kind: Kind, verdict: Verdict) -> Result<Decision, LedgerError> {
    Ok(Decision {
        id: RequestId { identity: row.try_get::<Uuid, _>(0)?.as_u128(), body: row.try_get(1)? },
        kind,
        coupon_id: row.try_get(2)?,
        coupon: row.try_get::<Option<i64>, _>(3)?.map(CouponNo),
        user: row.try_get(4)?,
        offset: Offset(row.try_get(5)?),
        decided: Millis(row.try_get(6)?),
        verdict,
    })
}

fn unreadable(column: &str, word: &str) -> LedgerError {
    LedgerError::Unreadable(format!("{column} {word:?}"))
}
