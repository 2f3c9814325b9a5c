//! The bounds of one partition.

use crate::domain::ids::DAY_MS;
use crate::planted::Planted;

/// The default memory for the ids of recent requests.
pub const DEFAULT_RECENT_IDS_MIB: usize = 72;

/// Bytes of one place in a set of ids: the id, and a byte of the table.
const BYTES_PER_PLACE: usize = 17;

/// The most ids of one generation if both generations may take so many bytes. A table has a power of two of places, of
/// which seven eighths are used.
#[must_use]
pub const fn ids_within(bytes: usize) -> usize {
    let places = bytes / 2 / BYTES_PER_PLACE;
    if places < 16 { 14 } else { (1 << places.ilog2()) / 8 * 7 }
}

/// Bounds of one partition.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most records in a batch.
    pub batch_records: usize,
    /// Most bytes of raw records in a batch. A larger record is a batch of its own.
    pub batch_bytes: usize,
    /// Most unacknowledged outbox entries. At this number no batch is started.
    pub unacknowledged: u64,
    /// Received records at which delivery is paused.
    pub backlog_high: usize,
    /// Received records at which delivery is resumed: enough work until the first new records arrive, since Kafka's
    /// client fetches again what it had prefetched before the pause.
    pub backlog_low: usize,
    /// Bytes of received raw records at which delivery is paused.
    pub backlog_bytes: usize,
    /// Cached users above which those of settled batches are evicted.
    pub max_cached_users: usize,
    /// Tracked claimants (64 bits each) above which the coupons with most of them stop tracking: their users are then
    /// looked up.
    pub max_tracked_claimants: usize,
    /// Cached coupons above which those of settled batches are evicted.
    pub max_cached_coupons: usize,
    /// Most ids of recent requests in each of two generations.
    pub max_recent_ids: usize,
    /// Codes that the Redis list of a busy coupon holds, about.
    pub window: usize,
    /// How long an outcome is found for a duplicate, in milliseconds between the two append times.
    pub deduplication_ms: i64,
    /// How many milliseconds an append time may be ahead of Postgres' clock. Less than the shortest hold or lock.
    pub max_time_ahead: i64,
    /// A known mistake, switched on by the simulation.
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
            // 19 MB if all belong to one coupon.
            max_tracked_claimants: 1_800_000,
            max_cached_coupons: 50_000,
            max_recent_ids: ids_within(DEFAULT_RECENT_IDS_MIB << 20),
            window: 32_768,
            deduplication_ms: 2 * DAY_MS,
            max_time_ahead: 30_000,
            planted: Planted::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_fit_into_their_bytes() {
        for mib in [1, 8, 72, 200] {
            let ids = ids_within(mib << 20);
            let set: HashSet<u128> = HashSet::with_capacity(ids);
            let bytes = 2 * set.capacity() * 8 / 7 * BYTES_PER_PLACE;
            assert!(bytes <= mib << 20 && bytes > (mib << 20) / 3, "{mib} MiB: {bytes} bytes");
        }
        assert_eq!(ids_within(72 << 20), 1_835_008);
    }
}
