//! The stable words of the contract: kinds of requests, reasons of rejections, states of claims. A word is never
//! renamed; new ones are added.

use std::fmt;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word as it appears in records, rows and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value of a word; `None` for an unknown word.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

words! {
    /// Kind of a request.
    Kind {
        /// Obtain a code: any code of the coupon, or a named one.
        Claim = "claim",
        /// Reserve the user's own code for a checkout.
        Lock = "lock",
        /// Release a lock.
        Unlock = "unlock",
        /// Return a claimed code to stock.
        Return = "return",
        /// Use a code with an order.
        Redeem = "redeem",
        /// Undo a redemption.
        Rollback = "rollback",
        /// Withdraw a code permanently.
        Revoke = "revoke",
        /// A kind that this version does not support. Its outcome is `unprocessable`.
        Unknown = "unknown",
    }
}

words! {
    /// Why a request was rejected.
    Reason {
        /// No code is free.
        SoldOut = "sold_out",
        /// The coupon's window has not begun.
        NotStarted = "not_started",
        /// The coupon's window has ended.
        Expired = "expired",
        /// The coupon is paused.
        Paused = "paused",
        /// The coupon was ended.
        Ended = "ended",
        /// The user has as many live claims as the coupon allows.
        UserLimitReached = "user_limit_reached",
        /// The user's claim of this day is used.
        DailyLimitReached = "daily_limit_reached",
        /// The code does not exist.
        CodeUnknown = "code_unknown",
        /// The named code belongs to another user.
        CodeTaken = "code_taken",
        /// The code belongs to another user.
        NotYourCode = "not_your_code",
        /// The code is not claimed.
        NotClaimed = "not_claimed",
        /// The coupon requires a lock, and the code is not locked.
        NotLocked = "not_locked",
        /// The lock has lapsed.
        LockLapsed = "lock_lapsed",
        /// The hold has lapsed.
        HoldLapsed = "hold_lapsed",
        /// The code is locked.
        AlreadyLocked = "already_locked",
        /// The code was redeemed.
        AlreadyRedeemed = "already_redeemed",
        /// A limit of redemptions is reached.
        UsageLimitReached = "usage_limit_reached",
        /// The order is below the minimum.
        MinimumOrderNotMet = "minimum_order_not_met",
        /// The order's currency differs from the coupon's.
        CurrencyMismatch = "currency_mismatch",
        /// The redemption was rolled back before.
        AlreadyRolledBack = "already_rolled_back",
        /// The coupon does not exist.
        CouponUnknown = "coupon_unknown",
        /// The code was withdrawn.
        CodeRevoked = "code_revoked",
        /// The window of the claimed code's coupon has ended.
        CodeExpired = "code_expired",
        /// The redemption does not exist.
        RedemptionUnknown = "redemption_unknown",
        /// The order was paid with this code before.
        OrderAlreadyUsed = "order_already_used",
        /// The Idempotency-Key was used with another body.
        IdempotencyKeyReused = "idempotency_key_reused",
        /// The request is malformed, unsupported, or cannot be stored.
        Unprocessable = "unprocessable",
    }
}

words! {
    /// State of a claim.
    ClaimState {
        /// The user has the code.
        Claimed = "CLAIMED",
        /// Reserved for a checkout.
        Locked = "LOCKED",
        /// Used.
        Redeemed = "REDEEMED",
        /// Lapsed or returned: the code is stock again.
        Returned = "RETURNED",
        /// Withdrawn.
        Revoked = "REVOKED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_parses_back_to_its_value() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        for state in ClaimState::ALL {
            assert_eq!(ClaimState::parse(state.as_str()), Some(*state));
        }
        assert_eq!(Reason::parse("sold out"), None);
    }
}
