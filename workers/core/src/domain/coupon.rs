//! The rules of a coupon: status, window, limits, hold and lock times, discount.

use crate::domain::ids::Millis;
use crate::domain::money::Discount;
use crate::domain::words::Reason;

/// The rules of a coupon that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Whether the coupon is offered.
    pub status: Status,
    /// Start of the window (inclusive).
    pub starts: Option<Millis>,
    /// End of the window (exclusive).
    pub expires: Option<Millis>,
    /// Limit of live claims per user; `None`: unlimited.
    pub claims_per_user: Option<u32>,
    /// Limit of redemptions per user; `None`: unlimited.
    pub redemptions_per_user: Option<u32>,
    /// Limit of redemptions per code; `None`: unlimited. With any value but 1 the codes are shared.
    pub redemptions_per_code: Option<u32>,
    /// Limit of redemptions of all codes together; `None`: unlimited.
    pub redemptions_total: Option<i64>,
    /// Duration of a hold in milliseconds; `None`: a claim never lapses.
    pub hold: Option<i64>,
    /// Duration of a lock in milliseconds.
    pub lock: i64,
    /// Whether a code must be locked to be redeemed.
    pub requires_lock: bool,
    /// The discount of a redemption.
    pub discount: Discount,
}

/// Whether a coupon is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Offered within its window.
    Active,
    /// Not offered for now; can become active again.
    Paused,
    /// Not offered any more.
    Ended,
}

impl Status {
    /// The word as Postgres stores it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }

    /// The status of a word; `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Ended].into_iter().find(|status| status.as_str() == word)
    }
}

impl Default for Definition {
    /// Always open, without limits or holds; a code is used once, and the discount is zero.
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
    /// Whether codes are shared: any user redeems them without a claim, and they are never given from stock.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.redemptions_per_code != Some(1)
    }

    /// End of the hold of a claim made at this time.
    #[must_use]
    pub fn hold_from(&self, now: Millis) -> Option<Millis> {
        self.hold.map(|hold| Millis(now.0 + hold))
    }

    /// Checks that the coupon is open at this time: ended, then paused, then the window.
    ///
    /// # Errors
    /// `ended`, `paused`, `not_started` or `expired`.
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
    fn the_window_includes_its_start_and_excludes_its_end() {
        let coupon = Definition { starts: Some(Millis(10)), expires: Some(Millis(20)), ..active() };
        assert_eq!(coupon.open_at(Millis(9)), Err(Reason::NotStarted));
        assert_eq!(coupon.open_at(Millis(10)), Ok(()));
        assert_eq!(coupon.open_at(Millis(19)), Ok(()));
        assert_eq!(coupon.open_at(Millis(20)), Err(Reason::Expired));
    }

    #[test]
    fn ended_comes_before_paused_and_both_before_the_window() {
        let coupon = Definition { status: Status::Ended, starts: Some(Millis(10)), ..active() };
        assert_eq!(coupon.open_at(Millis(0)), Err(Reason::Ended));
        let coupon = Definition { status: Status::Paused, ..coupon };
        assert_eq!(coupon.open_at(Millis(0)), Err(Reason::Paused));
    }
}
