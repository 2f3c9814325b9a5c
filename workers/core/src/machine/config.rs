//! The bounds within which an owner works.

use crate::planted::Planted;

/// Bounds of one partition.
#[derive(Clone, Debug)]
pub struct Config {
    /// Records in a batch at most.
    pub batch_records: usize,
    /// Bytes of raw records in a batch at most (a single larger record is a batch of its own).
    pub batch_bytes: usize,
    /// Outbox entries that are not acknowledged at most; then the owner pauses.
    pub unacknowledged: u64,
    /// Records waiting at which delivery is paused.
    pub backlog_high: usize,
    /// Records waiting at which delivery is resumed: enough to go on with until the first new ones
    /// come (Kafka's client fetches again what it had prefetched).
    pub backlog_low: usize,
    /// Bytes of raw records waiting at which delivery is paused.
    pub backlog_bytes: usize,
    /// Users remembered before those of settled batches are forgotten.
    pub users_remembered: usize,
    /// Users of whom a digest is kept, so that of everybody else nothing needs to be read; beyond it, of those coupons
    /// that have most of them users are read again.
    pub claimants_remembered: usize,
    /// Coupons remembered before those of settled batches are forgotten.
    pub coupons_remembered: usize,
    /// Codes kept ahead in the Redis list of a busy coupon.
    pub window: usize,
    /// Known mistakes switched on by the simulation.
    pub planted: Planted,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_records: 2_000,
            batch_bytes: 2 << 20,
            unacknowledged: 16,
            backlog_high: 40_000,
            backlog_low: 20_000,
            backlog_bytes: 32 << 20,
            users_remembered: 100_000,
            // 19 MB where all are of one coupon.
            claimants_remembered: 1_800_000,
            coupons_remembered: 50_000,
            window: 32_768,
            planted: Planted::default(),
        }
    }
}
