//! Reads codes by number. Code `idx` of a load has the number `base + idx`, and numbers have no gaps. A range of numbers is
//! therefore a range of one or a few loads, found by index: only the requested rows are read, however many codes and
//! loads a coupon has.

use coupon_core::ids::{CodeNumber, CouponNo};
use coupon_core::interface::{CodeEntry, ReadCodes, ReturnedLookup};
use sqlx::PgPool;
use sqlx::postgres::PgBindIterExt as _;

use crate::postgres::{LedgerError, PgReader};

/// The first `count` free numbers above `after` are at most `after + count + |ahead|`, so neither a search nor an order is
/// needed. The first load is the one with the highest base that is not above `after`.
const RANGE: &str = "
    select w.n, l.base + x.idx, x.code
      from unnest($1::bigint[], $2::bigint[], $3::bigint[]) with ordinality w (coupon_no, after, count, n)
     cross join lateral (select w.after + w.count + count(*) as until from stampede.stock_ahead a
                          where a.coupon_no = w.coupon_no and a.number > w.after) r
     cross join lateral (select load_id, base from stampede.loads l
                          where l.coupon_no = w.coupon_no and l.base < r.until
                            and l.base >= (select max(f.base) from stampede.loads f
                                            where f.coupon_no = w.coupon_no and f.base <= w.after) offset 0) l
     cross join lateral (select idx, code from stampede.codes x
                          where x.load_id = l.load_id and x.idx > w.after - l.base and x.idx <= r.until - l.base
                         offset 0) x
     where not exists (select from stampede.stock_ahead a
                        where a.coupon_no = w.coupon_no and a.number = l.base + x.idx offset 0)";

/// The lower bound skips the entries of numbers that were claimed again, which stay in the index beside a long snapshot.
const RETURNED: &str = "
    select w.n, s.number, x.code
      from unnest($1::bigint[], $2::bigint[], $3::bigint[]) with ordinality w (coupon_no, first, count, n)
     cross join lateral (select number from stampede.stock_returned s
                          where s.coupon_no = w.coupon_no and s.number >= w.first
                          order by s.number limit w.count) s
     cross join lateral (select load_id, base from stampede.loads l
                          where l.coupon_no = w.coupon_no and l.base < s.number order by l.base desc limit 1) l
     cross join lateral (select code from stampede.codes x
                          where x.load_id = l.load_id and x.idx = s.number - l.base offset 0) x";

impl PgReader {
    /// The next codes of each coupon, ordered by number; fewer than requested if the stock ends.
    ///
    /// # Errors
    /// [`LedgerError`]: retry.
    pub async fn read_codes(&self, reads: &[ReadCodes]) -> Result<Vec<Vec<CodeEntry>>, LedgerError> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query_as(RANGE)
            .bind(reads.iter().map(|read| read.coupon.0).bind_iter())
            .bind(reads.iter().map(|read| read.after.0).bind_iter())
            .bind(reads.iter().map(|read| limit(read.count)).bind_iter())
            .fetch_all(&self.pool)
            .await?;
        Ok(group_by_request(rows, reads.iter().map(|read| read.count)))
    }
}

/// Returned codes of each coupon, lowest numbers first.
pub(super) async fn returned(
    pool: &PgPool,
    wanted: &[ReturnedLookup],
) -> Result<Vec<(CouponNo, Vec<CodeEntry>)>, LedgerError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as(RETURNED)
        .bind(wanted.iter().map(|of| of.coupon.0).bind_iter())
        .bind(wanted.iter().map(|of| of.from.0).bind_iter())
        .bind(wanted.iter().map(|of| limit(of.limit)).bind_iter())
        .fetch_all(pool)
        .await?;
    let codes = group_by_request(rows, wanted.iter().map(|of| of.limit));
    Ok(wanted.iter().map(|of| of.coupon).zip(codes).collect())
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Groups the rows by request and sorts them by number. Sorting is done here: in the query it would sort whole loads.
fn group_by_request(
    mut rows: Vec<(i64, i64, Box<str>)>,
    limits: impl Iterator<Item = usize>,
) -> Vec<Vec<CodeEntry>> {
    rows.sort_unstable_by_key(|row| (row.0, row.1));
    let mut rows = rows.into_iter().peekable();
    let codes_of = |(request, limit): (i64, usize)| {
        let mut codes = Vec::new();
        while let Some((_, number, code)) = rows.next_if(|row| row.0 == request) {
            if codes.len() < limit {
                codes.push(CodeEntry { number: CodeNumber(number), code });
            }
        }
        codes
    };
    (1..).zip(limits).map(codes_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_its_own_codes_in_order_up_to_its_limit() {
        let rows = vec![(3, 8, "c8".into()), (1, 2, "a2".into()), (3, 7, "c7".into()), (1, 1, "a1".into())];
        let numbers = |codes: &[CodeEntry]| codes.iter().map(|code| code.number.0).collect::<Vec<_>>();
        let results = group_by_request(rows, [1, 5, 5].into_iter());
        assert_eq!(
            results.iter().map(|codes| numbers(codes)).collect::<Vec<_>>(),
            [vec![1], vec![], vec![7, 8]]
        );
    }
}
