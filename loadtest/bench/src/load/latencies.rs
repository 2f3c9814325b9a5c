//! Latencies and their percentiles, to three significant digits.
//!
//! A record costs as much as a push to a vector (8 ns), and there is nothing to sort afterwards. The memory is the same for
//! ten and for ten million requests.

use std::ops::AddAssign;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer times count as this; every measurement gives up earlier.
const LARGEST_NANOS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Times of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Counts a request that took this long.
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LARGEST_NANOS));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time within which this percentage of the requests ended; zero where there are none.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Duration {
        // A bucket counts as its upper end, which can be above the largest time.
        let nanos = self.0.value_at_quantile(f64::from(percent) / 100.0);
        Duration::from_nanos(nanos.min(self.0.max()))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_max(LARGEST_NANOS, SIGNIFICANT_DIGITS).expect("constant bounds are valid"))
    }
}

impl AddAssign for Latencies {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut latencies = Self::default();
        times.into_iter().for_each(|time| latencies.record(time));
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Duration, wanted: Duration) -> bool {
        found.abs_diff(wanted).as_secs_f64() <= wanted.as_secs_f64() / 1_000.0
    }

    #[test]
    fn a_percentile_is_one_of_the_times_to_three_significant_digits() {
        let micros = |n| Duration::from_micros(n);
        for unit in [1, 1_000, 100_000] {
            let latencies: Latencies = (1..=100).map(|n| micros(n * 10 * unit)).collect();
            for percent in [1, 50, 99, 100] {
                let (found, wanted) = (latencies.percentile(percent), micros(u64::from(percent) * 10 * unit));
                assert!(near(found, wanted), "{percent} % of unit {unit}: {found:?}, not {wanted:?}");
            }
        }
        let few: Latencies = [3, 1, 2].map(|n| micros(n * 1_000)).into_iter().collect();
        assert!(near(few.percentile(50), micros(2_000)) && near(few.percentile(99), micros(3_000)));
    }

    #[test]
    fn no_times_have_percentile_zero_and_a_time_out_of_range_is_the_largest() {
        assert_eq!(Latencies::default().percentile(99), Duration::ZERO);
        let latencies: Latencies = [Duration::MAX].into_iter().collect();
        assert!(near(latencies.percentile(50), Duration::from_nanos(LARGEST_NANOS)));
    }

    #[test]
    fn the_times_of_two_clients_are_those_of_both() {
        let of = |millis: [u64; 2]| millis.map(Duration::from_millis).into_iter().collect::<Latencies>();
        let mut both = of([1, 40]);
        both += of([2, 30]);
        assert_eq!(both, [1, 2, 30, 40].map(Duration::from_millis).into_iter().collect());
        assert!(both.len() == 4 && near(both.percentile(75), Duration::from_millis(30)));
    }
}
