//! Reads what operations on codes depend on: codes by name, redemptions by id, and orders paid with a code.

use std::collections::HashSet;

use coupon_core::batch::CodeFlags;
use coupon_core::ids::{CodeNumber, CouponNo, LoadId, RequestId};
use coupon_core::interface::{CodeLookup, OrderLookup, StoredCode, StoredRedemption};
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::postgres::LedgerError;
use crate::postgres::rows::{claim, redemption, request_id};

/// Named codes, each with the requesting user, and the codes of redemptions, without a user. The query goes from the code
/// to its load, and with the load's base to its number; from there to its live claim and its flags. Lapsed claims of the
/// user are searched among the user's few claims of the coupon. (`exists` would allow a hash of all claims instead.)
///
/// The live claim is the first one from its number on: only `claims_live` has that order. With conditions on coupon and
/// number alone, a small table may be read by user, with the coupon as a condition on the second column; that plan is
/// kept, and reads all claims of the coupon for each code. The same holds for orders.
const CODES: &str = "
    select x.code_key, x.code, l.coupon_no, x.load_id, x.idx, l.base, coalesce(m.uses, 0), coalesce(m.revoked, false),
           c.identity, c.body, c.user_id, c.claimed_ms, c.state, c.hold_until_ms, c.lock_until_ms, c.order_id,
           c.lapsed_ms, w.user_id, v.lapsed is not null
      from (select key, user_id from unnest($1::text[], $2::text[]) w (key, user_id)
             union all
            select x.code_key, null
              from unnest($3::uuid[], $4::bigint[]) d (identity, body)
             cross join lateral (select coupon_no, number from stampede.redemptions r
                                  where r.identity = d.identity and r.body = d.body offset 0) r
             cross join lateral (select load_id, base from stampede.loads l
                                  where l.coupon_no = r.coupon_no and l.base < r.number
                                  order by l.base desc limit 1) l
             cross join lateral (select code_key from stampede.codes x
                                  where x.load_id = l.load_id and x.idx = r.number - l.base offset 0) x) w
     cross join lateral (select * from stampede.codes x where x.code_key = w.key offset 0) x
     cross join lateral (select coupon_no, base from stampede.loads l where l.load_id = x.load_id offset 0) l
      left join lateral (select * from stampede.claims c
                          where c.coupon_no = l.coupon_no and c.number >= l.base + x.idx and c.state <> 4
                          order by c.number limit 1) c on c.number = l.base + x.idx
      left join lateral (select uses, revoked from stampede.code_marks m
                          where m.coupon_no = l.coupon_no and m.number = l.base + x.idx offset 0) m on true
      left join lateral (select true as lapsed from stampede.claims v
                          where hashtextextended(v.user_id, 0) = hashtextextended(w.user_id, 0)
                            and v.user_id = w.user_id and v.coupon_no = l.coupon_no and v.number = l.base + x.idx
                            and v.state = 4 and v.lapsed_ms is not null limit 1) v on true";

const REDEMPTIONS: &str = "
    select r.identity, r.body, r.order_id, r.order_amount::text, r.discount::text, r.final_price::text, r.currency,
           r.redeemed_ms, r.coupon_no, r.number, r.user_id, r.rolled_back_ms is not null
      from unnest($1::uuid[], $2::bigint[]) w (identity, body)
     cross join lateral (select * from stampede.redemptions r
                          where r.identity = w.identity and r.body = w.body offset 0) r";

const ORDERS: &str = "
    select w.coupon_no, w.number, w.order_id
      from unnest($1::bigint[], $2::bigint[], $3::text[]) w (coupon_no, number, order_id)
     cross join lateral (select order_id from stampede.redemptions r
                          where r.coupon_no = w.coupon_no and r.number = w.number and r.order_id >= w.order_id
                            and r.rolled_back_ms is null order by r.order_id limit 1) r
     where r.order_id = w.order_id";

/// The codes found, and the (coupon, number, user) of lapsed claims of the requesting users.
pub(super) type NamedCodes = (Vec<StoredCode>, Vec<(CouponNo, CodeNumber, Box<str>)>);

/// The existing codes, each once, and the lapsed claims.
pub(super) async fn codes(
    pool: &PgPool,
    named: &[CodeLookup],
    redemptions: &[RequestId],
) -> Result<NamedCodes, LedgerError> {
    let (mut codes, mut lapsed) = (Vec::new(), Vec::new());
    if named.is_empty() && redemptions.is_empty() {
        return Ok((codes, lapsed));
    }
    let rows = sqlx::query(CODES)
        .bind(named.iter().map(|code| &*code.key).bind_iter())
        .bind(named.iter().map(|code| &*code.user).bind_iter())
        .bind(redemptions.iter().map(|id| Uuid::from_u128(id.identity)).bind_iter())
        .bind(redemptions.iter().map(|id| id.body).bind_iter())
        .fetch_all(pool)
        .await?;
    let mut seen = HashSet::new();
    for row in &rows {
        let code = stored_code(row)?;
        if row.try_get(18)?
            && let Some(base) = code.base
        {
            lapsed.push((code.coupon, CodeNumber(base + code.idx), row.try_get(17)?));
        }
        if seen.insert(code.key.clone()) {
            codes.push(code);
        }
    }
    Ok((codes, lapsed))
}

fn stored_code(row: &PgRow) -> Result<StoredCode, LedgerError> {
    let (code, coupon) = (row.try_get::<Box<str>, _>(1)?, CouponNo(row.try_get(2)?));
    let (idx, base): (i64, Option<i64>) = (row.try_get(4)?, row.try_get(5)?);
    let number = CodeNumber(base.unwrap_or_default() + idx);
    Ok(StoredCode {
        key: row.try_get(0)?,
        coupon,
        load: LoadId(row.try_get(3)?),
        idx,
        base,
        flags: CodeFlags { uses: row.try_get(6)?, revoked: row.try_get(7)? },
        claim: claim(row, 8, coupon, number, &code)?,
        code,
    })
}

/// The redemptions that exist.
pub(super) async fn redemptions(
    pool: &PgPool,
    ids: &[RequestId],
) -> Result<Vec<StoredRedemption>, LedgerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(REDEMPTIONS)
        .bind(ids.iter().map(|id| Uuid::from_u128(id.identity)).bind_iter())
        .bind(ids.iter().map(|id| id.body).bind_iter())
        .fetch_all(pool)
        .await?;
    let stored = |row: &PgRow| {
        Ok(StoredRedemption {
            redemption: redemption(row, 2, request_id(row, 0)?)?,
            coupon: CouponNo(row.try_get(8)?),
            number: CodeNumber(row.try_get(9)?),
            user: row.try_get(10)?,
            rolled_back: row.try_get(11)?,
        })
    };
    rows.iter().map(stored).collect()
}

/// Of these orders, those that were paid with their code and are not rolled back.
pub(super) async fn orders(pool: &PgPool, wanted: &[OrderLookup]) -> Result<Vec<OrderLookup>, LedgerError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64, Box<str>)> = sqlx::query_as(ORDERS)
        .bind(wanted.iter().map(|of| of.coupon.0).bind_iter())
        .bind(wanted.iter().map(|of| of.number.0).bind_iter())
        .bind(wanted.iter().map(|of| &*of.order).bind_iter())
        .fetch_all(pool)
        .await?;
    let paid =
        |(coupon, number, order)| OrderLookup { coupon: CouponNo(coupon), number: CodeNumber(number), order };
    Ok(rows.into_iter().map(paid).collect())
}
