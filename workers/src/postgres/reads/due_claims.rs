//! Reads the claims whose deadlines have passed, and the next deadline.

use coupon_core::ids::{CodeNumber, CouponNo, Partition};
use coupon_core::interface::{DueClaims, DueLookup};
use sqlx::{PgPool, Row as _};

use crate::postgres::LedgerError;
use crate::postgres::rows::{claim, millis};

/// One statement, so that no deadline passes between the two results. It returns at least one row, which has the next
/// deadline. The order is the index's: only the requested rows are read, however many claims have a deadline. (`min` is
/// planned to read all of them while the table is empty.) Beside a long snapshot the entries of the deadlines that have
/// fired stay in the index, so the range has a lower bound.
const DUE: &str = "
    select (select n.deadline_ms from stampede.claims n
             where n.partition = $1 and n.deadline_ms is not null and n.deadline_ms > $2
             order by n.deadline_ms limit 1),
           k.coupon_id, x.code, c.coupon_no, c.number, c.identity, c.body, c.user_id, c.claimed_ms, c.state,
           c.hold_until_ms, c.lock_until_ms, c.order_id, c.lapsed_ms
      from (select) one
      left join lateral (select * from stampede.claims c
                          where c.partition = $1 and c.deadline_ms >= $4 and c.deadline_ms <= $2
                          order by c.deadline_ms, c.coupon_no, c.number limit $3) c on true
      left join lateral (select coupon_id from stampede.coupons k where k.coupon_no = c.coupon_no offset 0) k on true
      left join lateral (select load_id, base from stampede.loads l
                          where l.coupon_no = c.coupon_no and l.base < c.number order by l.base desc limit 1) l on true
      left join lateral (select code from stampede.codes x
                          where x.load_id = l.load_id and x.idx = c.number - l.base offset 0) x on true
     order by c.deadline_ms, c.coupon_no, c.number";

/// The claims of a partition whose deadlines have passed, earliest first.
pub(super) async fn due_claims(
    pool: &PgPool,
    partition: Partition,
    until: Option<DueLookup>,
) -> Result<Option<DueClaims>, LedgerError> {
    let Some(until) = until else { return Ok(None) };
    let rows = sqlx::query(DUE)
        .bind(partition.0)
        .bind(until.until.0)
        .bind(i64::try_from(until.limit).unwrap_or(i64::MAX))
        .bind(until.from.0)
        .fetch_all(pool)
        .await?;
    let mut due = DueClaims::default();
    for row in &rows {
        due.next = millis(row, 0)?;
        let Some(number) = row.try_get::<Option<i64>, _>(4)? else { continue };
        let coupon = CouponNo(row.try_get(3)?);
        if let Some(claim) = claim(row, 5, coupon, CodeNumber(number), row.try_get(2)?)? {
            due.claims.push((row.try_get(1)?, claim));
        }
    }
    Ok(Some(due))
}
