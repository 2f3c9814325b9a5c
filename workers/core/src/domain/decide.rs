//! The checks of a claim, and the result of a check that fails.
//!
//! The first check that fails gives the reason:
//! 1. the coupon exists (`coupon_unknown`, checked by the caller);
//! 2. it is open: not ended, not paused, within its window;
//! 3. a code can be given. Any code: one is free (`sold_out`; shared codes are never given). A named code:
//!    `code_unknown`, `code_revoked`, `code_taken`. This comes before the user's limit, so that a sold-out coupon
//!    requires no lookup of its users;
//! 4. the user has fewer live claims than allowed (`user_limit_reached`).

use crate::domain::coupon::Definition;
use crate::domain::ids::Millis;
use crate::domain::words::Reason;

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// It is rejected: a final outcome.
    Rejected(Reason),
    /// It depends on data that was not read. It is decided in a later batch.
    Missing,
}

impl From<Reason> for NotAccepted {
    fn from(reason: Reason) -> Self {
        Self::Rejected(reason)
    }
}

/// Checks a claim in the documented order; returns what `code` returns.
///
/// `code` checks that a code can be given; `live_claims` is the number of the user's live claims of this coupon, `None`
/// if it was not read. Both are called only if the checks before them pass.
///
/// # Errors
/// The first check that fails.
pub fn check_claim<T>(
    definition: &Definition,
    now: Millis,
    code: impl FnOnce() -> Result<T, NotAccepted>,
    live_claims: impl FnOnce() -> Option<u32>,
) -> Result<T, NotAccepted> {
    definition.open_at(now)?;
    let code = code()?;
    if let Some(limit) = definition.claims_per_user
        && live_claims().ok_or(NotAccepted::Missing)? >= limit
    {
        return Err(NotAccepted::Rejected(Reason::UserLimitReached));
    }
    Ok(code)
}

/// Checks that a coupon has a free code for a claim of any code.
///
/// # Errors
/// `sold_out`.
pub fn check_any_code(definition: &Definition, available: i64) -> Result<(), NotAccepted> {
    if available == 0 || definition.is_shared() {
        return Err(NotAccepted::Rejected(Reason::SoldOut));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::{CodeTaken, CodeUnknown, Expired, SoldOut, UserLimitReached};

    fn definition() -> Definition {
        Definition { expires: Some(Millis(100)), claims_per_user: Some(1), ..Definition::default() }
    }

    fn any(available: i64, live_claims: Option<u32>, now: i64) -> Result<(), NotAccepted> {
        let definition = definition();
        check_claim(&definition, Millis(now), || check_any_code(&definition, available), || live_claims)
    }

    #[test]
    fn the_window_is_checked_before_the_stock_and_the_stock_before_the_user() {
        assert_eq!(any(0, Some(1), 100), Err(Expired.into()));
        assert_eq!(any(0, Some(1), 99), Err(SoldOut.into()));
        assert_eq!(any(1, Some(1), 99), Err(UserLimitReached.into()));
        assert_eq!(any(1, Some(0), 99), Ok(()));
    }

    #[test]
    fn the_window_is_checked_before_a_named_code_and_the_code_before_the_user() {
        let named =
            |code: Result<(), NotAccepted>, now| check_claim(&definition(), Millis(now), || code, || Some(1));
        assert_eq!(named(Err(CodeUnknown.into()), 100), Err(Expired.into()));
        assert_eq!(named(Err(CodeTaken.into()), 99), Err(CodeTaken.into()));
        assert_eq!(named(Err(NotAccepted::Missing), 99), Err(NotAccepted::Missing));
        assert_eq!(named(Ok(()), 99), Err(UserLimitReached.into()));
    }

    #[test]
    fn a_sold_out_coupon_requires_no_lookup_of_its_users() {
        assert_eq!(any(0, None, 1), Err(SoldOut.into()));
    }

    #[test]
    fn a_claim_is_not_decided_before_the_users_claims_are_read() {
        assert_eq!(any(1, None, 1), Err(NotAccepted::Missing));
    }

    #[test]
    fn a_coupon_without_a_limit_requires_no_lookup_of_its_users() {
        let definition = Definition { claims_per_user: None, ..definition() };
        let claim = || check_claim(&definition, Millis(1), || check_any_code(&definition, 2), || None);
        assert_eq!([claim(), claim()], [Ok(()); 2]);
    }

    #[test]
    fn shared_codes_are_never_given() {
        let shared = Definition { redemptions_per_code: None, ..definition() };
        assert_eq!(check_any_code(&shared, 5), Err(SoldOut.into()));
    }
}
