//! Everything in Postgres but the outcomes: partitions, coupons, loads, stock, and what is still to be told.

use coupon_core::ids::RequestId;
use futures::TryStreamExt as _;
use schemas::topics::{DEAD_LETTERS, EVENTS};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::codes::Codes;
use super::ledger::{Coupon, Ledger, Load, Mark, Position, Rules, Stock};
use super::money::Discount;

pub(super) async fn read(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    read_partitions(connection, ledger).await?;
    read_coupons(connection, ledger).await?;
    read_stock(connection, ledger).await?;
    read_outbox(connection, ledger).await
}

pub(super) async fn rows_of<T, C: Default + Extend<T>>(
    connection: &mut PgConnection,
    sql: &'static str,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<C, sqlx::Error> {
    sqlx::query(sql).fetch(connection).and_then(async |row| read(&row)).try_collect().await
}

async fn read_partitions(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    ledger.recorded = rows_of(connection, "select name, partitions from stampede.topics", |row| {
        Ok((row.try_get(0)?, row.try_get(1)?))
    })
    .await?;
    let sql =
        "select partition, next_offset, last_offset, next_emit_seq, emitted_seq, time_ms, epoch, nonce, write_no
                 from stampede.partitions";
    ledger.partitions = rows_of(connection, sql, |row| {
        let position = Position {
            epoch: row.try_get(6)?,
            nonce: row.try_get::<Option<uuid::Uuid>, _>(7)?.map(|nonce| nonce.as_u128()),
            write_no: row.try_get(8)?,
            next_offset: row.try_get(1)?,
            last_offset: row.try_get(2)?,
            next_emit_seq: row.try_get(3)?,
            emitted_seq: row.try_get(4)?,
            time_ms: row.try_get(5)?,
        };
        Ok((row.try_get(0)?, position))
    })
    .await?;
    Ok(())
}

async fn read_coupons(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select c.coupon_no, coupon_id, partition, top, cursor, ahead, returned, claimed, locked, redeemed,
                      revoked, redemptions, claims_per_user::bigint, redemptions_per_user::bigint,
                      redemptions_per_code::bigint, redemptions_total, hold_seconds::bigint * 1000,
                      lock_seconds::bigint * 1000, requires_lock, definition ->> 'discount'
                 from stampede.coupons c left join stampede.stock s on s.coupon_no = c.coupon_no";
    ledger.coupons = rows_of(connection, sql, |row| {
        let stock = match row.try_get(3)? {
            None => None,
            Some(top) => Some(Stock {
                top,
                cursor: row.try_get(4)?,
                ahead: row.try_get(5)?,
                returned: row.try_get(6)?,
                live: [row.try_get(7)?, row.try_get(8)?, row.try_get(9)?, row.try_get(10)?],
                redemptions: row.try_get(11)?,
            }),
        };
        let discount: Option<&str> = row.try_get(19)?;
        let rules = Rules {
            claims_per_user: row.try_get(12)?,
            redemptions_per_user: row.try_get(13)?,
            redemptions_per_code: row.try_get(14)?,
            redemptions_total: row.try_get(15)?,
            hold_ms: row.try_get(16)?,
            lock_ms: row.try_get(17)?,
            requires_lock: row.try_get(18)?,
            discount: discount.and_then(Discount::read),
        };
        let id = row.try_get::<&str, _>(1)?.into();
        Ok((row.try_get(0)?, Coupon { id, partition: row.try_get(2)?, rules, stock }))
    })
    .await?;
    ledger.coupon_nos = ledger.coupons.iter().map(|(no, coupon)| (coupon.id.clone(), *no)).collect();
    Ok(())
}

async fn read_stock(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select load_id, coupon_no, count, base, state = 'open' from stampede.loads order by coupon_no, base";
    ledger.loads = rows_of(connection, sql, |row| {
        let (load, coupon, count) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Load { load, coupon, count, base: row.try_get(3)?, open: row.try_get(4)? })
    })
    .await?;
    ledger.codes = Codes::read(connection, &ledger.loads).await?;
    let pair = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    ledger.ahead = rows_of(connection, "select coupon_no, number from stampede.stock_ahead", pair).await?;
    ledger.returned =
        rows_of(connection, "select coupon_no, number from stampede.stock_returned", pair).await?;
    let sql = "select coupon_no, number, uses, revoked from stampede.code_marks";
    ledger.marks = rows_of(connection, sql, |row| {
        let mark = Mark { uses: row.try_get(2)?, revoked: row.try_get(3)? };
        Ok(((row.try_get(0)?, row.try_get(1)?), mark))
    })
    .await?;
    Ok(())
}

async fn read_outbox(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql = "select ids, bodies, partition
                 from stampede.outbox o join stampede.partitions p using (partition) where o.seq > p.emitted_seq";
    let mut rows = sqlx::query(sql).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        let ids: Vec<uuid::Uuid> = row.try_get(0)?;
        let bodies: Vec<i64> = row.try_get::<Option<_>, _>(1)?.unwrap_or_else(|| vec![0; ids.len()]);
        let owed = ids.iter().zip(bodies);
        ledger.owed.extend(owed.map(|(id, body)| RequestId { identity: id.as_u128(), body }));
        ledger.outbox_entries += 1;
    }
    drop(rows);
    let sql = "select partition, topic, value, (headers ->> 'partition')::int, (headers ->> 'offset')::bigint
                 from stampede.outbox_messages m join stampede.partitions p using (partition)
                where m.seq > p.emitted_seq";
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        match row.try_get(1)? {
            EVENTS => {
                ledger.owes_events.insert(row.try_get(0)?);
                ledger.owed_events.extend(row.try_get::<Option<Vec<u8>>, _>(2)?);
            }
            DEAD_LETTERS => {
                let origin: (Option<i32>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
                ledger.owed_letters.extend(origin.0.zip(origin.1));
            }
            _ => {}
        }
    }
    Ok(())
}
