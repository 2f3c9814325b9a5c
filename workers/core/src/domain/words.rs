//! The stable words of the contract: kinds of requests, reasons of rejections, states of claims.

use std::fmt;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word as it stands in records, rows and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that a word names, if it is one of ours.
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
    /// What a request asks for.
    Kind {
        /// Obtain a code: any of the coupon, or a named one.
        Claim = "claim",
        /// Reserve one's own code for a checkout.
        Lock = "lock",
        /// Release a lock.
        Unlock = "unlock",
        /// Give a claimed code back.
        Return = "return",
        /// Use a code with an order.
        Redeem = "redeem",
        /// Undo a redemption.
        Rollback = "rollback",
        /// Withdraw a code for good.
        Revoke = "revoke",
        /// A kind that this version does not know; its outcome is `unprocessable`.
        Unknown = "unknown",
    }
}

words! {
    /// Why a request was rejected. Words are never renamed; new ones are added.
    Reason {
        /// No code is left.
        SoldOut = "sold_out",
        /// The coupon's window has not begun.
        NotStarted = "not_started",
        /// The coupon's window is over.
        Expired = "expired",
        /// The coupon is paused.
        Paused = "paused",
        /// The coupon was ended.
        Ended = "ended",
        /// The user has as many claims as the coupon allows.
        UserLimitReached = "user_limit_reached",
        /// The user had this day's claim already.
        DailyLimitReached = "daily_limit_reached",
        /// There is no such code.
        CodeUnknown = "code_unknown",
        /// Another user has the named code.
        CodeTaken = "code_taken",
        /// The code is somebody else's.
        NotYourCode = "not_your_code",
        /// The code is not claimed.
        NotClaimed = "not_claimed",
        /// The coupon requires a lock and there is none.
        NotLocked = "not_locked",
        /// The lock's time is over.
        LockLapsed = "lock_lapsed",
        /// The hold's time is over.
        HoldLapsed = "hold_lapsed",
        /// The code is locked already.
        AlreadyLocked = "already_locked",
        /// The code was redeemed.
        AlreadyRedeemed = "already_redeemed",
        /// A limit of redemptions is reached.
        UsageLimitReached = "usage_limit_reached",
        /// The order is too small.
        MinimumOrderNotMet = "minimum_order_not_met",
        /// The order's currency is not the coupon's.
        CurrencyMismatch = "currency_mismatch",
        /// The redemption was rolled back before.
        AlreadyRolledBack = "already_rolled_back",
        /// There is no such coupon.
        CouponUnknown = "coupon_unknown",
        /// The code was withdrawn.
        CodeRevoked = "code_revoked",
        /// The code's coupon is over.
        CodeExpired = "code_expired",
        /// There is no such redemption.
        RedemptionUnknown = "redemption_unknown",
        /// The order was paid with this code before.
        OrderAlreadyUsed = "order_already_used",
        /// The Idempotency-Key was used with another body.
        IdempotencyKeyReused = "idempotency_key_reused",
        /// The request cannot be understood or stored.
        Unprocessable = "unprocessable",
    }
}

words! {
    /// Where a claim stands in its life.
    ClaimState {
        /// The user has the code.
        Claimed = "CLAIMED",
        /// Reserved for a checkout.
        Locked = "LOCKED",
        /// Used.
        Redeemed = "REDEEMED",
        /// Lapsed or given back: the code went back to stock.
        Returned = "RETURNED",
        /// Withdrawn.
        Revoked = "REVOKED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_itself() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("sold out"), None);
    }
}
