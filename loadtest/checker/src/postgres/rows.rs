//! Reads every outcome: claims, redemptions, and all others.
//!
//! These tables have millions of rows, so columns are read by position, and every row is reduced to digests at once.

use coupon_core::ids::RequestId;
use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::ledger::Ledger;
use super::model::{
    Change, ClaimStatus, CodeId, Operation, OutcomeKind, Redemption, Row, state_name, user_key,
};
use crate::outcome::{Accepted, Outcome, Payment, Verdict};

pub(super) async fn read(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    read_claims(connection, ledger).await?;
    read_claim_status(connection, ledger).await?;
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
        let (code, claimed_ms): (CodeId, i64) = ((row.try_get(2)?, row.try_get(3)?), row.try_get(5)?);
        let accepted = Accepted {
            code: ledger.codes.text_of(code.0, code.1).unwrap_or_default(),
            number: code.1,
            state: Some("CLAIMED"),
            claimed_ms: Some(claimed_ms),
            hold_until_ms: row.try_get(8)?,
            lock_until_ms: None,
            order: None,
            payment: None,
        };
        let (coupon, partition) = coupon_of(ledger, code.0);
        let outcome = Outcome {
            kind: "claim",
            coupon,
            user: row.try_get(7)?,
            partition,
            offset: row.try_get(4)?,
            decided_ms: claimed_ms,
            verdict: Verdict::Accepted(accepted),
        };
        let state = row.try_get(6)?;
        let claim = to_row(request_id(&row)?, &outcome, code, OutcomeKind::Claimed, &mut text);
        ledger.add(Row { state, ..claim });
    }
    Ok(())
}

/// Plain claims are left out: the condition excludes them in Postgres.
async fn read_claim_status(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql = "select identity, body, first_hold_ms, hold_until_ms, lock_until_ms, order_id, lapsed_ms, deadline_ms,
                      partition
                 from stampede.claims
                where state <> 1 or first_hold_ms is not null or hold_until_ms is not null
                   or lock_until_ms is not null or order_id is not null or lapsed_ms is not null
                   or deadline_ms is not null or partition is not null";
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let status = ClaimStatus {
            first_hold_ms: row.try_get(2)?,
            hold_until_ms: row.try_get(3)?,
            lock_until_ms: row.try_get(4)?,
            order: text_of(&row, 5)?,
            lapsed_ms: row.try_get(6)?,
            deadline_ms: row.try_get(7)?,
            partition: row.try_get(8)?,
        };
        let index = ledger.index_of(request_id(&row)?);
        ledger.claim_status.extend(index.map(|index| (index, status)));
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
        let (code, redeemed_ms): (CodeId, i64) = ((row.try_get(2)?, row.try_get(3)?), row.try_get(5)?);
        let mut redemption = Redemption {
            row: 0,
            claimed_ms: row.try_get(6)?,
            order: row.try_get::<&str, _>(8)?.into(),
            money: [row.try_get::<&str, _>(9)?, row.try_get(10)?, row.try_get(11)?].map(Into::into),
            currency: row.try_get::<&str, _>(12)?.into(),
            rolled_back_ms: row.try_get(13)?,
        };
        let accepted = Accepted {
            code: ledger.codes.text_of(code.0, code.1).unwrap_or_default(),
            number: code.1,
            state: redemption.claimed_ms.map(|_| "REDEEMED"),
            claimed_ms: redemption.claimed_ms,
            hold_until_ms: None,
            lock_until_ms: None,
            order: Some(&redemption.order),
            payment: Some(payment(id, &redemption, redeemed_ms)),
        };
        let (coupon, partition) = coupon_of(ledger, code.0);
        let outcome = Outcome {
            kind: "redeem",
            coupon,
            user: row.try_get(7)?,
            partition,
            offset: row.try_get(4)?,
            decided_ms: redeemed_ms,
            verdict: Verdict::Accepted(accepted),
        };
        redemption.row = ledger.add(to_row(id, &outcome, code, OutcomeKind::Redeemed, &mut text));
        ledger.add_redemption(redemption);
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
        let kind: &str = row.try_get(6)?;
        let (target, reason): (Option<&str>, Option<&str>) = (row.try_get(8)?, row.try_get(9)?);
        let known = coupon.and_then(|no| ledger.coupons.get(&no)).map(|coupon| &*coupon.id);
        let code = (coupon.unwrap_or(0), row.try_get::<Option<i64>, _>(10)?.unwrap_or(0));
        let change = if reason.is_some() { None } else { Some(change_of(&row, kind)?) };
        let (verdict, outcome_kind) = match (reason, &change) {
            (None, Some(change)) => (Verdict::Accepted(accepted(ledger, code, change)), OutcomeKind::Changed),
            (reason, _) => {
                let reason = reason.unwrap_or_default();
                (Verdict::Rejected(reason), rejection(reason))
            }
        };
        let outcome = Outcome {
            kind,
            coupon: known.or(target).unwrap_or_default(),
            user: row.try_get(7)?,
            partition: row.try_get(3)?,
            offset: row.try_get(4)?,
            decided_ms: row.try_get(5)?,
            verdict,
        };
        let row = to_row(id, &outcome, code, outcome_kind, &mut text);
        let index = ledger.add(row);
        ledger.changes.extend(change.map(|change| Change { row: index, ..change }));
    }
    Ok(())
}

/// The id and partition of a coupon; an empty id and -1 if it does not exist.
fn coupon_of(ledger: &Ledger, coupon: i64) -> (&str, i32) {
    ledger.coupons.get(&coupon).map_or(("", -1), |coupon| (&coupon.id, coupon.partition))
}

fn rejection(reason: &str) -> OutcomeKind {
    match reason {
        "sold_out" => OutcomeKind::SoldOut,
        "idempotency_key_reused" => OutcomeKind::KeyReused,
        "user_limit_reached" => OutcomeKind::UserLimit,
        "hold_lapsed" => OutcomeKind::HoldLapsed,
        "lock_lapsed" => OutcomeKind::LockLapsed,
        _ => OutcomeKind::OtherRejection,
    }
}

fn change_of(row: &PgRow, kind: &str) -> Result<Change, sqlx::Error> {
    let redemption: Option<uuid::Uuid> = row.try_get(16)?;
    let body = row.try_get::<Option<i64>, _>(17)?.unwrap_or(0);
    Ok(Change {
        row: 0,
        operation: match kind {
            "lock" => Operation::Lock,
            "unlock" => Operation::Unlock,
            "return" => Operation::Return,
            "rollback" => Operation::Rollback,
            "revoke" => Operation::Revoke,
            _ => Operation::Unknown,
        },
        state: row.try_get::<Option<i16>, _>(11)?.unwrap_or(0),
        claimed_ms: row.try_get(12)?,
        hold_until_ms: row.try_get(13)?,
        lock_until_ms: row.try_get(14)?,
        order: text_of(row, 15)?,
        redemption: redemption.map(|id| RequestId { identity: id.as_u128(), body }),
    })
}

fn accepted<'a>(ledger: &'a Ledger, (coupon, number): CodeId, change: &'a Change) -> Accepted<'a> {
    let redemption = change.redemption.and_then(|id| {
        let redemption = ledger.redemption_at(ledger.redemption_index(id)?)?;
        Some((id, redemption, ledger.row_at(redemption.row)?.decided_ms))
    });
    Accepted {
        code: ledger.codes.text_of(coupon, number).unwrap_or_default(),
        number,
        state: state_name(change.state),
        claimed_ms: change.claimed_ms,
        hold_until_ms: change.hold_until_ms,
        lock_until_ms: change.lock_until_ms,
        order: redemption.map_or(change.order.as_deref(), |(_, redemption, _)| Some(&redemption.order)),
        payment: redemption.map(|(id, redemption, redeemed_ms)| payment(id, redemption, redeemed_ms)),
    }
}

fn payment(id: RequestId, redemption: &Redemption, redeemed_ms: i64) -> Payment<'_> {
    let [amount, discount, final_price] = redemption.money.each_ref().map(|amount| &**amount);
    Payment { id, amount, discount, final_price, currency: &redemption.currency, redeemed_ms }
}

fn to_row(
    id: RequestId,
    outcome: &Outcome<'_>,
    (coupon, number): CodeId,
    kind: OutcomeKind,
    text: &mut String,
) -> Row {
    Row {
        id,
        user_digest: outcome.user_digest(text),
        digest: outcome.describe(text),
        coupon,
        number,
        user: if coupon > 0 { user_key(outcome.user, coupon) } else { 0 },
        offset: outcome.offset,
        decided_ms: outcome.decided_ms,
        partition: outcome.partition,
        state: 0,
        kind,
    }
}

fn request_id(row: &PgRow) -> Result<RequestId, sqlx::Error> {
    let identity: uuid::Uuid = row.try_get(0)?;
    Ok(RequestId { identity: identity.as_u128(), body: row.try_get(1)? })
}

fn text_of(row: &PgRow, column: usize) -> Result<Option<Box<str>>, sqlx::Error> {
    Ok(row.try_get::<Option<&str>, _>(column)?.map(Into::into))
}
