//! Reads coupons: their definitions, their counters, and the numbers taken ahead of the cursor.

use coupon_core::batch::StockRow;
use coupon_core::coupon::{Definition, Status};
use coupon_core::ids::{CodeNumber, CouponNo};
use coupon_core::interface::StoredCoupon;
use coupon_core::money::{self, Discount, Rate};
use sqlx::postgres::{PgBindIterExt as _, PgRow};
use sqlx::{PgPool, Row as _};

use crate::postgres::LedgerError;
use crate::postgres::rows::{millis, unreadable};

const COUPONS: &str = "
    select c.coupon_id, c.coupon_no, c.status, c.starts_at_ms, c.expires_at_ms, c.claims_per_user,
           c.redemptions_per_user, c.redemptions_per_code, c.redemptions_total, c.hold_seconds, c.lock_seconds,
           c.requires_lock, d.discount ->> 'type', d.discount ->> 'value', d.discount ->> 'currency',
           d.discount ->> 'minimum_order', d.discount ->> 'maximum_discount',
           s.top, s.cursor, s.ahead, s.returned, s.claimed, s.locked, s.redeemed, s.revoked, s.redemptions,
           case when s.ahead > 0 then array(select a.number from stampede.stock_ahead a
                                             where a.coupon_no = c.coupon_no order by a.number) end
      from stampede.coupons c
     cross join lateral (select c.definition -> 'discount' as discount offset 0) d
     cross join lateral (select * from stampede.stock s where s.coupon_no = c.coupon_no offset 0) s
     where c.coupon_id = any ($1)";

/// The coupons that exist.
pub(super) async fn coupons(pool: &PgPool, ids: &[Box<str>]) -> Result<Vec<StoredCoupon>, LedgerError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(COUPONS).bind(ids.iter().map(|id| &**id).bind_iter()).fetch_all(pool).await?;
    rows.iter().map(coupon).collect()
}

fn coupon(row: &PgRow) -> Result<StoredCoupon, LedgerError> {
    let ahead: Option<Vec<i64>> = row.try_get(26)?;
    Ok(StoredCoupon {
        coupon_id: row.try_get(0)?,
        coupon: CouponNo(row.try_get(1)?),
        definition: definition(row)?,
        stock: StockRow {
            top: row.try_get(17)?,
            cursor: row.try_get(18)?,
            ahead: row.try_get(19)?,
            returned: row.try_get(20)?,
            claimed: row.try_get(21)?,
            locked: row.try_get(22)?,
            redeemed: row.try_get(23)?,
            revoked: row.try_get(24)?,
            redemptions: row.try_get(25)?,
        },
        ahead: ahead.unwrap_or_default().into_iter().map(CodeNumber).collect(),
    })
}

fn definition(row: &PgRow) -> Result<Definition, LedgerError> {
    let status: &str = row.try_get(2)?;
    let limit = |column: usize| -> Result<Option<u32>, LedgerError> {
        Ok(row.try_get::<Option<i32>, _>(column)?.map(|limit| u32::try_from(limit).unwrap_or(0)))
    };
    let seconds = |seconds: i32| i64::from(seconds) * 1000;
    Ok(Definition {
        status: Status::parse(status).ok_or_else(|| unreadable("status", status))?,
        starts: millis(row, 3)?,
        expires: millis(row, 4)?,
        claims_per_user: limit(5)?,
        redemptions_per_user: limit(6)?,
        redemptions_per_code: limit(7)?,
        redemptions_total: row.try_get(8)?,
        hold: row.try_get::<Option<i32>, _>(9)?.map(seconds),
        lock: seconds(row.try_get(10)?),
        requires_lock: row.try_get(11)?,
        discount: discount([12, 13, 14, 15, 16].map(|column| row.try_get(column)))?,
    })
}

/// Parses a discount: type, value, currency, minimum order, maximum discount. Without a type there is no discount. An
/// unreadable discount is an error, so no request of its coupon is decided without it.
fn discount(texts: [Result<Option<&str>, sqlx::Error>; 5]) -> Result<Discount, LedgerError> {
    let [kind, value, currency, minimum_order, maximum_discount] = texts;
    let Some(kind) = kind? else { return Ok(Discount::default()) };
    let amount = |field: &str, text: &str| money::parse(text).ok_or_else(|| unreadable(field, text));
    let value = amount("discount value", value?.unwrap_or_default())?;
    let rate = match kind {
        "PERCENTAGE" => Rate::Percentage(value),
        "FIXED_AMOUNT" => Rate::Fixed(value),
        other => return Err(unreadable("discount type", other)),
    };
    Ok(Discount {
        rate,
        currency: currency?.map(Into::into),
        minimum_order: minimum_order?.map(|text| amount("minimum order", text)).transpose()?,
        maximum_discount: maximum_discount?.map(|text| amount("maximum discount", text)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: [Option<&'static str>; 5]) -> Option<Discount> {
        discount(texts.map(Ok)).ok()
    }

    #[test]
    fn a_discount_is_read_as_it_was_defined() {
        assert_eq!(read([None; 5]), Some(Discount::default()), "no discount");
        let percentage = read([Some("PERCENTAGE"), Some("10.00"), None, None, Some("25")]).unwrap();
        assert_eq!(percentage.rate, Rate::Percentage("10".parse().unwrap()));
        assert_eq!(percentage.maximum_discount, Some("25".parse().unwrap()));
        let fixed = read([Some("FIXED_AMOUNT"), Some("5"), Some("EUR"), Some("19.99"), None]).unwrap();
        assert_eq!((fixed.rate, fixed.currency.as_deref()), (Rate::Fixed("5".parse().unwrap()), Some("EUR")));
        assert_eq!(fixed.minimum_order, Some("19.99".parse().unwrap()));
    }

    #[test]
    fn an_unreadable_discount_is_an_error() {
        for texts in [
            [Some("GIFT"), Some("1"), None, None, None],
            [Some("PERCENTAGE"), None, None, None, None],
            [Some("PERCENTAGE"), Some("ten"), None, None, None],
            [Some("PERCENTAGE"), Some("10"), None, Some("-1"), None],
        ] {
            assert_eq!(read(texts), None, "{texts:?}");
        }
    }
}
