//! What a seed makes of its run: how small memory is, what goes wrong and how often.
//!
//! Each seed draws its own mixture, so that some runs see one fault very often and others see all of them a little:
//! a fault that always comes with every other one hides what it does alone.

use crate::rng::Rng;
use coupon_core::machine::Config;
use coupon_core::planted::Planted;

/// A mistake of the ledger itself, to prove that its fence matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is as `write_batch` is.
    None,
    /// Epoch and nonce are not compared.
    FenceIgnored,
    /// The write number is neither compared nor counted.
    WriteNumberNotCounted,
}

/// What a run is told before it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) flaw: Flaw,
    pub(crate) planted: Planted,
    pub(crate) traced: bool,
}

impl Setup {
    pub(crate) fn of(seed: u64) -> Self {
        Self { seed, flaw: Flaw::None, planted: Planted::default(), traced: false }
    }
}

/// How often things go wrong, in cases of 1,000.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Records that clients, the API and strangers append.
    pub(crate) records: usize,
    /// Crashes come when so many records are decided.
    pub(crate) crashes: Vec<usize>,
    /// Calls that take long.
    pub(crate) slow: usize,
    /// Writes whose answer is lost.
    pub(crate) write_unknown: usize,
    /// Writes that fail for now.
    pub(crate) write_retry: usize,
    /// Writes that are told, wrongly, that a row is not as the owner knew it (somebody mended it by hand).
    pub(crate) write_mismatch: usize,
    /// Pops whose answer is lost.
    pub(crate) pop_unknown: usize,
    /// Fills whose answer is lost, whole or in part.
    pub(crate) fill_unknown: usize,
    /// Messages that are produced, but not acknowledged.
    pub(crate) ack_lost: usize,
    /// Takeovers, reads and loads that have to be repeated.
    pub(crate) repeated: usize,
    /// Per step: an owner freezes, and another takes its place.
    pub(crate) freeze: usize,
    /// Per step: the group moves the partition.
    pub(crate) rebalance: usize,
    /// Per step: Redis forgets everything, or a list gets entries that do not belong there.
    pub(crate) redis_chaos: usize,
    /// Of the records: an id that is in the log already.
    pub(crate) repetitions: usize,
    /// Of the records: a request that the ledger refuses as data.
    pub(crate) refused: usize,
    /// Of the records: gaps in offsets before them.
    pub(crate) gaps: usize,
    /// Of the records: another broker leads from here on, with a clock of its own.
    pub(crate) leaders: usize,
    /// Whether clocks tick in whole seconds, so that deadlines and records fall together.
    pub(crate) whole_seconds: bool,
    /// Of the requests: those that name a code.
    pub(crate) life: usize,
    /// Of the records: so long after the previous one that memory of ids has gone.
    pub(crate) pauses: usize,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let records = 200 + rng.below(60);
        let mut crashes: Vec<usize> = (1..=3).map(|n| records * n / 4 - rng.below(30)).collect();
        for _ in 0..rng.below(4) {
            crashes.push(1 + rng.below(records - 1));
        }
        crashes.sort_unstable();
        let mut rate = |often: usize| match rng.below(4) {
            0 => 0,
            1 => often / 4,
            2 => often / 2,
            _ => often,
        };
        let mut plan = Self {
            records,
            crashes,
            slow: rate(60),
            write_unknown: rate(300),
            write_retry: rate(200),
            write_mismatch: rate(50),
            pop_unknown: rate(400),
            fill_unknown: rate(200),
            ack_lost: rate(300),
            repeated: rate(200),
            freeze: rate(3),
            rebalance: rate(3),
            redis_chaos: rate(12),
            repetitions: rate(300),
            refused: rate(40),
            gaps: rate(50),
            leaders: rate(40),
            life: 0,
            whole_seconds: false,
            pauses: rate(100),
        };
        plan.whole_seconds = rng.chance(200);
        plan.life = *rng.pick(&[0, 300, 600, 600, 850, 850, 950]);
        plan
    }

    /// What a clock shows.
    pub(crate) const fn tick_of_clocks(&self, millis: i64) -> i64 {
        if self.whole_seconds { millis / 1_000 * 1_000 } else { millis }
    }

    /// Bounds so small that eviction, splitting and back-pressure happen all the time.
    pub(crate) fn config(rng: &mut Rng, planted: Planted) -> Config {
        let backlog_low = 2 + rng.below(6);
        Config {
            batch_records: 3 + rng.below(5),
            batch_bytes: if rng.chance(300) { 300 } else { 100_000 },
            unacknowledged: 1 + rng.below(3) as u64,
            backlog_high: backlog_low + 4 + rng.below(8),
            backlog_low,
            max_cached_users: *rng.pick(&[2, 2, 40]),
            max_tracked_claimants: *rng.pick(&[1, 6, 1_000]),
            // What is forgotten takes its list with it: where nothing is, lists grow old.
            max_cached_coupons: *rng.pick(&[2, 20]),
            window: *rng.pick(&[2, 3, 4, 8, 16]),
            planted,
            ..Config::default()
        }
    }
}
