//! Codes that are obtained ahead of need: from Redis lists, and from Postgres.

use crate::domain::ids::{CodeNumber, CouponNo, Epoch, Nonce};

/// A code and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// Number of the code within the coupon.
    pub number: CodeNumber,
    /// The code as shown to people.
    pub code: Box<str>,
}

/// Name of a Redis list of one coupon. Every ownership uses its own names, so that it pops from its own lists only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheListName {
    /// The coupon.
    pub coupon: CouponNo,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's nonce.
    pub nonce: Nonce,
    /// Number of the list within this ownership.
    pub generation: u64,
}

/// Pop from the head of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pop {
    /// The list.
    pub list: CacheListName,
    /// Most entries to pop.
    pub count: usize,
}

/// Result of a pop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Popped {
    /// The popped entries, in order; may be fewer than requested.
    Codes(Vec<CodeEntry>),
    /// The pop failed, its result is unknown, or an entry is invalid: entries may or may not have been removed.
    Unknown,
}

/// Read the first `count` numbers above `after` that are not ahead, from Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadCodes {
    /// The coupon.
    pub coupon: CouponNo,
    /// The numbers are above this one.
    pub after: CodeNumber,
    /// Most codes to read.
    pub count: usize,
}

/// Read codes from Postgres and append them to a list, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// The list; created if it does not exist.
    pub list: CacheListName,
    /// The codes.
    pub codes: ReadCodes,
}

/// Result of a refill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefillResult {
    /// The codes were appended.
    Refilled {
        /// Number of appended entries.
        count: usize,
        /// Number of the last one.
        last: CodeNumber,
    },
    /// The refill failed, or its result is unknown: the content of the list is unknown.
    Unknown,
}
