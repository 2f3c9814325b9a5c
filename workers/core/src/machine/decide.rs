//! The decision on one request about one coupon.
//!
//! The order of the checks on a claim of any code, which decides the reason that a user is told:
//! 1. the coupon exists (`coupon_unknown`, checked by the caller: there is nothing to decide about otherwise);
//! 2. it was not ended, is not paused, its window has begun and is not over;
//! 3. a code is free (`sold_out`; codes that are shared are never given): before the user's limit, so that a sold-out coupon needs nothing of its users;
//! 4. the user has fewer live claims than allowed (`user_limit_reached`).

use crate::domain::batch::Verdict;
use crate::domain::coupon::Definition;
use crate::domain::ids::Millis;
use crate::domain::words::Reason;
use crate::machine::stock::{Stock, Take};

/// What is known of the user's live claims of this coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveClaimsKnown {
    /// So many.
    Count(u32),
    /// It was not read.
    Unread,
}

/// A decision, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// A code was given.
    Given(Verdict),
    /// Nothing was given.
    Refused(Reason),
    /// It depends on something that was not read.
    Missing,
}

/// Decides a claim of any code; takes the code if there is one to give.
pub fn claim_any(
    definition: &Definition,
    stock: &mut Stock,
    user: LiveClaimsKnown,
    now: Millis,
    batch: u64,
) -> Ruling {
    if let Err(reason) = definition.open_at(now) {
        return Ruling::Refused(reason);
    }
    if stock.row().available() == 0 || definition.is_shared() {
        return Ruling::Refused(Reason::SoldOut);
    }
    match (definition.claims_per_user, user) {
        (Some(limit), LiveClaimsKnown::Count(live)) if live >= limit => {
            return Ruling::Refused(Reason::UserLimitReached);
        }
        (Some(_), LiveClaimsKnown::Unread) => return Ruling::Missing,
        _ => {}
    }
    let entry = match stock.take(batch) {
        Take::Returned(entry) | Take::Sequence(entry) => entry,
        Take::SoldOut => return Ruling::Refused(Reason::SoldOut),
        Take::Missing => return Ruling::Missing,
    };
    let hold_until = definition.hold_from(now);
    Ruling::Given(Verdict::Claimed { number: entry.number, code: entry.code, hold_until })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::StockRow;
    use crate::domain::ids::CodeNumber;
    use crate::interface::CodeEntry;

    fn definition() -> Definition {
        Definition { expires: Some(Millis(100)), claims_per_user: Some(1), ..Definition::default() }
    }

    fn stock(top: i64) -> Stock {
        let mut stock = Stock::new(StockRow { top, ..StockRow::default() }, [], 64);
        stock.read((1..=top).map(|n| CodeEntry { number: CodeNumber(n), code: "C".into() }).collect());
        stock
    }

    fn reason(definition: &Definition, top: i64, live: LiveClaimsKnown, now: i64) -> Option<Reason> {
        match claim_any(definition, &mut stock(top), live, Millis(now), 1) {
            Ruling::Refused(reason) => Some(reason),
            Ruling::Given(_) | Ruling::Missing => None,
        }
    }

    #[test]
    fn the_window_is_checked_before_the_stock_and_the_stock_before_the_user() {
        let at_limit = LiveClaimsKnown::Count(1);
        assert_eq!(reason(&definition(), 0, at_limit, 100), Some(Reason::Expired));
        assert_eq!(reason(&definition(), 0, at_limit, 99), Some(Reason::SoldOut));
        assert_eq!(reason(&definition(), 1, at_limit, 99), Some(Reason::UserLimitReached));
        assert_eq!(reason(&definition(), 1, LiveClaimsKnown::Count(0), 99), None);
    }

    #[test]
    fn a_sold_out_coupon_needs_nothing_of_its_users() {
        assert_eq!(reason(&definition(), 0, LiveClaimsKnown::Unread, 1), Some(Reason::SoldOut));
    }

    #[test]
    fn a_claim_is_not_decided_while_the_users_claims_are_unread() {
        let ruling = claim_any(&definition(), &mut stock(1), LiveClaimsKnown::Unread, Millis(1), 1);
        assert_eq!(ruling, Ruling::Missing);
    }

    #[test]
    fn a_coupon_without_a_limit_gives_one_user_as_many_as_it_has() {
        let definition = Definition { claims_per_user: None, ..definition() };
        let mut stock = stock(2);
        for _ in 0..2 {
            let ruling = claim_any(&definition, &mut stock, LiveClaimsKnown::Unread, Millis(1), 1);
            assert!(matches!(ruling, Ruling::Given(_)));
        }
    }
}
