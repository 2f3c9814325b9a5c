//! Reads everything but the outcomes: partitions, coupons, stock, codes, and the outbox.

use coupon_core::ids::RequestId;
use futures::TryStreamExt as _;
use schemas::topics::{DEAD_LETTERS, EVENTS};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::codes::{Codes, Load};
use super::ledger::Ledger;
use super::model::{CodeFlags, Coupon, Position, Rules, Stock};
use super::money::Discount;

pub(super) async fn read(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    read_partitions(connection, ledger).await?;
    read_coupons(connection, ledger).await?;
    read_stock(connection, ledger).await?;
    read_unpublished_responses(connection, ledger).await?;
    read_unpublished_messages(connection, ledger).await
}

/// Collects the rows of a query.
pub(super) async fn fetch<T, C: Default + Extend<T>>(
    connection: &mut PgConnection,
    sql: &'static str,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<C, sqlx::Error> {
    sqlx::query(sql).fetch(connection).and_then(async |row| read(&row)).try_collect().await
}

async fn read_partitions(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    ledger.topic_partitions = fetch(connection, "select name, partitions from stampede.topics", |row| {
        Ok((row.try_get(0)?, row.try_get(1)?))
    })
    .await?;
    let sql = "select partition, epoch, nonce, write_no, next_offset, last_offset, next_emit_seq, emitted_seq, time_ms
                 from stampede.partitions";
    ledger.partitions = fetch(connection, sql, |row| {
        let position = Position {
            epoch: row.try_get("epoch")?,
            nonce: row.try_get::<Option<uuid::Uuid>, _>("nonce")?.map(|nonce| nonce.as_u128()),
            write_no: row.try_get("write_no")?,
            next_offset: row.try_get("next_offset")?,
            last_offset: row.try_get("last_offset")?,
            next_emit_seq: row.try_get("next_emit_seq")?,
            emitted_seq: row.try_get("emitted_seq")?,
            time_ms: row.try_get("time_ms")?,
        };
        Ok((row.try_get("partition")?, position))
    })
    .await?;
    Ok(())
}

async fn read_coupons(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql = "select c.coupon_no, coupon_id, partition, top, cursor, ahead, returned, claimed, locked, redeemed,
                      revoked, redemptions, claims_per_user::bigint, redemptions_per_user::bigint,
                      redemptions_per_code::bigint, redemptions_total, hold_seconds::bigint * 1000 as hold_ms,
                      lock_seconds::bigint * 1000 as lock_ms, requires_lock, definition ->> 'discount' as discount
                 from stampede.coupons c left join stampede.stock s on s.coupon_no = c.coupon_no";
    ledger.coupons = fetch(connection, sql, |row| {
        let id = row.try_get::<&str, _>("coupon_id")?.into();
        let partition = row.try_get("partition")?;
        let coupon = Coupon { id, partition, rules: rules_of(row)?, stock: stock_of(row)? };
        Ok((row.try_get("coupon_no")?, coupon))
    })
    .await?;
    ledger.coupon_numbers = ledger.coupons.iter().map(|(no, coupon)| (coupon.id.clone(), *no)).collect();
    Ok(())
}

fn rules_of(row: &PgRow) -> Result<Rules, sqlx::Error> {
    let discount: Option<&str> = row.try_get("discount")?;
    Ok(Rules {
        claims_per_user: row.try_get("claims_per_user")?,
        redemptions_per_user: row.try_get("redemptions_per_user")?,
        redemptions_per_code: row.try_get("redemptions_per_code")?,
        redemptions_total: row.try_get("redemptions_total")?,
        hold_ms: row.try_get("hold_ms")?,
        lock_ms: row.try_get("lock_ms")?,
        requires_lock: row.try_get("requires_lock")?,
        discount: discount.and_then(Discount::from_json),
    })
}

fn stock_of(row: &PgRow) -> Result<Option<Stock>, sqlx::Error> {
    let Some(top) = row.try_get("top")? else { return Ok(None) };
    Ok(Some(Stock {
        top,
        cursor: row.try_get("cursor")?,
        ahead: row.try_get("ahead")?,
        returned: row.try_get("returned")?,
        live: [
            row.try_get("claimed")?,
            row.try_get("locked")?,
            row.try_get("redeemed")?,
            row.try_get("revoked")?,
        ],
        redemptions: row.try_get("redemptions")?,
    }))
}

async fn read_stock(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select load_id, coupon_no, count, base, state = 'open' from stampede.loads order by coupon_no, base";
    ledger.loads = fetch(connection, sql, |row| {
        let (id, coupon, count) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Load { id, coupon, count, base: row.try_get(3)?, open: row.try_get(4)? })
    })
    .await?;
    ledger.codes = Codes::read(connection, &ledger.loads).await?;
    let code_id = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    ledger.ahead = fetch(connection, "select coupon_no, number from stampede.stock_ahead", code_id).await?;
    ledger.returned =
        fetch(connection, "select coupon_no, number from stampede.stock_returned", code_id).await?;
    let sql = "select coupon_no, number, uses, revoked from stampede.code_marks";
    ledger.code_flags = fetch(connection, sql, |row| {
        Ok((code_id(row)?, CodeFlags { uses: row.try_get(2)?, revoked: row.try_get(3)? }))
    })
    .await?;
    Ok(())
}

async fn read_unpublished_responses(
    connection: &mut PgConnection,
    ledger: &mut Ledger,
) -> Result<(), sqlx::Error> {
    let sql = "select ids, bodies
                 from stampede.outbox o join stampede.partitions p using (partition) where o.seq > p.emitted_seq";
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let ids: Vec<uuid::Uuid> = row.try_get(0)?;
        let bodies: Vec<i64> = row.try_get::<Option<_>, _>(1)?.unwrap_or_else(|| vec![0; ids.len()]);
        let requests = ids.iter().zip(bodies).map(|(id, body)| RequestId { identity: id.as_u128(), body });
        ledger.unpublished_responses.extend(requests);
        ledger.outbox_entries += 1;
    }
    Ok(())
}

async fn read_unpublished_messages(
    connection: &mut PgConnection,
    ledger: &mut Ledger,
) -> Result<(), sqlx::Error> {
    let sql = "select partition, topic, value, (headers ->> 'partition')::int, (headers ->> 'offset')::bigint
                 from stampede.outbox_messages m join stampede.partitions p using (partition)
                where m.seq > p.emitted_seq";
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        match row.try_get(1)? {
            EVENTS => {
                ledger.partitions_with_unpublished_events.insert(row.try_get(0)?);
                ledger.unpublished_events.extend(row.try_get::<Option<Vec<u8>>, _>(2)?);
            }
            DEAD_LETTERS => {
                let (partition, offset): (Option<i32>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
                ledger.unpublished_dead_letters.extend(partition.zip(offset));
            }
            _ => {}
        }
    }
    Ok(())
}
