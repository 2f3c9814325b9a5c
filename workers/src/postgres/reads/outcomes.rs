//! Reads stored outcomes: for duplicates, and for republication after a takeover. A decision that is rebuilt here has
//! the outcome that was written, to the last digit of an amount; code and details of its request are not stored.

use coupon_core::batch::{Changed, Decision, Verdict};
use coupon_core::ids::{CodeNumber, CouponNo, Millis, Offset, RequestId};
use coupon_core::record::Request;
use coupon_core::words::{Kind, Reason};
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::postgres::LedgerError;
use crate::postgres::rows::{millis, redeemed, redemption, request_id, state_of, unreadable};

/// Claims and redemptions, whose rows are their outcomes. The code of a row is found in the load with the highest base
/// below its number.
const CLAIMS_AND_REDEMPTIONS: &str = "
    select r.identity, r.body, k.coupon_id, r.coupon_no, r.user_id, r.\"offset\", r.ms, r.number, x.code, r.hold_until,
           r.claimed, r.order_id, r.amount, r.discount, r.price, r.currency, r.ms
      from (select c.identity, c.body, c.coupon_no, c.user_id, c.\"offset\", c.claimed_ms as ms, c.number,
                   c.first_hold_ms as hold_until, null::bigint as claimed, null::text as order_id,
                   null::text as amount, null::text as discount, null::text as price, null::text as currency
              from stampede.claims c where c.identity = any ($1)
             union all
            select d.identity, d.body, d.coupon_no, d.user_id, d.\"offset\", d.redeemed_ms, d.number, null,
                   d.claimed_ms, d.order_id, d.order_amount::text, d.discount::text, d.final_price::text, d.currency
              from stampede.redemptions d where d.identity = any ($1)) r
     cross join lateral (select coupon_id from stampede.coupons k where k.coupon_no = r.coupon_no offset 0) k
     cross join lateral (select load_id, base from stampede.loads l
                          where l.coupon_no = r.coupon_no and l.base < r.number order by l.base desc limit 1) l
     cross join lateral (select code from stampede.codes x
                          where x.load_id = l.load_id and x.idx = r.number - l.base offset 0) x";

/// All other outcomes: rejections, and accepted requests, which have no reason.
const OUTCOMES: &str = "
    select o.identity, o.body, coalesce(k.coupon_id, o.target, ''), o.coupon_no, o.user_id, o.\"offset\",
           o.decided_ms, o.kind, o.reason, o.number, x.code, o.claim_state, o.claimed_ms, o.hold_until_ms,
           o.lock_until_ms, o.order_id, o.redemption, o.redemption_body, r.order_id, r.amount, r.discount, r.price,
           r.currency, r.redeemed_ms
      from stampede.outcomes_of($1, $2) o
      left join lateral (select coupon_id from stampede.coupons k where k.coupon_no = o.coupon_no offset 0) k on true
      left join lateral (select load_id, base from stampede.loads l
                          where l.coupon_no = o.coupon_no and l.base < o.number order by l.base desc limit 1) l on true
      left join lateral (select code from stampede.codes x
                          where x.load_id = l.load_id and x.idx = o.number - l.base offset 0) x on true
      left join lateral (select r.order_id, r.order_amount::text as amount, r.discount::text as discount,
                                r.final_price::text as price, r.currency, r.redeemed_ms
                           from stampede.redemptions r where r.identity = o.redemption offset 0) r on true";

/// Every outcome stored under these identities: claims and redemptions, and others of these days (since 1970). The cost
/// does not depend on how many days are kept.
pub(in crate::postgres) async fn outcomes(
    pool: &PgPool,
    identities: &[u128],
    days: &[i32],
) -> Result<Vec<Decision>, LedgerError> {
    if identities.is_empty() {
        return Ok(Vec::new());
    }
    let ids = || identities.iter().map(|identity| Uuid::from_u128(*identity)).bind_iter();
    let (own, others) = tokio::try_join!(
        sqlx::query(CLAIMS_AND_REDEMPTIONS).bind(ids()).fetch_all(pool),
        sqlx::query(OUTCOMES).bind(ids()).bind(days).fetch_all(pool),
    )?;
    own.iter().map(own_row).chain(others.iter().map(outcome)).collect()
}

fn own_row(row: &PgRow) -> Result<Decision, LedgerError> {
    let (number, code) = (CodeNumber(row.try_get(7)?), row.try_get(8)?);
    if row.try_get::<Option<&str>, _>(11)?.is_none() {
        return decision(row, Kind::Claim, Verdict::Claimed { number, code, hold_until: millis(row, 9)? });
    }
    let claimed = millis(row, 10)?;
    let redemption = redemption(row, 11, request_id(row, 0)?)?;
    decision(row, Kind::Redeem, Verdict::Changed(Box::new(redeemed(number, code, claimed, redemption))))
}

fn outcome(row: &PgRow) -> Result<Decision, LedgerError> {
    let kind: &str = row.try_get(7)?;
    let kind = Kind::parse(kind).ok_or_else(|| unreadable("kind", kind))?;
    let verdict = match row.try_get::<Option<&str>, _>(8)? {
        Some(reason) => Verdict::Rejected(Reason::parse(reason).ok_or_else(|| unreadable("reason", reason))?),
        None => Verdict::Changed(Box::new(changed(row)?)),
    };
    decision(row, kind, verdict)
}

fn changed(row: &PgRow) -> Result<Changed, LedgerError> {
    let rolled_back = match row.try_get::<Option<Uuid>, _>(16)? {
        Some(id) => Some(RequestId { identity: id.as_u128(), body: row.try_get(17)? }),
        None => None,
    };
    Ok(Changed {
        number: CodeNumber(row.try_get(9)?),
        code: row.try_get(10)?,
        state: row.try_get::<Option<i16>, _>(11)?.map(state_of).transpose()?,
        claimed: millis(row, 12)?,
        hold_until: millis(row, 13)?,
        lock_until: millis(row, 14)?,
        order: row.try_get(15)?,
        redemption: rolled_back.map(|id| redemption(row, 18, id)).transpose()?,
    })
}

fn decision(row: &PgRow, kind: Kind, verdict: Verdict) -> Result<Decision, LedgerError> {
    Ok(Decision {
        request: Request {
            id: request_id(row, 0)?,
            kind,
            coupon_id: row.try_get(2)?,
            user: row.try_get(4)?,
            code: None,
            details: None,
        },
        coupon: row.try_get::<Option<i64>, _>(3)?.map(CouponNo),
        offset: Offset(row.try_get(5)?),
        decided: Millis(row.try_get(6)?),
        verdict,
    })
}
