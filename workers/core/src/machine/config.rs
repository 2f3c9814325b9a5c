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
    pub max_cached_users: usize,
    /// Users of whom a digest is kept, so that of everybody else nothing needs to be read; beyond it, of those coupons
    /// that have most of them users are read again.
    pub max_tracked_claimants: usize,
    /// Coupons remembered before those of settled batches are forgotten.
    pub max_cached_coupons: usize,
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
            max_cached_users: 100_000,
            // 19 MB where all are of one coupon.
            max_tracked_claimants: 1_800_000,
            max_cached_coupons: 50_000,
            window: 32_768,
            planted: Planted::default(),
        }
    }
}
