//! Outcomes, rebuilt from rows.
//!
//! Guarantee: an outcome that is rebuilt from rows equals its response event, whatever happened to the code since.

use coupon_core::ids::RequestId;
use coupon_core::words::ClaimState;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::model::outcome::{Claim, Outcome, Redemption};

/// Maximum number of identities in one query.
pub(crate) const BATCH: usize = 1_000;

/// One snapshot: where a reused key is visible, the request that used it first is visible too. Joined rows are read one
/// by one (`offset 0`), however small the planner estimates a table to be.
const SELECT: &str = "
    select f.identity, f.body, f.kind, coalesce(p.coupon_id, f.target, '') as coupon_id, f.reason, f.decided_ms,
           f.\"offset\", k.code, f.state, f.claimed_ms, f.hold_until_ms, f.lock_until_ms,
           m.identity as redemption, m.body as redemption_body, m.order_id, m.order_amount::text as order_amount,
           m.discount::text as discount, m.final_price::text as final_price, m.currency, m.redeemed_ms
      from (select identity, body, 'claim' as kind, coupon_no, null as target, null as reason,
                   claimed_ms as decided_ms, \"offset\", number, 1::smallint as state, claimed_ms,
                   first_hold_ms as hold_until_ms, null::bigint as lock_until_ms, null::uuid as redemption
              from claims where identity = any ($1)
            union all
            select identity, body, 'redeem', coupon_no, null, null, redeemed_ms, \"offset\", number,
                   case when claimed_ms is not null then 3::smallint end, claimed_ms, null, null, identity
              from redemptions where identity = any ($1)
            union all
            select identity, body, kind, coupon_no, target, reason, decided_ms, \"offset\", number, claim_state,
                   claimed_ms, hold_until_ms, lock_until_ms, redemption
              from outcomes_of($1, $2)) f
      left join lateral (select coupon_id from coupons p where p.coupon_no = f.coupon_no offset 0) p on true
      left join lateral (select load_id, base from loads l
                          where l.coupon_no = f.coupon_no and l.base < f.number order by l.base desc limit 1) l on true
      left join lateral (select code from codes k
                          where k.load_id = l.load_id and k.idx = f.number - l.base offset 0) k on true
      left join lateral (select * from redemptions m where m.identity = f.redemption offset 0) m on true";

#[derive(sqlx::FromRow)]
struct Row {
    identity: Uuid,
    body: i64,
    kind: String,
    coupon_id: String,
    reason: Option<String>,
    decided_ms: i64,
    offset: i64,
    code: Option<String>,
    state: Option<i16>,
    claimed_ms: Option<i64>,
    hold_until_ms: Option<i64>,
    lock_until_ms: Option<i64>,
    #[sqlx(flatten)]
    redemption: RedemptionRow,
}

#[derive(sqlx::FromRow)]
struct RedemptionRow {
    redemption: Option<Uuid>,
    redemption_body: Option<i64>,
    order_id: Option<String>,
    order_amount: Option<String>,
    discount: Option<String>,
    final_price: Option<String>,
    currency: Option<String>,
    redeemed_ms: Option<i64>,
}

/// Reads every outcome of these identities; several for an Idempotency-Key that was used with several bodies. Outcomes
/// other than claims and redemptions are those of these `days`, see [`days`](super::days).
///
/// # Errors
/// Those of Postgres.
pub(crate) async fn find(
    executor: impl PgExecutor<'_>,
    identities: &[u128],
    days: &[i32],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let identities: Vec<Uuid> = identities.iter().map(|identity| Uuid::from_u128(*identity)).collect();
    let rows: Vec<Row> = sqlx::query_as(SELECT).bind(&identities).bind(days).fetch_all(executor).await?;
    Ok(rows.into_iter().map(Row::outcome).collect())
}

/// The claim state that a row stores as a number: its position among the words, from 1.
pub(crate) fn claim_state(number: i16) -> Option<ClaimState> {
    ClaimState::ALL.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

impl Row {
    fn outcome(self) -> Outcome {
        let accepted = self.reason.is_none();
        let claim = self.state.and_then(claim_state).filter(|_| accepted).map(|state| Claim {
            state: state.as_str().into(),
            claimed_ms: self.claimed_ms,
            hold_until_ms: self.hold_until_ms,
            lock_until_ms: self.lock_until_ms,
        });
        Outcome {
            id: RequestId { identity: self.identity.as_u128(), body: self.body },
            kind: self.kind.into_boxed_str(),
            coupon_id: self.coupon_id.into_boxed_str(),
            reason: self.reason.map(String::into_boxed_str),
            decided_ms: self.decided_ms,
            offset: self.offset,
            code: self.code.filter(|_| accepted).map(String::into_boxed_str),
            claim,
            redemption: self.redemption.outcome().filter(|_| accepted).map(Box::new),
        }
    }
}

impl RedemptionRow {
    fn outcome(self) -> Option<Redemption> {
        let id = RequestId { identity: self.redemption?.as_u128(), body: self.redemption_body? };
        Some(Redemption {
            redemption_id: id.to_string(),
            order_id: self.order_id?,
            order_amount: self.order_amount?,
            discount: self.discount?,
            final_price: self.final_price?,
            currency: self.currency?,
            redeemed_ms: self.redeemed_ms?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_stored_as_its_position_among_the_words() {
        let words: Vec<_> = (0..=6).map(|number| claim_state(number).map(ClaimState::as_str)).collect();
        let known = ["CLAIMED", "LOCKED", "REDEEMED", "RETURNED", "REVOKED"].map(Some);
        assert_eq!(words, [&[None], known.as_slice(), &[None]].concat());
    }
}
