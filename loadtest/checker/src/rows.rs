//! Every outcome in Postgres: claims, redemptions, and everything else.

use coupon_core::ids::RequestId;
use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::ledger::{Change, Did, Ledger, Redemption, Row, Said, Terms, holder, word_of};
use super::told::{Accepted, Outcome, Paid, Verdict};

pub(super) async fn read(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    read_claims(connection, ledger).await?;
    read_terms(connection, ledger).await?;
    read_redemptions(connection, ledger).await?;
    read_outcomes(connection, ledger).await
}

async fn read_claims(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select identity, body, coupon_no, number, \"offset\", claimed_ms, state, user_id, first_hold_ms
                 from stampede.claims";
    let mut rows = sqlx::query(sql).fetch(connection);
    let mut text = String::new();
    while let Some(row) = rows.try_next().await? {
        let (coupon, number, at): (i64, i64, i64) = (row.try_get(2)?, row.try_get(3)?, row.try_get(5)?);
        let user: &str = row.try_get(7)?;
        let known = ledger.coupons.get(&coupon);
        let accepted = Accepted {
            code: ledger.codes.text_of(coupon, number).unwrap_or_default(),
            number,
            state: Some("CLAIMED"),
            claimed_ms: Some(at),
            hold_until_ms: row.try_get(8)?,
            lock_until_ms: None,
            order: None,
            paid: None,
        };
        let outcome = Outcome {
            kind: "claim",
            coupon: known.map_or("", |coupon| &coupon.id),
            user,
            partition: known.map_or(-1, |coupon| coupon.partition),
            offset: row.try_get(4)?,
            decided_ms: at,
            verdict: Verdict::Accepted(accepted),
        };
        let place = (coupon, number, holder(user, coupon));
        let state = row.try_get(6)?;
        let row = Row { state, ..row_of(request_id(&row)?, &outcome, place, Said::Claimed, &mut text) };
        ledger.add(row);
    }
    Ok(())
}

/// What claims have that are not plain. A claim that lives without any of it costs no more than being passed over.
async fn read_terms(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql = "select identity, body, first_hold_ms, hold_until_ms, lock_until_ms, order_id, lapsed_ms, deadline_ms,
                      partition
                 from stampede.claims
                where state <> 1 or first_hold_ms is not null or hold_until_ms is not null
                   or lock_until_ms is not null or order_id is not null or lapsed_ms is not null
                   or deadline_ms is not null or partition is not null";
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let terms = Terms {
            first_hold_ms: row.try_get(2)?,
            hold_until_ms: row.try_get(3)?,
            lock_until_ms: row.try_get(4)?,
            order: text_of(&row, 5)?,
            lapsed_ms: row.try_get(6)?,
            deadline_ms: row.try_get(7)?,
            partition: row.try_get(8)?,
        };
        let index = ledger.index_of(request_id(&row)?).and_then(|index| u32::try_from(index).ok());
        ledger.terms.extend(index.map(|index| (index, terms)));
    }
    Ok(())
}

async fn read_redemptions(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select identity, body, coupon_no, number, \"offset\", redeemed_ms, claimed_ms, user_id, order_id,
                      order_amount::text, discount::text, final_price::text, currency, rolled_back_ms
                 from stampede.redemptions";
    let mut rows = sqlx::query(sql).fetch(connection);
    let mut text = String::new();
    while let Some(row) = rows.try_next().await? {
        let id = request_id(&row)?;
        let (coupon, number, at): (i64, i64, i64) = (row.try_get(2)?, row.try_get(3)?, row.try_get(5)?);
        let user: &str = row.try_get(7)?;
        let known = ledger.coupons.get(&coupon);
        let mut redemption = Redemption {
            row: 0,
            claimed_ms: row.try_get(6)?,
            order: row.try_get::<&str, _>(8)?.into(),
            money: [row.try_get::<&str, _>(9)?, row.try_get(10)?, row.try_get(11)?].map(Into::into),
            currency: row.try_get::<&str, _>(12)?.into(),
            rolled_back_ms: row.try_get(13)?,
        };
        let accepted = Accepted {
            code: ledger.codes.text_of(coupon, number).unwrap_or_default(),
            number,
            state: redemption.claimed_ms.map(|_| "REDEEMED"),
            claimed_ms: redemption.claimed_ms,
            hold_until_ms: None,
            lock_until_ms: None,
            order: Some(&redemption.order),
            paid: Some(paid(id, &redemption, at)),
        };
        let outcome = Outcome {
            kind: "redeem",
            coupon: known.map_or("", |coupon| &coupon.id),
            user,
            partition: known.map_or(-1, |coupon| coupon.partition),
            offset: row.try_get(4)?,
            decided_ms: at,
            verdict: Verdict::Accepted(accepted),
        };
        let place = (coupon, number, holder(user, coupon));
        redemption.row = ledger.add(row_of(id, &outcome, place, Said::Redeemed, &mut text));
        let index = u32::try_from(ledger.redemptions.len()).unwrap_or(u32::MAX);
        ledger.redemption_at.insert(redemption.row, index);
        ledger.redemptions.push(redemption);
    }
    Ok(())
}

async fn read_outcomes(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select identity, body, coupon_no, partition, \"offset\", decided_ms, kind, user_id, target, reason,
                      number, claim_state, claimed_ms, hold_until_ms, lock_until_ms, order_id, redemption,
                      redemption_body
                 from stampede.outcomes";
    let mut rows = sqlx::query(sql).fetch(connection);
    let mut text = String::new();
    while let Some(row) = rows.try_next().await? {
        let id = request_id(&row)?;
        let coupon: Option<i64> = row.try_get(2)?;
        let (kind, user, reason): (&str, &str, Option<&str>) =
            (row.try_get(6)?, row.try_get(7)?, row.try_get(9)?);
        let target: Option<&str> = row.try_get(8)?;
        let known = coupon.and_then(|no| ledger.coupons.get(&no)).map(|coupon| &*coupon.id);
        let coupon = coupon.unwrap_or(0);
        let change = if reason.is_some() { None } else { Some(change_of(&row, kind)?) };
        let number = row.try_get::<Option<i64>, _>(10)?.unwrap_or(0);
        let (verdict, said) = match (reason, &change) {
            (None, Some(change)) => {
                (Verdict::Accepted(accepted(ledger, (coupon, number), change)), Said::Changed)
            }
            (reason, _) => {
                let reason = reason.unwrap_or_default();
                (Verdict::Rejected(reason), said(reason))
            }
        };
        let outcome = Outcome {
            kind,
            coupon: known.or(target).unwrap_or_default(),
            user,
            partition: row.try_get(3)?,
            offset: row.try_get(4)?,
            decided_ms: row.try_get(5)?,
            verdict,
        };
        let place = (coupon, number, if coupon > 0 { holder(user, coupon) } else { 0 });
        let row = row_of(id, &outcome, place, said, &mut text);
        let row = ledger.add(row);
        ledger.changes.extend(change.map(|change| Change { row, ..change }));
    }
    Ok(())
}

fn said(reason: &str) -> Said {
    match reason {
        "sold_out" => Said::SoldOut,
        "idempotency_key_reused" => Said::KeyReused,
        "unprocessable" => Said::Unprocessable,
        "user_limit_reached" => Said::UserLimit,
        "hold_lapsed" => Said::HoldLapsed,
        "lock_lapsed" => Said::LockLapsed,
        _ => Said::Other,
    }
}

fn change_of(row: &PgRow, kind: &str) -> Result<Change, sqlx::Error> {
    let redemption: Option<uuid::Uuid> = row.try_get(16)?;
    let body = row.try_get::<Option<i64>, _>(17)?.unwrap_or(0);
    Ok(Change {
        row: 0,
        did: match kind {
            "lock" => Did::Lock,
            "unlock" => Did::Unlock,
            "return" => Did::Return,
            "rollback" => Did::Rollback,
            "revoke" => Did::Revoke,
            _ => Did::Nonsense,
        },
        state: row.try_get::<Option<i16>, _>(11)?.unwrap_or(0),
        claimed_ms: row.try_get(12)?,
        hold_until_ms: row.try_get(13)?,
        lock_until_ms: row.try_get(14)?,
        order: text_of(row, 15)?,
        redemption: redemption.map(|id| RequestId { identity: id.as_u128(), body }),
    })
}

fn accepted<'a>(ledger: &'a Ledger, (coupon, number): (i64, i64), change: &'a Change) -> Accepted<'a> {
    let redemption = change.redemption.and_then(|id| {
        let redemption = ledger.redemptions.get(ledger.redemption_of(id)?)?;
        Some((id, redemption, ledger.rows.get(redemption.row as usize)?.decided_ms))
    });
    Accepted {
        code: ledger.codes.text_of(coupon, number).unwrap_or_default(),
        number,
        state: word_of(change.state),
        claimed_ms: change.claimed_ms,
        hold_until_ms: change.hold_until_ms,
        lock_until_ms: change.lock_until_ms,
        order: redemption.map_or(change.order.as_deref(), |(_, redemption, _)| Some(&redemption.order)),
        paid: redemption.map(|(id, redemption, at)| paid(id, redemption, at)),
    }
}

fn paid(id: RequestId, redemption: &Redemption, redeemed_ms: i64) -> Paid<'_> {
    let [amount, discount, final_price] = redemption.money.each_ref().map(|amount| &**amount);
    Paid { id, amount, discount, final_price, currency: &redemption.currency, redeemed_ms }
}

fn row_of(
    id: RequestId,
    outcome: &Outcome<'_>,
    (coupon, number, holder): (i64, i64, u64),
    said: Said,
    text: &mut String,
) -> Row {
    Row {
        id,
        shown: outcome.shown(text),
        digest: outcome.write(text),
        coupon,
        number,
        holder,
        offset: outcome.offset,
        decided_ms: outcome.decided_ms,
        partition: outcome.partition,
        state: 0,
        said,
    }
}

fn request_id(row: &PgRow) -> Result<RequestId, sqlx::Error> {
    let identity: uuid::Uuid = row.try_get(0)?;
    Ok(RequestId { identity: identity.as_u128(), body: row.try_get(1)? })
}

fn text_of(row: &PgRow, column: usize) -> Result<Option<Box<str>>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>(column)?.map(Into::into))
}
