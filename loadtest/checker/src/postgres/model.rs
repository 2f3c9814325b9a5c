//! The rows of Postgres as the checker keeps them.
//!
//! A million claims are kept as a million small [`Row`]s: digests of outcomes, not their text. What a plain claim does not
//! have (deadlines, changes, redemptions) is kept beside them, so that a plain claim costs nothing for it. Where every
//! claim has a deadline, that is some 300 bytes for each claim, and as much again for each change.

use coupon_core::ids::RequestId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::money::Discount;

/// A code: the number of its coupon, and its own number within the coupon.
pub(crate) type CodeId = (i64, i64);

/// The states of claims, as the tables hold them.
pub(crate) const CLAIMED: i16 = 1;
pub(crate) const LOCKED: i16 = 2;
pub(crate) const REDEEMED: i16 = 3;
/// Back in stock.
pub(crate) const RETURNED: i16 = 4;
pub(crate) const REVOKED: i16 = 5;

/// The name of a state, as responses carry it.
pub(crate) fn state_name(state: i16) -> Option<&'static str> {
    let names = ["CLAIMED", "LOCKED", "REDEEMED", "RETURNED", "REVOKED"];
    names.get(usize::try_from(state - 1).ok()?).copied()
}

/// A user within a coupon, as a hash. Of a million users two have the same hash with a chance of one in thirty million.
pub(crate) fn user_key(user: &str, coupon: i64) -> u64 {
    xxh3_64_with_seed(user.as_bytes(), coupon.cast_unsigned())
}

/// A row of `partitions`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) epoch: i64,
    pub(crate) nonce: Option<u128>,
    pub(crate) write_no: i64,
    pub(crate) next_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) next_emit_seq: i64,
    pub(crate) emitted_seq: i64,
    pub(crate) time_ms: i64,
}

/// A coupon with its rules and counters.
#[derive(Clone, Debug)]
pub(crate) struct Coupon {
    pub(crate) id: Box<str>,
    pub(crate) partition: i32,
    pub(crate) rules: Rules,
    pub(crate) stock: Option<Stock>,
}

/// The rules of a coupon. They never change after its creation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) claims_per_user: Option<i64>,
    pub(crate) redemptions_per_user: Option<i64>,
    pub(crate) redemptions_per_code: Option<i64>,
    pub(crate) redemptions_total: Option<i64>,
    pub(crate) hold_ms: Option<i64>,
    pub(crate) lock_ms: i64,
    pub(crate) requires_lock: bool,
    /// `None`: the definition has no readable discount.
    pub(crate) discount: Option<Discount>,
}

impl Rules {
    /// Whether any user may redeem its codes, without a claim.
    pub(crate) fn is_shared(&self) -> bool {
        self.redemptions_per_code != Some(1)
    }
}

/// A row of `stock`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stock {
    pub(crate) top: i64,
    pub(crate) cursor: i64,
    pub(crate) ahead: i64,
    pub(crate) returned: i64,
    /// Claims in the states 1, 2 and 3, and revoked codes.
    pub(crate) live: [i64; 4],
    /// Redemptions that were not rolled back.
    pub(crate) redemptions: i64,
}

impl Stock {
    pub(crate) const fn available(&self) -> i64 {
        self.top - self.cursor - self.ahead + self.returned
    }
}

/// A row of `code_marks`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CodeFlags {
    pub(crate) uses: i64,
    pub(crate) revoked: bool,
}

/// The kind of an outcome, as far as a check depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutcomeKind {
    /// An accepted claim.
    Claimed,
    /// An accepted redemption.
    Redeemed,
    /// Any other accepted request; it has a [`Change`] as well.
    Changed,
    SoldOut,
    KeyReused,
    UserLimit,
    HoldLapsed,
    LockLapsed,
    /// A rejection for any other reason.
    OtherRejection,
}

/// One outcome: a row of `claims`, `redemptions` or `outcomes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: RequestId,
    /// The digest that every response event must have.
    pub(crate) digest: u64,
    /// The digest that every API response to the user must have.
    pub(crate) user_digest: u64,
    /// The coupon's number; 0 if unknown.
    pub(crate) coupon: i64,
    /// The code's number; 0 for a rejection.
    pub(crate) number: i64,
    /// [`user_key`]; 0 if the coupon is unknown.
    pub(crate) user: u64,
    pub(crate) offset: i64,
    pub(crate) decided_ms: i64,
    pub(crate) partition: i32,
    /// The state of a claim; 0 for any other request.
    pub(crate) state: i16,
    pub(crate) kind: OutcomeKind,
}

impl Row {
    pub(crate) fn is_claim(&self) -> bool {
        self.kind == OutcomeKind::Claimed
    }

    /// Whether it is a claim that holds its code.
    pub(crate) fn is_live(&self) -> bool {
        self.is_claim() && self.state != RETURNED
    }

    pub(crate) const fn code(&self) -> CodeId {
        (self.coupon, self.number)
    }
}

/// The columns of a claim that a plain claim leaves empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimStatus {
    pub(crate) first_hold_ms: Option<i64>,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
    pub(crate) order: Option<Box<str>>,
    pub(crate) lapsed_ms: Option<i64>,
    pub(crate) deadline_ms: Option<i64>,
    pub(crate) partition: Option<i32>,
}

/// The operation of an accepted request that is neither a claim nor a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Lock,
    Unlock,
    Return,
    Rollback,
    Revoke,
    /// A kind of request that `outcomes` never holds as accepted.
    Unknown,
}

/// An accepted request that is neither a claim nor a redemption, with the state of the code in its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The index of its [`Row`].
    pub(crate) row: u32,
    pub(crate) operation: Operation,
    /// 0 without a claim.
    pub(crate) state: i16,
    pub(crate) claimed_ms: Option<i64>,
    pub(crate) hold_until_ms: Option<i64>,
    pub(crate) lock_until_ms: Option<i64>,
    pub(crate) order: Option<Box<str>>,
    /// The redemption that a rollback names.
    pub(crate) redemption: Option<RequestId>,
}

/// A redemption.
#[derive(Clone, Debug)]
pub(crate) struct Redemption {
    /// The index of its [`Row`].
    pub(crate) row: u32,
    pub(crate) claimed_ms: Option<i64>,
    pub(crate) order: Box<str>,
    /// Order amount, discount and final price, as responses carry them.
    pub(crate) money: [Box<str>; 3],
    pub(crate) currency: Box<str>,
    pub(crate) rolled_back_ms: Option<i64>,
}
