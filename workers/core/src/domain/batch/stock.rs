//! The stored counters of a coupon, and how a batch changes them.

use crate::domain::ids::{CouponNo, LoadId};

/// The counters of one coupon, as its row of `stock` stores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockRow {
    /// Highest number that became stock.
    pub top: i64,
    /// Highest number taken in sequence.
    pub cursor: i64,
    /// Numbers above the cursor that are taken.
    pub ahead: i64,
    /// Numbers at or below the cursor that are free again.
    pub returned: i64,
    /// Claims in the state CLAIMED.
    pub claimed: i64,
    /// Claims in the state LOCKED.
    pub locked: i64,
    /// Claims in the state REDEEMED, and exhausted shared codes.
    pub redeemed: i64,
    /// Withdrawn codes.
    pub revoked: i64,
    /// Redemptions that were not rolled back, for the limit of the whole coupon.
    pub redemptions: i64,
}

impl StockRow {
    /// Number of free codes: `top − cursor − |ahead| + |returned|`.
    #[must_use]
    pub const fn available(&self) -> i64 {
        self.top - self.cursor - self.ahead + self.returned
    }
}

/// The change of one coupon's stock row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockChange {
    /// The coupon.
    pub coupon: CouponNo,
    /// The row before this batch.
    pub before: StockRow,
    /// The row after this batch.
    pub after: StockRow,
    /// Numbers that were ahead before this batch and that the cursor has passed.
    pub passed: i64,
}

/// A load that becomes stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadApplied {
    /// The load.
    pub load: LoadId,
    /// The number before its first code's.
    pub base: i64,
}
