//! What a run has come to: how often each rejection, each transition and each corner was seen.

use coupon_core::words::{Kind, Reason};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    /// Rejections by what was asked for.
    pub(crate) reasons: BTreeMap<(Kind, Reason), u64>,
    /// Everything else, by a name of its own.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn rejected(&mut self, kind: Kind, reason: Reason) {
        *self.reasons.entry((kind, reason)).or_default() += 1;
    }

    pub(crate) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(crate) fn saw_if(&mut self, seen: bool, what: &'static str) {
        if seen {
            self.saw(what);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (key, times) in &other.reasons {
            *self.reasons.entry(*key).or_default() += times;
        }
        for (key, times) in &other.seen {
            *self.seen.entry(key).or_default() += times;
        }
    }
}

/// What each kind of request can be rejected for, as `api.md` and the core have it. (The daily limit is not built yet.)
pub(crate) const REJECTIONS: &[(Kind, &[Reason])] = {
    use Reason::*;
    &[
        (
            Kind::Claim,
            &[
                CouponUnknown,
                Ended,
                Paused,
                NotStarted,
                Expired,
                SoldOut,
                CodeUnknown,
                CodeRevoked,
                CodeTaken,
                UserLimitReached,
                IdempotencyKeyReused,
            ],
        ),
        (
            Kind::Lock,
            &[
                CodeUnknown,
                Unprocessable,
                HoldLapsed,
                NotYourCode,
                NotClaimed,
                CodeRevoked,
                Ended,
                Paused,
                NotStarted,
                CodeExpired,
                AlreadyRedeemed,
                AlreadyLocked,
                IdempotencyKeyReused,
            ],
        ),
        (
            Kind::Unlock,
            &[
                CodeUnknown,
                Unprocessable,
                HoldLapsed,
                NotYourCode,
                NotClaimed,
                CodeRevoked,
                AlreadyRedeemed,
                LockLapsed,
                NotLocked,
                IdempotencyKeyReused,
            ],
        ),
        (
            Kind::Return,
            &[
                CodeUnknown,
                Unprocessable,
                HoldLapsed,
                NotYourCode,
                NotClaimed,
                CodeRevoked,
                AlreadyRedeemed,
                AlreadyLocked,
                IdempotencyKeyReused,
            ],
        ),
        (
            Kind::Redeem,
            &[
                Unprocessable,
                CodeUnknown,
                HoldLapsed,
                NotYourCode,
                NotClaimed,
                CodeRevoked,
                Ended,
                Paused,
                NotStarted,
                CodeExpired,
                OrderAlreadyUsed,
                AlreadyRedeemed,
                AlreadyLocked,
                LockLapsed,
                NotLocked,
                CurrencyMismatch,
                MinimumOrderNotMet,
                UsageLimitReached,
                IdempotencyKeyReused,
            ],
        ),
        (Kind::Rollback, &[RedemptionUnknown, AlreadyRolledBack, IdempotencyKeyReused]),
        (Kind::Revoke, &[CodeUnknown, CodeRevoked, AlreadyRedeemed, IdempotencyKeyReused]),
        (Kind::Unknown, &[Unprocessable, IdempotencyKeyReused]),
    ]
};

/// Every transition of the table, what is folded within a batch, and the corners of stock and time.
pub(crate) const TRANSITIONS: &[&str] = &[
    "claim of any, in sequence",
    "claim of any, returned",
    "claim by name, above the cursor",
    "claim by name, returned",
    "CLAIMED → LOCKED",
    "CLAIMED → LOCKED for an order",
    "CLAIMED → LOCKED again after a lapse",
    "LOCKED → CLAIMED by its deadline",
    "LOCKED → CLAIMED → RETURNED at once",
    "LOCKED → CLAIMED by unlock",
    "LOCKED → RETURNED by unlock",
    "CLAIMED → RETURNED by its deadline",
    "CLAIMED → RETURNED by return",
    "CLAIMED → REDEEMED",
    "LOCKED → REDEEMED",
    "LOCKED for an order → REDEEMED",
    "REDEEMED → CLAIMED",
    "REDEEMED → CLAIMED with a fresh hold",
    "CLAIMED → REVOKED",
    "LOCKED → REVOKED",
    "a free code → REVOKED",
    "a returned code → REVOKED",
    "shared: a use",
    "shared: the last use",
    "shared: a use rolled back",
    "shared: the last use rolled back",
    "shared: rolled back after it was revoked",
    "shared: revoked",
    "sold out by a named claim",
    "sold out by a revoke",
    "restocked by a lapse",
    "restocked by a return",
    "fold: a claim made and changed in one batch",
    "fold: a redemption made and rolled back in one batch",
    "slice: lapses beyond the last record",
    "numbers ahead that the cursor passed",
    "ahead: taken",
    "ahead: freed",
    "returned: added",
    "returned: taken",
    "time: a record from a clock that is far behind",
    "time: redeemed in time, decided after the lock's end",
    "time: a lapse of a coupon that is seldom or never spoken of",
    "tick: appended",
    "tick: appended again",
    "tick: appended for an owner that is gone",
    "tick: lost with its owner",
    "quiet: deadlines are left to ticks",
];

impl Coverage {
    /// What was seen fewer times than this.
    pub(crate) fn missing(&self, least: u64) -> Vec<String> {
        let rejections =
            REJECTIONS.iter().flat_map(|(kind, reasons)| reasons.iter().map(move |one| (*kind, *one)));
        let rejections = rejections.map(|key| (format!("{} {}", key.0, key.1), self.reasons.get(&key)));
        let seen = TRANSITIONS.iter().map(|what| ((*what).to_owned(), self.seen.get(what)));
        let counted = rejections.chain(seen).map(|(what, times)| (what, times.copied().unwrap_or(0)));
        counted.filter(|(_, times)| *times < least).map(|(what, times)| format!("{what}: {times}")).collect()
    }
}
