//! Conversion between types of the core and columns, shared by reads and writes.

use coupon_core::batch::{Changed, Redemption};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, CouponNo, Millis, RequestId};
use coupon_core::words::ClaimState;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::LedgerError;

/// The number of a claim's state in columns `claims.state` and `outcomes.claim_state`.
pub(super) const fn state_no(state: ClaimState) -> i16 {
    match state {
        ClaimState::Claimed => 1,
        ClaimState::Locked => 2,
        ClaimState::Redeemed => 3,
        ClaimState::Returned => 4,
        ClaimState::Revoked => 5,
    }
}

/// The state of a number.
pub(super) fn state_of(no: i16) -> Result<ClaimState, LedgerError> {
    let known = ClaimState::ALL.iter().copied().find(|state| state_no(*state) == no);
    known.ok_or_else(|| unreadable("state", &no.to_string()))
}

/// Columns of a claim, from `at` on: identity, body, user_id, claimed_ms, state, hold_until_ms, lock_until_ms, order_id,
/// lapsed_ms. `None` if the first of them is null: an outer join found no claim.
pub(super) fn claim(
    row: &PgRow,
    at: usize,
    coupon: CouponNo,
    number: CodeNumber,
    code: &str,
) -> Result<Option<Claim>, LedgerError> {
    let Some(identity) = row.try_get::<Option<Uuid>, _>(at)? else { return Ok(None) };
    let status = ClaimStatus {
        state: state_of(row.try_get(at + 4)?)?,
        hold_until: millis(row, at + 5)?,
        lock_until: millis(row, at + 6)?,
        order: row.try_get(at + 7)?,
        lapsed: millis(row, at + 8)?,
    };
    Ok(Some(Claim {
        id: RequestId { identity: identity.as_u128(), body: row.try_get(at + 1)? },
        coupon,
        number,
        code: code.into(),
        user: row.try_get(at + 2)?,
        claimed: Millis(row.try_get(at + 3)?),
        status,
    }))
}

/// Columns of a redemption, from `at` on: order_id, order_amount, discount, final_price (all three as text, which
/// keeps every digit), currency, redeemed_ms.
pub(super) fn redemption(row: &PgRow, at: usize, id: RequestId) -> Result<Redemption, LedgerError> {
    // Amounts are read as Postgres prints them and parsed by the core.
    let text = |column: usize| row.try_get::<&str, _>(column);
    let (amount, discount, final_price) = (text(at + 1)?, text(at + 2)?, text(at + 3)?);
    Ok(Redemption {
        id,
        order: row.try_get(at)?,
        amount: amount.parse().map_err(|_| unreadable("order_amount", amount))?,
        discount: discount.parse().map_err(|_| unreadable("discount", discount))?,
        final_price: final_price.parse().map_err(|_| unreadable("final_price", final_price))?,
        currency: row.try_get(at + 4)?,
        redeemed: Millis(row.try_get(at + 5)?),
    })
}

/// The change of a code that the row of a redemption represents.
pub(super) fn redeemed(
    number: CodeNumber,
    code: Box<str>,
    claimed: Option<Millis>,
    redemption: Redemption,
) -> Changed {
    Changed {
        number,
        code,
        state: claimed.map(|_| ClaimState::Redeemed),
        claimed,
        hold_until: None,
        lock_until: None,
        order: None,
        redemption: Some(redemption),
    }
}

/// The identity of a request id, as it is stored.
pub(super) const fn identity(id: RequestId) -> Uuid {
    Uuid::from_u128(id.identity)
}

/// A request id in two columns, from `at` on.
pub(super) fn request_id(row: &PgRow, at: usize) -> Result<RequestId, LedgerError> {
    Ok(RequestId { identity: row.try_get::<Uuid, _>(at)?.as_u128(), body: row.try_get(at + 1)? })
}

/// A nullable time.
pub(super) fn millis(row: &PgRow, column: usize) -> Result<Option<Millis>, LedgerError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Millis))
}

/// A value that this version cannot read. Substituting another one could give a request two different outcomes.
pub(super) fn unreadable(column: &str, word: &str) -> LedgerError {
    LedgerError::Unreadable(format!("{column} {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_claim_has_its_own_number() {
        for state in ClaimState::ALL {
            assert_eq!(state_of(state_no(*state)).ok(), Some(*state));
        }
        assert!(state_of(0).is_err() && state_of(6).is_err());
    }
}
