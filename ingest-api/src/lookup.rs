//! Outcomes from Postgres, by identity. Always the primary: a replica may not know yet what was told already.

use coupon_core::ids::RequestId;
use coupon_core::vocabulary::ClaimState;
use schemas::kinds;
use sqlx::PgPool;
use uuid::Uuid;

use crate::outcome::{Claim, Outcome};

/// How many are looked up by one query.
pub(crate) const BATCH: usize = 1_000;

/// The outcome of a claim never changes, whatever became of the claim since: its state here is what was decided.
const CLAIMS: &str = "
    select c.identity, c.body, p.coupon_id, c.claimed_ms, c.\"offset\", k.code
      from claims c
      join coupons p on p.coupon_no = c.coupon_no
      left join lateral (
           select l.load_id, l.base from loads l
            where l.coupon_no = c.coupon_no and l.base < c.number order by l.base desc limit 1) l on true
      left join codes k on k.load_id = l.load_id and k.idx = c.number - l.base
     where c.identity = any($1)";

const OUTCOMES: &str = "
    select o.identity, o.body, coalesce(p.coupon_id, o.target, ''), o.decided_ms, o.\"offset\", o.kind, o.reason
      from outcomes o left join coupons p on p.coupon_no = o.coupon_no
     where o.identity = any($1)";

type ClaimRow = (Uuid, i64, String, i64, i64, Option<String>);
type OutcomeRow = (Uuid, i64, String, i64, i64, String, String);

/// Every outcome of these identities; of one that was used with several bodies, all of them.
///
/// # Errors
/// Whatever Postgres reports.
pub(crate) async fn outcomes(pool: &PgPool, identities: &[u128]) -> Result<Vec<Outcome>, sqlx::Error> {
    let identities: Vec<Uuid> = identities.iter().map(|identity| Uuid::from_u128(*identity)).collect();
    // In this order: a key that is seen as reused here was used first by something that is seen there.
    let others: Vec<OutcomeRow> = sqlx::query_as(OUTCOMES).bind(&identities).fetch_all(pool).await?;
    let claims: Vec<ClaimRow> = sqlx::query_as(CLAIMS).bind(&identities).fetch_all(pool).await?;
    Ok(claims.into_iter().map(of_claim).chain(others.into_iter().map(of_outcome)).collect())
}

fn of_claim((identity, body, coupon_id, claimed_ms, offset, code): ClaimRow) -> Outcome {
    Outcome {
        id: RequestId { identity: identity.as_u128(), body },
        kind: kinds::CLAIM.into(),
        coupon_id: coupon_id.into_boxed_str(),
        reason: None,
        decided_ms: claimed_ms,
        offset,
        code: code.map(String::into_boxed_str),
        claim: Some(Claim {
            state: ClaimState::Claimed.as_str().into(),
            claimed_ms,
            hold_until_ms: None,
            lock_until_ms: None,
        }),
        redemption: None,
    }
}

fn of_outcome((identity, body, coupon_id, decided_ms, offset, kind, reason): OutcomeRow) -> Outcome {
    Outcome {
        id: RequestId { identity: identity.as_u128(), body },
        kind: kind.into_boxed_str(),
        coupon_id: coupon_id.into_boxed_str(),
        reason: Some(reason.into_boxed_str()),
        decided_ms,
        offset,
        code: None,
        claim: None,
        redemption: None,
    }
}
