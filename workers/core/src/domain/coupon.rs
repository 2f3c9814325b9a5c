//! A coupon's rules: its window, its status, its limits.

use crate::domain::ids::Millis;
use crate::domain::money::Discount;
use crate::domain::words::Reason;

/// What an owner needs to know of a coupon to decide about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Whether it is offered.
    pub status: Status,
    /// Claims are accepted from here on (inclusive).
    pub starts: Option<Millis>,
    /// Claims are accepted until here (exclusive).
    pub expires: Option<Millis>,
    /// How many live claims a user may have; `None`: any number.
    pub claims_per_user: Option<u32>,
    /// How often one user may redeem; `None`: any number.
    pub redemptions_per_user: Option<u32>,
    /// How often one code may be redeemed; `None`: any number. Anything but 1: its codes are shared by many.
    pub redemptions_per_code: Option<u32>,
    /// How often its codes may be redeemed in all; `None`: any number.
    pub redemptions_total: Option<i64>,
    /// How long a claim lasts that is not redeemed, in milliseconds; `None`: for ever.
    pub hold: Option<i64>,
    /// How long a lock lasts, in milliseconds.
    pub lock: i64,
    /// Whether only a locked code can be redeemed.
    pub requires_lock: bool,
    /// What it takes off an order.
    pub discount: Discount,
}

/// Whether a coupon is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Offered within its window.
    Active,
    /// Not offered for now.
    Paused,
    /// Not offered any more.
    Ended,
}

impl Status {
    /// The word as the ledger holds it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }

    /// The status that a word names.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Ended].into_iter().find(|status| status.as_str() == word)
    }
}

impl Default for Definition {
    /// Offered at any time, without limits or holds; a code is used once, and takes nothing off.
    fn default() -> Self {
        Self {
            status: Status::Active,
            starts: None,
            expires: None,
            claims_per_user: None,
            redemptions_per_user: None,
            redemptions_per_code: Some(1),
            redemptions_total: None,
            hold: None,
            lock: 300_000,
            requires_lock: false,
            discount: Discount::default(),
        }
    }
}

impl Definition {
    /// Whether its codes are redeemed without a claim, by anybody, and are never in stock.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.redemptions_per_code != Some(1)
    }

    /// When a claim that is made now lapses.
    #[must_use]
    pub fn hold_from(&self, now: Millis) -> Option<Millis> {
        self.hold.map(|hold| Millis(now.0 + hold))
    }

    /// Whether claims are accepted at this time: ended before paused, both before the window.
    ///
    /// # Errors
    /// The reason why not.
    pub fn open_at(&self, now: Millis) -> Result<(), Reason> {
        match self.status {
            Status::Ended => return Err(Reason::Ended),
            Status::Paused => return Err(Reason::Paused),
            Status::Active => {}
        }
        if self.starts.is_some_and(|starts| now < starts) {
            return Err(Reason::NotStarted);
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(Reason::Expired);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Definition {
        Definition { claims_per_user: Some(1), ..Definition::default() }
    }

    #[test]
    fn the_window_begins_with_its_first_millisecond_and_ends_before_its_last() {
        let coupon = Definition { starts: Some(Millis(10)), expires: Some(Millis(20)), ..active() };
        assert_eq!(coupon.open_at(Millis(9)), Err(Reason::NotStarted));
        assert_eq!(coupon.open_at(Millis(10)), Ok(()));
        assert_eq!(coupon.open_at(Millis(19)), Ok(()));
        assert_eq!(coupon.open_at(Millis(20)), Err(Reason::Expired));
    }

    #[test]
    fn a_coupon_that_was_ended_says_so_whatever_its_window() {
        let coupon = Definition { status: Status::Ended, starts: Some(Millis(10)), ..active() };
        assert_eq!(coupon.open_at(Millis(0)), Err(Reason::Ended));
        let coupon = Definition { status: Status::Paused, ..coupon };
        assert_eq!(coupon.open_at(Millis(0)), Err(Reason::Paused));
    }
}
