//! What the runs have covered: how often each rejection, each transition and each special case occurred.

use coupon_core::words::{Kind, Reason};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    /// Rejections, by kind of request and reason.
    pub(crate) reasons: BTreeMap<(Kind, Reason), u64>,
    /// Everything else, by label.
    pub(crate) labels: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn count_rejection(&mut self, kind: Kind, reason: Reason) {
        *self.reasons.entry((kind, reason)).or_default() += 1;
    }

    pub(crate) fn count(&mut self, label: &'static str) {
        *self.labels.entry(label).or_default() += 1;
    }

    pub(crate) fn count_if(&mut self, occurred: bool, label: &'static str) {
        if occurred {
            self.count(label);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (key, times) in &other.reasons {
            *self.reasons.entry(*key).or_default() += times;
        }
        for (key, times) in &other.labels {
            *self.labels.entry(key).or_default() += times;
        }
    }

    /// The required rejections and labels that occurred less often than `minimum`.
    pub(crate) fn missing(&self, minimum: u64) -> Vec<String> {
        let rejections =
            REJECTIONS.iter().flat_map(|(kind, reasons)| reasons.iter().map(|one| (*kind, *one)));
        let rejections = rejections.map(|key| (format!("{} {}", key.0, key.1), self.reasons.get(&key)));
        let labels = LABELS.iter().map(|label| ((*label).to_owned(), self.labels.get(label)));
        let counted = rejections.chain(labels).map(|(what, times)| (what, times.copied().unwrap_or(0)));
        let rare = counted.filter(|(_, times)| *times < minimum);
        rare.map(|(what, times)| format!("{what}: {times}")).collect()
    }
}

/// The reasons for which each kind of request can be rejected, except for the daily limit, which is not built yet.
const REJECTIONS: &[(Kind, &[Reason])] = {
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

/// Every transition of a claim, what is combined within a batch, and the special cases of stock and time.
const LABELS: &[&str] = &[
    "claim, next in sequence",
    "claim, returned",
    "claim by code, above the cursor",
    "claim by code, returned",
    "CLAIMED → LOCKED",
    "CLAIMED → LOCKED for an order",
    "CLAIMED → LOCKED again after a lapse",
    "LOCKED → CLAIMED by its deadline",
    "LOCKED → CLAIMED → RETURNED at the same deadline",
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
    "sold out by a claim by code",
    "sold out by a revoke",
    "restocked by a lapse",
    "restocked by a return",
    "one batch: a claim created and changed",
    "one batch: a redemption created and rolled back",
    "deadlines: lapses after the last record of a batch",
    "deadlines: a lapse of a coupon with few or no requests",
    "numbers ahead that the cursor passed",
    "ahead: taken",
    "ahead: freed",
    "returned: added",
    "returned: taken",
    "time: a duplicate of a request of another day",
    "time: a record from a clock that is far behind",
    "time: a record far ahead waits",
    "time: a record far ahead is rejected",
    "time: redeemed in time, decided after the end of the lock",
    "tick: appended",
    "tick: appended again",
    "tick: appended for a removed owner",
    "tick: lost with its owner",
    "idle: deadlines pass by ticks alone",
    "a write exceeds the time limit of a statement",
];
