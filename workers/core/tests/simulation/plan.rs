//! What a seed decides before its run: the rate of each fault and the bounds of the machine.
//!
//! Each seed draws its own rates: some runs see one fault very often, others see every fault now and then. If every
//! fault came with every other one, the effect of a single fault would stay hidden.

use crate::rng::Rng;
use coupon_core::machine::Config;
use coupon_core::planted::Planted;

/// The ids of all coupons. The first [`INITIAL_COUPONS`] exist when the run starts; the others are created during it.
pub(crate) const COUPON_IDS: [&str; 14] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "late-1",
    "late-2", "late-3", "late-4",
];
pub(crate) const INITIAL_COUPONS: usize = 10;
/// In most runs these coupons get no requests: only deadlines change them.
pub(crate) const IDLE_COUPONS: [&str; 2] = ["iota", "kappa"];

/// A bug of the ledger itself: it shows that the checks of the fence matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerBug {
    /// The ledger behaves as `write_batch` does.
    None,
    /// Epoch and nonce are not compared.
    FenceIgnored,
    /// The write number is neither compared nor counted.
    WriteNumberNotCounted,
}

/// The parameters of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunConfig {
    pub(crate) seed: u64,
    pub(crate) ledger_bug: LedgerBug,
    pub(crate) planted: Planted,
    pub(crate) traced: bool,
}

impl RunConfig {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ledger_bug: LedgerBug::None, planted: Planted::default(), traced: false }
    }
}

/// How often each fault and each kind of traffic occurs, per thousand unless stated otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Number of records that the traffic appends.
    pub(crate) records: usize,
    /// One crash when each of these numbers of records is decided.
    pub(crate) crashes: Vec<usize>,
    /// Of the calls: those that take long.
    pub(crate) slow_calls: usize,
    /// Of the writes: those whose response is lost.
    pub(crate) write_unknown: usize,
    /// Of the writes: those that fail and may succeed when retried.
    pub(crate) write_retry: usize,
    /// Writes of more records, or of more lapses, exceed the time limit of a statement.
    pub(crate) most_written: usize,
    /// Of the writes: those that report a mismatch although the rows match.
    pub(crate) write_mismatch: usize,
    /// Of the pops: those whose response is lost.
    pub(crate) pop_unknown: usize,
    /// Of the refills: those whose response is lost, with all, some or none of the codes appended.
    pub(crate) refill_unknown: usize,
    /// Of the outbox entries: those that are produced in part, or without an acknowledgement.
    pub(crate) ack_lost: usize,
    /// Of the takeovers, reads and ticks: those that are made again.
    pub(crate) retried_calls: usize,
    /// Per step: the assigned owner freezes, and another one takes its place.
    pub(crate) freeze: usize,
    /// Per step: the group moves the partition.
    pub(crate) rebalance: usize,
    /// Per step: Redis loses all lists, or one list is corrupted.
    pub(crate) redis_faults: usize,
    /// Of the records: those with an id that is already in the log.
    pub(crate) duplicates: usize,
    /// Of the records: requests that the ledger rejects as data.
    pub(crate) unstorable: usize,
    /// Of the records: those with a gap in the offsets before them.
    pub(crate) offset_gaps: usize,
    /// Of the records: those from which on another broker leads, with another clock.
    pub(crate) leader_changes: usize,
    /// Of the records: those from a broker whose clock is far ahead.
    pub(crate) far_ahead: usize,
    /// Clocks tick in whole seconds, so that deadlines and records coincide.
    pub(crate) whole_seconds: bool,
    /// Of the requests: those that name a code.
    pub(crate) code_requests: usize,
    /// Of the records: those that follow a pause long enough for the machine to drop recent ids.
    pub(crate) pauses: usize,
    /// Of the records: those that follow a pause of most of a day.
    pub(crate) long_pauses: usize,
}

/// At least three crashes. In some runs all of them come late, so that the first owner decides more than half of the
/// records: what a cache loses over time shows only in a long ownership.
fn crashes(rng: &mut Rng, records: usize) -> Vec<usize> {
    let late = rng.chance(300);
    let at = |n: usize| if late { records * (n + 5) / 9 } else { records * n / 4 };
    let mut crashes: Vec<usize> = (1..=3).map(|n| at(n) - rng.below(30)).collect();
    for _ in 0..if late { 0 } else { rng.below(4) } {
        crashes.push(1 + rng.below(records - 1));
    }
    crashes.sort_unstable();
    crashes
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let records = 200 + rng.below(60);
        let crashes = crashes(rng, records);
        let mut rate = |highest: usize| match rng.below(4) {
            0 => 0,
            1 => highest / 4,
            2 => highest / 2,
            _ => highest,
        };
        let mut plan = Self {
            records,
            crashes,
            slow_calls: rate(60),
            write_unknown: rate(300),
            write_retry: rate(200),
            most_written: usize::MAX,
            write_mismatch: rate(50),
            pop_unknown: rate(400),
            refill_unknown: rate(200),
            ack_lost: rate(300),
            retried_calls: rate(200),
            freeze: rate(3),
            rebalance: rate(3),
            redis_faults: rate(12),
            duplicates: rate(300),
            unstorable: rate(40),
            offset_gaps: rate(50),
            leader_changes: rate(40),
            code_requests: 0,
            whole_seconds: false,
            pauses: rate(100),
            long_pauses: 0,
            far_ahead: 0,
        };
        if rng.chance(200) {
            plan.far_ahead = 10 + rng.below(20);
        }
        if rng.chance(150) {
            plan.most_written = 1 + rng.below(3);
        }
        if rng.chance(300) {
            plan.long_pauses = 10;
        }
        plan.whole_seconds = rng.chance(200);
        plan.code_requests = *rng.pick(&[0, 0, 300, 600, 600, 850, 850, 950]);
        plan
    }

    /// The reading of a clock at this time.
    pub(crate) const fn round_to_clock_tick(&self, millis: i64) -> i64 {
        if self.whole_seconds { millis / 1_000 * 1_000 } else { millis }
    }

    /// Bounds so small that eviction, splitting and back-pressure occur in every run.
    pub(crate) fn config(rng: &mut Rng, planted: Planted) -> Config {
        let backlog_low = 2 + rng.below(6);
        Config {
            batch_records: 3 + rng.below(5),
            batch_bytes: if rng.chance(300) { 300 } else { 100_000 },
            unacknowledged: 1 + rng.below(3) as u64,
            backlog_high: backlog_low + 4 + rng.below(8),
            backlog_low,
            max_cached_users: *rng.pick(&[1, 2, 40]),
            max_tracked_claimants: *rng.pick(&[0, 0, 1, 6, 1_000]),
            // An evicted coupon loses its cache list: lists grow old only if nothing is evicted.
            max_cached_coupons: *rng.pick(&[2, 20]),
            max_recent_ids: *rng.pick(&[1, 8, 1_000]),
            window: *rng.pick(&[2, 3, 4, 8, 16]),
            planted,
            ..Config::default()
        }
    }
}
