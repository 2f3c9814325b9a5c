//! Which arms are compared with which, within a round.

use crate::METRIC_FENCE_TO_OUTCOME;

/// What two arms are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Requests per second.
    Rate,
    /// CPU for each request.
    Cpu,
    /// The time within which 99 % came.
    P99,
    /// From the fence of a takeover to the first outcome.
    Fence,
}

/// One arm compared with another, in the same round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(pub &'static str, pub &'static str, pub By);

impl Ratio {
    /// Its key in the JSON output.
    #[must_use]
    pub fn key(&self) -> String {
        let suffix = match self.2 {
            By::Rate => "",
            By::Cpu => " cpu",
            By::P99 => " p99",
            By::Fence => " fence-to-outcome",
        };
        format!("{}/{}{suffix}", self.0, self.1)
    }
}

use By::{Cpu, Fence, P99, Rate};

/// The ratios that are computed.
pub const RATIOS: &[Ratio] = &[
    Ratio("hot-drain", "row-lock", Rate),
    Ratio("hot-drain", "conditional-update", Rate),
    Ratio("hot-drain", "skip-locked", Rate),
    Ratio("hot-drain", "redis-lua", Rate),
    Ratio("hot-drain", "pg-ceiling", Rate),
    Ratio("hot-drain", "echo", Rate),
    Ratio("sold-out-drain", "hot-drain", Rate),
    Ratio("hot-drain", "uniform-drain", Rate),
    Ratio("hot-drain-8", "hot-drain", Rate),
    Ratio("hot-drain-8", "hot-drain", Cpu),
    Ratio("redeem-drain", "pg-ceiling", Rate),
    Ratio("redeem-drain", "hot-drain", Rate),
    Ratio("accept", "http-ceiling", Rate),
    Ratio("gate", "http-ceiling", Rate),
    Ratio("overload", "claim-to-outcome", P99),
    Ratio("takeover-million", "takeover", Fence),
    Ratio("scaling-2", "scaling-1", Rate),
    Ratio("scaling-2", "scaling-1", Cpu),
    Ratio("scaling-4", "scaling-1", Rate),
    Ratio("scaling-4", "scaling-1", Cpu),
    Ratio("coupons-100", "coupons-10", Cpu),
    Ratio("coupons-1000", "coupons-10", Cpu),
    Ratio("stock-10000", "stock-1000", Cpu),
    Ratio("stock-100000", "stock-1000", Cpu),
    Ratio("stock-1000000", "stock-1000", Cpu),
    Ratio("history-1", "hot-drain", Rate),
    Ratio("history-30", "history-1", Rate),
    Ratio("history-365", "history-1", Rate),
    Ratio("conditional-update", "row-lock", Rate),
    Ratio("skip-locked", "row-lock", Rate),
    Ratio("redis-lua", "skip-locked", Rate),
    Ratio("pg-ceiling", "skip-locked", Rate),
];

/// The metric that [`By::Fence`] compares.
pub(super) const FENCE: &str = METRIC_FENCE_TO_OUTCOME;
